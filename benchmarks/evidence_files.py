"""The study's files under benchmarks/evidence: one compact JSON per setting, and what a report reads of them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks.settings import waves_of
from lsf.criteria.agreement import KERNEL_EXAMPLES
from lsf.evidence.packed import Measured
from lsf.evidence.regret import Metric, complete_seeds, truth_of
from lsf.evidence.study import Setting
from lsf.evidence.sweep import FULL, Sweep
from lsf.files import finite, read_json, write_text

FOLDER = Path(__file__).parent / "evidence"
RATES = FOLDER / "lesson_rates.json"
"""Lesson -> place -> best rate, from `python -m benchmarks.lesson_table --json` (whole runs, seed 0, validation)."""


@dataclass(frozen=True)
class Found:
    """What is known of one setting."""

    setting: Setting
    """Truth, and scores on up to 200 examples."""
    small: Measured
    """The same truth, and scores on the small sample that a recommendation reads."""
    seconds: Mapping[str, float]
    """Need -> wall seconds of an analysis of the criteria that need it, on up to 200 examples."""
    full_seconds: float
    """Mean wall seconds of the steps of one full fine-tune."""


def path_of(name: str) -> Path:
    """Return the file of a setting's results."""
    return FOLDER / f"{name}.json"


def write_site(name: str, metric: Metric, sweep: Sweep, criteria: Mapping[str, Any] | None) -> None:
    """Write what is known of a setting, compactly, a line per cell."""
    value = {"metric": metric, "sweep": sweep.to_json(), "criteria": criteria}
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(path_of(name), text.replace('{"plan":', '\n{"plan":') + "\n")


def read_site(name: str) -> tuple[Sweep | None, dict[str, Any] | None]:
    """Return a setting's sweep and its criteria's scores, as far as they are there."""
    if not path_of(name).exists():
        return None, None
    value = read_json(path_of(name), "a setting of the study")
    return Sweep.from_json(value["sweep"], str(path_of(name))), value["criteria"]


def find_site(name: str, metric: Metric) -> Found | None:
    """Return a setting as a report reads it, by the seeds that every single block has; None where there is none yet."""
    sweep, criteria = read_site(name)
    if (
        sweep is None
        or criteria is None
        or "limits" not in criteria.get("small", {})
        or (seeds := complete_seeds(sweep)) < 1
    ):
        return None
    truth, (model, _, task) = truth_of(sweep, metric, seeds), name.partition("-")
    setting = Setting(name, model, task, truth, _known(criteria["scores"]))
    full = mean(cell.seconds for cell in sweep.cells if cell.plan == FULL and cell.seconds is not None)
    small = criteria["small"]
    cost = {need: seconds / full for need, seconds in small["seconds"].items()}
    timed = criteria.get("in_turn", {})
    cost |= {need: seconds / timed[FULL] for need, seconds in timed.items() if need != FULL}
    read = replace(setting, scores=_known(small["scores"]))
    examples = {**small["limits"], "kernel": min(KERNEL_EXAMPLES, small["limits"]["kernel"])}
    packed = Measured(read, metric, sweep.spec.steps, examples, cost, bool(waves_of([name])["all tests"]))
    return Found(setting, packed, criteria["seconds"], full)


def _known(scores: Mapping[str, list[float | None]]) -> dict[str, list[float]]:
    """Return the criteria that scored every block."""
    return {
        name: [value for value in values if value is not None] for name, values in scores.items() if None not in values
    }
