"""Policies: from one score per block to the tuned blocks, under a number of blocks; ties go to the deeper block."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsf.analysis.cost import predict
from lsf.analysis.criteria import CRITERIA
from lsf.analysis.plan import Plan, format_blocks
from lsf.analysis.result import Analysis
from lsf.errors import PlanError
from lsf.registry import Registry

Scores = Sequence[float]
CHOSEN_BY_HAND = "chosen by hand"


@dataclass(frozen=True)
class Policy:
    """One way of turning scores into blocks."""

    name: str
    """Key in files and options."""
    label: str
    """Short name in the app."""
    meaning: str
    """One sentence."""
    choose: Callable[[Scores, int], tuple[int, ...]]
    """Scores and a number of blocks -> blocks, ascending."""


def suffix(scores: Scores, budget: int) -> tuple[int, ...]:
    """Freeze up to and with the block of the greatest score, tune the deeper ones, at most the budget's deepest.

    Where the greatest score is the last block's nothing would be left to tune; then the last block is tuned.
    """
    peak = max(range(len(scores)), key=lambda block: (scores[block], block))
    first_tuned = min(max(peak + 1, len(scores) - budget), len(scores) - 1)
    return tuple(range(first_tuned, len(scores)))


def top_k(scores: Scores, budget: int) -> tuple[int, ...]:
    """Tune the blocks of the greatest scores, anywhere."""
    ranked = sorted(range(len(scores)), key=lambda block: (scores[block], block), reverse=True)
    return tuple(sorted(ranked[:budget]))


def window(scores: Scores, budget: int) -> tuple[int, ...]:
    """Tune the consecutive blocks of the greatest sum."""
    starts = range(len(scores) - budget + 1)
    start = max(starts, key=lambda begin: (sum(scores[begin : begin + budget]), begin))
    return tuple(range(start, start + budget))


POLICIES: Registry[Policy] = Registry(
    "policy",
    (
        Policy("top_k", "Best anywhere", "Tune the blocks of the greatest scores, wherever they lie.", top_k),
        Policy("window", "Best run of neighbours", "Tune the consecutive blocks of the greatest sum.", window),
        Policy(
            "suffix",
            "Everything above the peak",
            "Freeze up to the block of the greatest score and tune the deeper ones, at most the budget.",
            suffix,
        ),
    ),
)


def check_budget(blocks: int, n_blocks: int) -> None:
    """Refuse a budget of no block or of more than there are.

    Raises:
        PlanError: one sentence with the range.
    """
    if not 1 <= blocks <= n_blocks:
        raise PlanError(f"The budget is {blocks} blocks; this model allows 1 to {n_blocks}.")


def known_scores(analysis: Analysis, criterion: str) -> list[float]:
    """Return one criterion's score of every block.

    Raises:
        UnknownNameError: no such criterion.
        PlanError: it was not measured in this analysis (the sentence lists those that were), or a block has no score.
    """
    found = analysis.scores(CRITERIA[criterion].name)
    scores = [score for score in found if score is not None]
    if scores and len(scores) < len(found):
        unknown = format_blocks([block for block, score in enumerate(found) if score is None])
        raise PlanError(
            f"{criterion!r} is not defined at block {unknown} for these examples; choose by another criterion."
        )
    if not scores:
        raise PlanError(
            f"This analysis has no scores for {criterion!r}; it has: {', '.join(analysis.criteria) or 'none'}."
        )
    return scores


def make_plan(analysis: Analysis, criterion: str, policy: str, blocks: int) -> Plan:
    """Choose blocks by a criterion and a policy under a number of blocks.

    Raises:
        UnknownNameError: no such criterion or policy.
        PlanError: the budget is out of range, or the criterion was not measured in this analysis.
    """
    entry, rule = CRITERIA[criterion], POLICIES[policy]
    check_budget(blocks, analysis.model.n_blocks)
    scores = known_scores(analysis, criterion)
    chosen = rule.choose(scores, blocks)
    ranked = sorted(range(len(scores)), key=lambda block: (scores[block], block), reverse=True)
    reasons = {
        str(block): f"{entry.label} {scores[block]:.4g}, rank {ranked.index(block) + 1} of {len(scores)} ({rule.label})"
        for block in chosen
    }
    return Plan(
        model=analysis.model.name,
        n_blocks=analysis.model.n_blocks,
        blocks=chosen,
        criterion=criterion,
        policy=policy,
        budget={"blocks": blocks},
        reasons=reasons,
        predicted=predict(analysis, chosen),
    )


def plan_by_hand(analysis: Analysis, blocks: Sequence[int]) -> Plan:
    """Make a plan of blocks a person named.

    Raises:
        PlanError: no block, or one the model does not have.
    """
    plan = Plan(
        model=analysis.model.name,
        n_blocks=analysis.model.n_blocks,
        blocks=tuple(blocks),
        budget={"blocks": len(set(blocks))},
        reasons={str(block): CHOSEN_BY_HAND for block in sorted(set(blocks))},
    )
    return Plan(**{**vars(plan), "predicted": predict(analysis, plan.blocks)})
