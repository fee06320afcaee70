"""What was measured elsewhere, packed with the package: the sweeps of the study and every criterion's scores there."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lsf.analysis.plan import format_blocks
from lsf.compare.regret import Blocks, Truth
from lsf.compare.study import Site
from lsf.errors import BadInputError
from lsf.files import finite, read_json, write_text

PACKED = Path(__file__).parent / "measured.json"
"""Written by `python benchmarks/evidence.py --pack` from the files under benchmarks/evidence."""
SCHEMA_VERSION = 1
DIGITS = 5


@dataclass(frozen=True)
class Measured:
    """One model and task of the study."""

    site: Site
    """Truth, and the scores of the criteria on the small sample that a recommendation reads."""
    metric: str
    """exact_match or loss; the truth's scores are the metric, a loss turned round."""
    steps: int
    """Of every run."""
    examples: Mapping[str, int]
    """Need -> examples read for it."""
    cost: Mapping[str, float]
    """Need -> wall seconds of an analysis of it over those of one full fine-tune."""
    announced: bool = False
    """True where the recommended rule was made, and this pair named, before anything was measured on it."""


def load_evidence(path: Path = PACKED) -> tuple[Measured, ...]:
    """Read what is packed.

    Raises:
        BadInputError: the file is missing or is of another schema version.
    """
    value = read_json(path, "the study's results")
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInputError(f"{path} has schema_version {version}; results of schema_version 1 were expected.")
    return tuple(_measured(one) for one in value["sites"])


@cache
def packed_evidence() -> tuple[Measured, ...]:
    """Return what is packed with the package, read once."""
    return load_evidence()


def pack(sites: Sequence[Measured], path: Path = PACKED) -> None:
    """Write results compactly, a line per site."""
    lines = ",\n".join(json.dumps(finite(_plain(one)), allow_nan=False, separators=(",", ":")) for one in sites)
    write_text(path, f'{{"schema_version":{SCHEMA_VERSION},"sites":[\n{lines}\n]}}\n')


def _plain(one: Measured) -> dict[str, Any]:
    truth = one.site.truth
    plans = [[list(blocks), [round(score, DIGITS) for score in scores]] for blocks, scores in truth.scores.items()]
    return {
        "name": one.site.name,
        "model": one.site.model,
        "task": one.site.task,
        "metric": one.metric,
        "steps": one.steps,
        "examples": dict(one.examples),
        "n_blocks": truth.n_blocks,
        "base": round(truth.base, DIGITS),
        "full": [round(score, DIGITS) for score in truth.full],
        "plans": plans,
        "missing": [[list(blocks), reason] for blocks, reason in truth.missing.items()],
        "scores": {name: [float(f"{score:.6g}") for score in scores] for name, scores in one.site.scores.items()},
        "cost": {need: round(share, 3) for need, share in one.cost.items()},
        "announced": one.announced,
    }


def _measured(value: Mapping[str, Any]) -> Measured:
    truth = Truth(
        value["n_blocks"],
        value["base"],
        tuple(value["full"]),
        {tuple(blocks): tuple(scores) for blocks, scores in value["plans"]},
        {tuple(blocks): reason for blocks, reason in value["missing"]},
    )
    site = Site(value["name"], value["model"], value["task"], truth, value["scores"])
    announced = value.get("announced", False)
    return Measured(site, value["metric"], value["steps"], value["examples"], value["cost"], announced)


def shown(score: float, metric: str) -> str:
    """Write a score of a truth as its metric is read: exact match as it is, a loss the right way round."""
    return f"{-score:.3f} nats" if metric == "loss" else f"{score:.2f}"


def words(blocks: Blocks) -> str:
    """Write blocks for people: `block 3`, `blocks 0, 7`."""
    return f"block{'s' if len(blocks) > 1 else ''} {format_blocks(blocks)}"
