"""Runs as the pages look at them: what belongs together, their curves, their table."""

import shlex
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd

from lsf.analysis.plan import Plan, format_blocks
from lsf.compare.table import COSTS_ONLY
from lsf.figures.curves import Curve
from lsf.figures.palette import ROLES as MARKS
from lsf.jobs.runs import Run, read_metrics
from lsf.jobs.spec import ROLES, RunSpec

AXES = {"steps": "step", "tokens": "tokens", "seconds": "seconds"}
"""Horizontal axis -> column of metrics.jsonl."""
METRICS = {
    "training loss": ("loss", True, False),
    "validation loss": ("validation_loss", True, False),
    "validation exact match": ("validation_exact_match", False, True),
}
"""What is drawn -> column of metrics.jsonl, whether lower is better, whether it is a share."""
_OF_NO_CONSEQUENCE: dict[str, Any] = {item.name: item.default for item in fields(RunSpec) if item.name in COSTS_ONLY}
"""Settings that change what a run costs and not what it learns."""
_SAID_OTHERWISE = ("model", "data", "plan", "role", "schema_version")


def belong_together(runs: Sequence[Run], name: str | None) -> list[Run]:
    """Return the runs made to be compared with one: all settings equal but plan, role, seed and rate.

    Of runs with the same role, plan, seed and rate only the newest is kept.

    Args:
        runs: newest first.
        name: id of the run; None takes the newest that has a spec.

    Returns:
        Choice first, then full and the controls; empty where the run is not among them.
    """
    own = next((run for run in runs if run.spec is not None and name in (None, run.id)), None)
    if own is None or own.spec is None:
        return []
    kin = _settings(own.spec)
    full = replace(kin, method="full", options={})  # full fine-tuning stands beside every method
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.spec is not None and _settings(run.spec) in ((kin, full) if run.spec.role == "full" else (kin,)):
            key = (run.spec.role, run.spec.plan.label, run.spec.how, run.spec.seed, run.spec.learning_rate)
            found.setdefault(key, run)
    order = {role: place for place, role in enumerate(ROLES)}
    return sorted(found.values(), key=lambda run: (order[run.spec.role] if run.spec else 0, run.id))


def _settings(spec: RunSpec) -> RunSpec:
    nobody = replace(spec.plan, blocks=(0,), embedding=False, final_norm=False, head=False, criterion=None, policy=None)
    plain = replace(nobody, budget={}, reasons={}, predicted=type(spec.plan.predicted)())
    return replace(spec, plan=plain, role="choice", seed=0, learning_rate=None, **_OF_NO_CONSEQUENCE)


def label(run: Run) -> str:
    """Return a run's name in legends: its role, its blocks, and its method where that is not `full`."""
    if run.spec is None:
        return run.id
    method = "" if run.spec.method == "full" else f", {run.spec.how}"
    rest = method + (f", seed {run.spec.seed}" if run.spec.seed else "")
    if run.spec.role == "full":
        return f"full{rest}"
    name = MARKS[run.spec.role].label
    return f"{name}: {run.spec.plan.label}{rest}"


def labels(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names, those that are the same told apart by the end of the folder's."""
    names = [label(run) for run in runs]
    return [f"{name} · {run.id[-4:]}" if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def curves(runs: Sequence[Run], metric: str, axis: str) -> list[Curve]:
    """Return one curve per run from its metrics.jsonl, with a name of its own; rows without a reading are left out."""
    column = METRICS[metric][0]
    found = []
    for name, run in zip(labels(runs), runs, strict=True):
        rows = [row for row in read_metrics(run.folder) if _known(row.get(column)) and _known(row.get(AXES[axis]))]
        role = run.spec.role if run.spec is not None else "manual"
        x, y = (tuple(float(row[key]) for row in rows) for key in (AXES[axis], column))
        found.append(Curve(name, role, x, y))
    return found


def _known(value: Any) -> bool:
    return isinstance(value, int | float)


def runs_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per run for a list of runs."""
    return pd.DataFrame(
        [
            {
                "run": run.id,
                "state": str(run.state),
                "stands for": run.spec.role if run.spec else None,
                "tuned": run.spec.plan.label if run.spec else None,
                "model": run.spec.model if run.spec else None,
                "data": run.spec.data if run.spec else None,
                "steps": run.spec.steps if run.spec else None,
                "seed": run.spec.seed if run.spec else None,
                "problem": run.problem,
            }
            for run in runs
        ]
    )


def command(spec: RunSpec) -> str:
    """Return the shell command that repeats a run: every setting that is not the default."""
    words = ["python", "-m", "lsf", "tune", "--model", spec.model, "--data", spec.data, *_tuned(spec.plan)]
    for item in fields(RunSpec):
        value = getattr(spec, item.name)
        if item.name in _SAID_OTHERWISE or value == item.default:
            continue
        if item.name == "options":
            words += [word for name, given in spec.options.items() for word in ("--option", f"{name}={given}")]
            continue
        words += ["--" + item.name.replace("_", "-"), "auto" if value is None else str(value)]
    return shlex.join([*words, "--runs", "runs"])


def _tuned(plan: Plan) -> list[str]:
    """Return the words of a command that name what is tuned."""
    if plan.is_full:
        return ["--all"]
    modules = [name for name in ("embedding", "final_norm", "head") if getattr(plan, name)] + list(plan.modules)
    blocks = ["--blocks", format_blocks(plan.blocks).replace(" ", "") or "none"]
    return [*blocks, "--modules", ",".join(modules)] if modules else blocks
