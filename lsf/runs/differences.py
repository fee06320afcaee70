"""Where the settings of runs differ, and words that tell runs apart."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from lsf.data.lessons import data_words
from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import how_chosen
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run
from lsf.wording import counted

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


def _chosen_by(plan: Plan) -> str:
    if plan.is_full:
        return "no choice"
    if plan.criterion is None:
        return how_chosen(plan).removeprefix("chosen by ")
    return f"{plan.criterion}, {plan.policy or 'control'}"


def _side_by_side(told: Sequence[dict[str, str]]) -> list[Difference]:
    names = dict.fromkeys(name for one in told for name in one)
    return [Difference(name, tuple(one.get(name, UNKNOWN) for one in told)) for name in names]


def _settings(run: Run) -> dict[str, str]:
    """Return everything a run was asked, in words; the rate as it was used."""
    spec = run.spec
    if spec is None:
        return {}
    plan = spec.plan
    names = [item.name for item in fields(RunSpec) if item.name not in (*NOT_SETTINGS, _idle_length(spec))]
    told = {
        "stands for": spec.role,
        "blocks": format_blocks(plan.blocks) or "none",
        "beside the blocks": ", ".join(plan.beside) or "nothing",
        "chosen by": _chosen_by(plan),
        **{name.replace("_", " "): _word(getattr(spec, name), name) for name in names},
        **{f"{spec.method}: {name}": _word(value) for name, value in spec.options.items()},
    }
    if spec.given_rate is None:
        rate = None if run.result is None else run.result.learning_rate
        told["learning rate"] = spec.rate_asked if rate is None else f"{rate:g} ({spec.rate_asked})"
    return told


SHORT = 24
"""Characters of a setting that stand in a name."""
_IN_NAMES = (
    "method", "seed", "general", "general_share", "proof", "report_to", "device", "dtype", "threads", "latency",
)  # fmt: skip
"""Settings that names have already, or that change nothing which is compared."""


def apart(runs: Sequence[Run], leave_out: Sequence[str] = ()) -> list[str]:
    """Return for each run, in words, what was asked of it and not of all: `4 steps, batch size 8`; else nothing.

    Args:
        runs: whose names are to be told apart; of one without a spec nothing is known.
        leave_out: fields of a spec that are told elsewhere.
    """
    specs = [run.spec for run in runs if run.spec is not None]
    names = [item.name for item in fields(RunSpec) if item.name not in (*NOT_SETTINGS, *_IN_NAMES, *leave_out)]
    differ = [name for name in names if len({repr(getattr(spec, name)) for spec in specs}) > 1]
    return ["" if run.spec is None else ", ".join(_all_said(run.spec, differ)) for run in runs]


def _all_said(spec: RunSpec, names: Sequence[str]) -> list[str]:
    if "epochs" in names and spec.epochs is None:  # beside runs of so many passes its own length is told
        names = ["steps", *(name for name in names if name != "steps")]
    return [_said(spec, name) for name in names if name != _idle_length(spec)]


def length_of(spec: RunSpec) -> str:
    """Return how long a run was to be: a number of steps, or `2 epochs`."""
    if spec.epochs is None:
        return str(spec.steps)
    return counted(spec.epochs, "epoch")


def _idle_length(spec: RunSpec) -> str:
    """Return the one of both fields that does not say how long the run is."""
    return "epochs" if spec.epochs is None else "steps"


def _said(spec: RunSpec, name: str) -> str:
    value = getattr(spec, name)
    if name == "model":
        return Path(value).name
    if name == "data":
        return data_words(value)
    if name in ("steps", "epochs"):
        return counted(value, "step") if name == "steps" else length_of(spec)
    if name == "learning_rate":
        return f"{spec.rate_asked} rate" if spec.given_rate is None else f"rate {value:g}"
    words = _word(value, name)
    words = words if len(words) <= SHORT else f"{words[: SHORT - 1]}…"
    return f"{name.replace('_', ' ')} {words}"


def _surroundings(run: Run) -> dict[str, str]:
    """Return what a run was made with, as far as it is known."""
    if run.result is None:
        return {}
    text = run.result.general_text
    own = {} if text is None else {"text that forgetting was read on": text}
    return {f"{name} found": str(value) for name, value in run.result.environment.items() if value is not None} | own


OFF = ("general", "reweight_tau", "answer_pattern")
"""Fields of a spec without which something is not done; None of the others stands for a default."""


def _word(value: Any, name: str = "") -> str:
    if value is None:
        return "off" if name in OFF else "default"
    return f"{value:g}" if isinstance(value, float) else str(value)
