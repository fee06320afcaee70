"""What criteria say on a setting of the study, on how many examples, and how long that takes."""

import time
from collections.abc import Collection, Mapping
from typing import Any

from lsf.criteria.registry import CRITERIA
from lsf.evidence.packed import AFFORDABLE, MOST, sample_sizes


def missing_needs(known: Mapping[str, Any], of: Collection[str] = (*AFFORDABLE, "runs")) -> list[str]:
    """Return the needs of which a criterion has no scores yet: those of new criteria, or all of them."""
    scores = known.get("scores", {})
    return [need for need in of if any(e.needs == need and name not in scores for name, e in CRITERIA.items())]


def scored(loaded: Any, task: Any, seen: int, known: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return what is known of a setting's scores and what it lacked, on the large and on the small sample.

    Args:
        loaded: the model.
        task: the data.
        seen: examples that the steps of one run see.
        known: earlier scores.
    """
    known = known or {}
    small = known.get("small", {})
    limits = sample_sizes(seen)
    more = score(loaded, task, dict.fromkeys(missing_needs(known), MOST))
    fewer = score(loaded, task, {need: limits[need] for need in missing_needs(small, AFFORDABLE)})
    return _joined(known, more) | {"small": _joined(small, fewer) | {"limits": limits}}


def _joined(known: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    parts = {part: {**known.get(part, {}), **found[part]} for part in ("scores", "seconds")}
    return {**parts, "params": found["params"] or known.get("params")}


def score(loaded: Any, task: Any, limits: dict[str, int]) -> dict[str, Any]:
    """Return criteria's scores on the training rows, and the wall seconds of an analysis for each need.

    Args:
        loaded: the model.
        task: the data.
        limits: need -> examples read at most; criteria of other needs are left out.
    """
    from lsf.criteria.result import AnalysisSettings  # noqa: PLC0415
    from lsf.lens.analyze import analyze  # noqa: PLC0415
    from lsf.progress import Silent  # noqa: PLC0415
    from lsf.training.short_runs import probe_blocks  # noqa: PLC0415

    found: dict[str, Any] = {"scores": {}, "seconds": {}, "params": None}
    for need, limit in limits.items():
        names = tuple(name for name, entry in CRITERIA.items() if entry.needs == need)
        settings = AnalysisSettings(criteria=names, split="train", limit=limit)
        begun = time.perf_counter()
        analysis = analyze(loaded, task, settings, Silent(), probe_blocks)
        found["seconds"][need] = round(time.perf_counter() - begun, 3)
        found["scores"] |= {name: analysis.scores(name) for name in names}
        found["params"] = [block.n_params for block in analysis.blocks]
    return found
