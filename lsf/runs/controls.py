"""What a choice is compared with: controls of the same size, and the grid of blocks and methods."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lsf.data.contents import options_in
from lsf.errors import BadInputError, UnknownNameError
from lsf.methods.catalogue import ADAPTER_KINDS, CATALOGUE, describe
from lsf.plans.plan import Plan, full_plan, place_of
from lsf.runs.comparability import texts_of
from lsf.runs.result import RunState
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.runs.store import Run

CONTROLS = ("full", "first", "last", "random")
"""`full` tunes everything; the others as many blocks as the choice: shallowest, deepest, or drawn by the seed."""
TRIES = 32
"""Draws of `random` that may fall on the choice itself before it is accepted."""


def control_blocks(role: str, n_blocks: int, chosen: tuple[int, ...], seed: int) -> tuple[int, ...]:
    """Return the blocks of a same-size control.

    Args:
        role: first, last or random.
        n_blocks: L.
        chosen: blocks of the choice; as many are returned. `random` avoids this very set where there is another.
        seed: of the draw.

    Raises:
        UnknownNameError: another role.
    """
    size = len(chosen)
    if role == "first":
        return tuple(range(size))
    if role == "last":
        return tuple(range(n_blocks - size, n_blocks))
    if role != "random":
        raise UnknownNameError("control", role, CONTROLS)
    generator = np.random.default_rng(seed)
    blocks = chosen
    for _ in range(TRIES):
        blocks = tuple(sorted(generator.choice(n_blocks, size, replace=False).tolist()))
        if blocks != chosen:
            break
    return blocks


def control_spec(spec: RunSpec, role: str) -> RunSpec:
    """Return the spec of one control of a choice: same model, data, method, steps, rate and seed, another plan.

    Modules beside the blocks (embedding, head and others) are tuned in the control where they are in the choice.
    `full` is full fine-tuning whatever the choice's method; beside another method's given rate it has its own default,
    since the other's would not suit it.

    Raises:
        UnknownNameError: a role outside `CONTROLS`.
    """
    plan = spec.plan
    if role == "full":
        whole = replace(spec, role=role, plan=full_plan(plan.model, plan.n_blocks))
        if spec.method == "full":
            return whole
        rate = METHODS_OWN if spec.given_rate is not None else spec.learning_rate
        return replace(whole, method="full", options={}, learning_rate=rate)
    blocks = control_blocks(role, plan.n_blocks, plan.blocks, spec.seed)
    other = Plan(
        model=plan.model,
        n_blocks=plan.n_blocks,
        blocks=blocks,
        embedding=plan.embedding,
        final_norm=plan.final_norm,
        head=plan.head,
        modules=plan.modules,
        criterion=role,
        budget={"blocks": len(blocks)},
        reasons={str(block): f"the {role} control of {plan.label}" for block in blocks},
        rates=plan.rates,
    )
    return replace(spec, role=role, plan=other)


def with_controls(spec: RunSpec, roles: Iterable[str]) -> tuple[RunSpec, ...]:
    """Return the choice and the controls asked for, without those that would repeat a plan and method already there."""
    specs = [spec]
    for role in roles:
        control = control_spec(spec, role)
        if all(_tuned(control) != _tuned(other) for other in specs):
            specs.append(control)
    return tuple(specs)


def _tuned(spec: RunSpec) -> tuple[object, ...]:
    return spec.method, spec.plan.blocks, spec.plan.beside


PLACES = ("choice", "full", "last", "random")
"""The chosen plan, the whole model, and as many of the deepest or of drawn blocks."""


@dataclass(frozen=True)
class MethodChoice:
    """One column of the grid: a method with its options."""

    method: str
    """Key in CATALOGUE."""
    options: tuple[tuple[str, Any], ...] = ()
    """Only those given."""

    @property
    def name(self) -> str:
        """As tables write it: `adapter (kind=pfeiffer)`."""
        return describe(self.method, dict(self.options))


METHOD_CHOICES: Mapping[str, MethodChoice] = {
    chosen_method.name: chosen_method
    for name in CATALOGUE
    for chosen_method in (
        [MethodChoice(name, (("kind", kind),)) for kind in ADAPTER_KINDS]
        if name == "adapter"
        else [MethodChoice(name), MethodChoice(name, (("form", "bias"),))]
        if name == "hiwi"
        else [MethodChoice(name, (("scope", "per_tensor"),)), MethodChoice(name, (("scope", "global"),))]
        if name == "pafi"
        else [MethodChoice(name)]
    )
}
"""Every column that can be asked for, by its name."""


def grid_specs(
    base: RunSpec, places: Sequence[str], chosen_methods: Sequence[MethodChoice], search: bool
) -> tuple[RunSpec, ...]:
    """Return one spec per cell, place by place; full fine-tuning of the whole model comes first where it is asked for.

    Every method has its own default rate, or its own search: never one rate for all, and none that was tried.

    Args:
        base: of the chosen plan; its method, options and rate are replaced.
        places: among `PLACES`.
        chosen_methods: methods with their options.
        search: whether every cell searches its own rate on the validation split.

    Raises:
        BadInputError: no place, no method, or a place of another name.
    """
    if not places or not chosen_methods:
        raise BadInputError("A grid needs at least one place and one method.")
    for place in places:
        if place not in PLACES:
            raise BadInputError(f"There is no place {place!r}; accepted are: {', '.join(PLACES)}.")
    specs: list[RunSpec] = []
    seen: set[tuple[object, ...]] = set()
    base = _untried(base)
    for place in sorted(places, key=lambda place: place != "full"):
        where = base if place == "choice" else control_spec(base, place)
        for chosen_method in sorted(chosen_methods, key=lambda chosen_method: chosen_method.method != "full"):
            rate = None if search else METHODS_OWN
            spec = replace(where, method=chosen_method.method, options=dict(chosen_method.options), learning_rate=rate)
            if cell_of(spec) not in seen:
                seen.add(cell_of(spec))
                specs.append(spec)
    return tuple(specs)


def _untried(spec: RunSpec) -> RunSpec:
    """Return a spec whose plan brings no rate."""
    return replace(spec, plan=replace(spec.plan, rates={}))


def cell_of(spec: RunSpec) -> tuple[str, str]:
    """Return the place and the method of a run, as the grid writes them."""
    return place_of(spec.plan), spec.how


def grid_of(spec: RunSpec) -> tuple[object, ...] | None:
    """Return what the cells of one grid share: model, data, loop, and whence their rates.

    None where a rate was given, or is the plan's.

    Rates are each method's default or each cell's own search; the two are never put beside each other.
    """
    return (_kin(spec), spec.searches_rate) if spec.known_rate is None else None


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

    Runs that measured other weights or data under the same names than the newest one that measured anything, made other
    texts of its rows, or ran on another device, are left out: no ratio between them would mean anything.

    Args:
        runs: newest first.
        base: any run of the grid.
    """
    grid = grid_of(_untried(base))
    kin = [run for run in runs if run.spec is not None and grid_of(run.spec) == grid]
    known = [ground for run in kin if (ground := _ground(run)) is not None]
    found: dict[tuple[str, str], Run] = {}
    for run in kin:
        if run.spec is not None and _ground(run) in (None, *known[:1]):
            found.setdefault(cell_of(run.spec), run)
    return tuple(found.values())


