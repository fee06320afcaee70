"""What to ask instead, once memory did not suffice: the same run, needing less."""

from dataclasses import replace

from lsf.analysis.plan import Plan
from lsf.jobs.spec import RunSpec

SHORTEST = 16
"""Tokens below which examples are not cut any further."""


def smaller_spec(spec: RunSpec, longest: int = 1024) -> tuple[RunSpec, str] | None:
    """Return the next smaller version of a run that ran out of memory, and what was made smaller.

    What leaves the result as it is comes first: one example at a time, then activations computed again; then half the
    blocks (the deepest, whose backward pass is the shortest), then half the tokens.

    Args:
        spec: that did not fit.
        longest: tokens an example may have where the spec does not say.

    Returns:
        None where nothing is left to make smaller.
    """
    if spec.activation_checkpointing == "off":
        return replace(spec, micro_batch=1, activation_checkpointing="non_reentrant"), (
            "one example at a time, activations computed again"
        )
    plan = spec.plan
    if len(plan.blocks) > 1:
        kept = plan.blocks[len(plan.blocks) // 2 :]
        fewer = Plan(
            model=plan.model,
            n_blocks=plan.n_blocks,
            blocks=kept,
            criterion=plan.criterion,
            policy=plan.policy,
            budget={"blocks": len(kept)},
            reasons={key: reason for key, reason in plan.reasons.items() if int(key) in kept},
        )
        return replace(spec, plan=fewer, role="manual"), f"only {fewer.label}"
    length = spec.max_length or longest
    if length >= 2 * SHORTEST:
        return replace(spec, max_length=length // 2), f"at most {length // 2} tokens per example"
    return None
