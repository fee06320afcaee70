"""Where x how: the runs of a grid of places and methods, and the finished ones among all runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError
from lsf.jobs.controls import control_spec
from lsf.jobs.result import RunState
from lsf.jobs.runs import Run
from lsf.jobs.spec import METHODS_OWN, RunSpec
from lsf.training.catalogue import CATALOGUE, describe
from lsf.training.options import ADAPTER_KINDS

PLACES = ("choice", "full", "last", "random")
"""The chosen plan, the whole model, and as many of the deepest or of drawn blocks."""


@dataclass(frozen=True)
class Way:
    """One column of the grid: a method with its options."""

    method: str
    """Key in CATALOGUE."""
    options: tuple[tuple[str, Any], ...] = ()
    """Only those given."""

    @property
    def name(self) -> str:
        """As tables write it: `adapter (kind=pfeiffer)`."""
        return describe(self.method, dict(self.options))


WAYS: Mapping[str, Way] = {
    way.name: way
    for name in CATALOGUE
    for way in (
        [Way(name, (("kind", kind),)) for kind in ADAPTER_KINDS]
        if name == "adapter"
        else [Way(name), Way(name, (("form", "bias"),))]
        if name == "hiwi"
        else [Way(name, (("scope", "per_tensor"),)), Way(name, (("scope", "global"),))]
        if name == "pafi"
        else [Way(name)]
    )
}
"""Every column that can be asked for, by its name."""


def grid_specs(base: RunSpec, places: Sequence[str], ways: Sequence[Way], search: bool) -> tuple[RunSpec, ...]:
    """Return one spec per cell, place by place; full fine-tuning of the whole model comes first where it is asked for.

    Every method has its own default rate, or its own search: never one rate for all.

    Args:
        base: of the chosen plan; its method, options and rate are replaced.
        places: among `PLACES`.
        ways: methods with their options.
        search: whether every cell searches its own rate on the validation split.

    Raises:
        BadInputError: no place, no method, or a place of another name.
    """
    if not places or not ways:
        raise BadInputError("A grid needs at least one place and one method.")
    for place in places:
        if place not in PLACES:
            raise BadInputError(f"There is no place {place!r}; accepted are: {', '.join(PLACES)}.")
    specs: list[RunSpec] = []
    seen: set[tuple[object, ...]] = set()
    for place in sorted(places, key=lambda place: place != "full"):
        where = base if place == "choice" else control_spec(base, place)
        for way in sorted(ways, key=lambda way: way.method != "full"):
            rate = None if search else METHODS_OWN
            spec = replace(where, method=way.method, options=dict(way.options), learning_rate=rate)
            if cell_of(spec) not in seen:
                seen.add(cell_of(spec))
                specs.append(spec)
    return tuple(specs)


def cell_of(spec: RunSpec) -> tuple[str, str]:
    """Return the place and the method of a run, as the grid writes them."""
    return place_of(spec.plan), spec.how


def place_of(plan: Plan) -> str:
    """Return how the grid writes a place."""
    return "whole model" if plan.is_full else plan.label


def grid_of(spec: RunSpec) -> tuple[object, ...] | None:
    """Return what the cells of one grid share: model, data, loop, and whence their rates; None where one was given.

    Rates are each method's default or each cell's own search; the two are never put beside each other.
    """
    return (_kin(spec), spec.searches_rate) if spec.given_rate is None else None


def grids(runs: Sequence[Run]) -> tuple[Run, ...]:
    """Return one run of every grid with at least two methods: its newest of chosen blocks, else its newest.

    Args:
        runs: newest first.
    """
    found: dict[tuple[object, ...], list[Run]] = {}
    for run in runs:
        if run.spec is not None and (grid := grid_of(run.spec)) is not None:
            found.setdefault(grid, []).append(run)
    crossed = [group for group in found.values() if len({run.spec.how for run in group if run.spec}) > 1]
    return tuple(
        next((run for run in group if run.spec and run.spec.role in ("choice", "manual")), group[0])
        for group in crossed
    )


def same_grid(runs: Sequence[Run], base: RunSpec) -> tuple[Run, ...]:
    """Return the newest run of every cell of the grid of `base`, a run with its method's default rate or a search.

    Runs that measured other weights or data under the same names than the newest one that measured anything, or on
    another device, are left out: no ratio between them would mean anything.

    Args:
        runs: newest first.
        base: any run of the grid.
    """
    kin = [run for run in runs if run.spec is not None and grid_of(run.spec) == grid_of(base)]
    known = [ground for run in kin if (ground := _ground(run)) is not None]
    found: dict[tuple[str, str], Run] = {}
    for run in kin:
        if run.spec is not None and _ground(run) in (None, *known[:1]):
            found.setdefault(cell_of(run.spec), run)
    return tuple(found.values())


def missing(specs: Sequence[RunSpec], runs: Sequence[Run]) -> tuple[RunSpec, ...]:
    """Return the specs whose cell holds no run at this rate yet that ended well, waits or works."""
    done = (RunState.SUCCEEDED, RunState.RUNNING, RunState.QUEUED)
    there = {(*cell_of(run.spec), run.spec.learning_rate) for run in runs if run.spec and run.state in done}
    return tuple(spec for spec in specs if (*cell_of(spec), spec.learning_rate) not in there)


def _kin(spec: RunSpec) -> tuple[object, ...]:
    templates = spec.prompt_template, spec.completion_template
    loop = spec.steps, spec.epochs, spec.batch_size, spec.seed, spec.weight_decay, spec.warmup_steps, spec.reweight_tau
    ends = spec.optimizer, spec.until, spec.keep, spec.eval_every
    return spec.model, spec.data, spec.device, spec.dtype, *templates, *loop, *ends, spec.max_length, spec.eval_limit


def _ground(run: Run) -> tuple[object, ...] | None:
    """Return what a run measured on, as far as only its result knows; None where it measured nothing."""
    result = run.result
    return None if result is None or result.before is None else result.measured_on