def missing(specs: Sequence[RunSpec], runs: Sequence[Run]) -> tuple[RunSpec, ...]:
    """Return the specs whose cell holds no run at this rate yet that ended well, waits or works."""
    done = (RunState.SUCCEEDED, RunState.RUNNING, RunState.QUEUED)
    there = {(*cell_of(run.spec), *_rates(run.spec)) for run in runs if run.spec and run.state in done}
    return tuple(spec for spec in specs if (*cell_of(spec), *_rates(spec)) not in there)


def _rates(spec: RunSpec) -> tuple[object, ...]:
    return spec.learning_rate, spec.tried_rate


def _kin(spec: RunSpec) -> tuple[object, ...]:
    templates = spec.prompt_template, spec.completion_template, options_in(spec)
    loop = spec.steps, spec.epochs, spec.batch_size, spec.seed, spec.weight_decay, spec.warmup_steps, spec.reweight_tau
    ends = spec.optimizer, spec.until, spec.keep, spec.eval_every, spec.general, spec.general_share
    return spec.model, spec.data, spec.device, spec.dtype, *templates, *loop, *ends, spec.max_length, spec.eval_limit


def _ground(run: Run) -> tuple[object, ...] | None:
    """Return what a run measured on, as far as only its result knows; None where it measured nothing."""
    spec, result = run.spec, run.result
    return (
        None
        if spec is None or result is None or result.before is None
        else (*result.measured_on, *texts_of(spec, result))
    )


def control_name(role: str, size: int, beside: str = "") -> str:
    """Return what a control is called in comparisons: `the last block`, `3 random blocks + head`.

    Args:
        role: last, first, middle or random.
        size: number of its blocks.
        beside: what it tunes beside them, joined by ` + `; empty for nothing.
    """
    if role == "random":
        name = "a random block" if size == 1 else f"{size} random blocks"
    else:
        name = f"the {role} block" if size == 1 else f"the {role} {size} blocks"
    return f"{name} + {beside}" if beside else name
