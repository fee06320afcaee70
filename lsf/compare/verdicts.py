"""One sweep, every way of choosing: what each would have tuned, what that scored, and what it lost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from lsf.analysis.criteria import CRITERIA
from lsf.compare.chance import within_chance
from lsf.compare.regret import Blocks, Truth, choose, full_regret, random_regret, regret, relative

CONTROL, CRITERION, RULE = "control", "criterion", "recommendation"


@dataclass(frozen=True)
class Verdict:
    """What one way of choosing came to."""

    label: str
    """What a person reads."""
    kind: str
    """criterion, control, or recommendation."""
    choice: Blocks | None
    """Blocks it tunes; None for the mean over plans drawn by lot."""
    score: float | None
    """Of the truth, higher is better; None where its choice was not measured."""
    regret: float | None
    """What the best plan of the budget has more; None where its choice was not measured."""
    relative: float | None
    """Regret over what full fine-tuning gains; None where that gains nothing."""
    within_chance: bool | None
    """Whether the regret may be chance (`lsf.compare.chance`); None where that is unknown."""


def verdict_of(truth: Truth, label: str, kind: str, choice: Blocks) -> Verdict:
    """Judge one choice; unknown where the sweep does not hold it.

    Raises:
        BadInputError: another plan of its budget is missing, so that the best is not known.
    """
    if choice not in truth.scores:
        return Verdict(label, kind, choice, None, None, None, None)
    found = regret(truth, choice)
    lucky = within_chance(truth, choice)
    return Verdict(label, kind, choice, truth.mean(choice), found.regret, found.relative, lucky)


def verdicts(truth: Truth, scores: Mapping[str, Sequence[float]], budget: int) -> list[Verdict]:
    """Judge every criterion and control at a budget, the least regret first, what is unknown last.

    Args:
        truth: of the sweep.
        scores: criterion -> score of each block; those without a score for every block are left out by the caller.
        budget: number of blocks.

    Raises:
        BadInputError: the sweep holds no plan of that budget, or one is missing.
    """
    found = []
    for name, entry in CRITERIA.items():
        if name in scores and name != "random":
            kind = CONTROL if entry.needs == "nothing" else CRITERION
            found.append(verdict_of(truth, entry.label, kind, choose(scores[name], budget)))
    lost, all_lost = random_regret(truth, budget), full_regret(truth, budget)
    best = max(truth.mean(blocks) for blocks in truth.plans(budget))
    found.append(Verdict("Drawn by lot (mean)", CONTROL, None, best - lost, lost, relative(truth, lost), None))
    whole = tuple(range(truth.n_blocks))
    found.append(
        Verdict("Full fine-tuning", CONTROL, whole, best - all_lost, all_lost, relative(truth, all_lost), None)
    )
    return sorted(found, key=lambda one: (one.regret is None, one.regret or 0.0))
