"""The same-size controls of a choice: what a comparison needs to be worth something."""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lsf.analysis.plan import Plan, full_plan
from lsf.errors import UnknownNameError
from lsf.jobs.spec import METHODS_OWN, RunSpec

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
    )
    return replace(spec, role=role, plan=other)


def with_controls(spec: RunSpec, roles: Iterable[str]) -> tuple[RunSpec, ...]:
    """Return the choice and the controls asked for, without those that would repeat a plan already there."""
    specs = [spec]
    for role in roles:
        control = control_spec(spec, role)
        if all(_tuned(control.plan) != _tuned(other.plan) for other in specs):
            specs.append(control)
    return tuple(specs)


def _tuned(plan: Plan) -> tuple[object, ...]:
    return plan.blocks, plan.embedding, plan.final_norm, plan.head, plan.modules
