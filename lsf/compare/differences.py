"""What was set differently in runs that are compared."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from lsf.analysis.plan import format_blocks
from lsf.jobs.runs import Run
from lsf.jobs.spec import RunSpec

NOT_SETTINGS = ("plan", "role", "options", "schema_version")
"""Fields of a spec that are told in parts, or not at all."""
UNKNOWN = "-"


@dataclass(frozen=True)
class Difference:
    """One setting that is not the same in all runs."""

    setting: str
    """Its name in words."""
    values: tuple[str, ...]
    """As it was in each run, in their order; a dash where the run has no such setting."""


def differences(runs: Sequence[Run]) -> tuple[Difference, ...]:
    """Return the settings in which runs differ, then versions and devices in which they do.

    Args:
        runs: those compared; one without a spec has a dash everywhere.
    """
    found = [one for one in _side_by_side([_settings(run) for run in runs]) if len(set(one.values)) > 1]
    around = _side_by_side([_surroundings(run) for run in runs])
    return (*found, *(one for one in around if len(set(one.values) - {UNKNOWN}) > 1))


def _side_by_side(told: Sequence[dict[str, str]]) -> list[Difference]:
    names = dict.fromkeys(name for one in told for name in one)
    return [Difference(name, tuple(one.get(name, UNKNOWN) for one in told)) for name in names]


def _settings(run: Run) -> dict[str, str]:
    """Return everything a run was asked, in words; the rate as it was used."""
    spec = run.spec
    if spec is None:
        return {}
    plan = spec.plan
    modules = [name.replace("_", " ") for name in ("embedding", "final_norm", "head") if getattr(plan, name)]
    names = [item.name for item in fields(RunSpec) if item.name not in NOT_SETTINGS]
    told = {
        "stands for": spec.role,
        "blocks": format_blocks(plan.blocks) or "none",
        "beside the blocks": ", ".join([*modules, *plan.modules]) or "nothing",
        "chosen by": "hand" if plan.criterion is None else f"{plan.criterion}, {plan.policy or 'control'}",
        **{name.replace("_", " "): _word(getattr(spec, name)) for name in names},
        **{f"{spec.method}: {name}": _word(value) for name, value in spec.options.items()},
    }
    if spec.given_rate is None:
        rate = None if run.result is None else run.result.learning_rate
        how = "searched" if spec.searches_rate else "default"
        told["learning rate"] = how if rate is None else f"{rate:g} ({how})"
    return told


def _surroundings(run: Run) -> dict[str, str]:
    """Return what a run was made with, as far as it is known."""
    made_with = {} if run.result is None else run.result.environment
    return {f"{name} found": str(value) for name, value in made_with.items() if value is not None}


def _word(value: Any) -> str:
    if value is None:
        return "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
