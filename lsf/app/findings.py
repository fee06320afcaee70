"""What each page found and what to do next, in two sentences computed from its records; no Streamlit."""

from collections.abc import Sequence

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.evidence.packed import RecommendationRecord
from lsf.figures.criteria import measured_scores
from lsf.plans.plan import Plan
from lsf.plans.policies import make_plan
from lsf.plans.recommend import RECOMMENDED, RECOMMENDED_POLICY
from lsf.runs.comparison import Row
from lsf.runs.verdict import percent

Finding = tuple[str, str]
"""What was found, and what to do next."""


def criterion_to_come(wanted: str | None, analysis: Analysis) -> str:
    """Return the criterion that will choose: the one taken, else the recommended one, else the first measured."""
    names = [name for name in CRITERIA if name in analysis.criteria]
    return [*(name for name in (wanted, *RECOMMENDED) if name in names), *names][0]


def plan_to_come(plan: Plan | None, wanted: str | None, analysis: Analysis, budget: int) -> Plan:
    """Return the plan at hand where it is of this model and criterion, else what would be chosen without a change.

    Args:
        plan: chosen last; None for none.
        wanted: criterion taken by name; None for none.
        analysis: looked at.
        budget: number of blocks where nothing was chosen yet.
    """
    criterion = criterion_to_come(wanted, analysis)
    same = plan is not None and (plan.model, plan.n_blocks) == (analysis.model.name, analysis.model.n_blocks)
    if plan is not None and same and plan.criterion in (None, criterion):
        return plan
    return make_plan(analysis, criterion, RECOMMENDED_POLICY, budget)


def of_trajectories(analysis: Analysis, plan: Plan, record: RecommendationRecord) -> Finding:
    """Return what the paths show, and which criterion chooses and why."""
    known = [(row.deviation, row.state) for row in analysis.states[1:] if row.deviation is not None]
    found = ""
    if known:
        state = max(known)[1]
        found = f"The model is furthest from the straight path in state {state}, which leaves block {state - 1}"
    examples = () if analysis.trajectories is None else analysis.trajectories.examples
    if examples:
        right = sum(example.target_rank[-1] == 1 for example in examples)
        found += (
            f"{'; its' if found else 'The'} last state puts the target first at {right} of {len(examples)} positions"
        )
    return f"{found}.", f"{_chosen_by(plan)}{_trust(plan, record)} Next: choose the blocks."


def of_criteria(analysis: Analysis, plan: Plan, record: RecommendationRecord) -> Finding:
    """Return how far the criteria agree on the best block, and which one has earned trust."""
    best = {
        name: max((score, block) for block, score in enumerate(scores) if score is not None)[1]
        for name, scores in measured_scores(analysis).items()
        if any(score is not None for score in scores)
    }
    blocks = sorted(set(best.values()))
    named = ", ".join(str(block) for block in blocks)
    if len(blocks) == 1:
        found = f"All {len(best)} criteria name block {named} as the best."
    else:
        found = f"{len(best)} criteria name {len(blocks)} different blocks as the best ({named})."
    return found, f"{_chosen_by(plan)}{_trust(plan, record)} Next: choose the blocks."


def _chosen_by(plan: Plan) -> str:
    if plan.criterion is None:
        return f"By hand {plan.label} would be tuned."
    return f"{CRITERIA[plan.criterion].label} chooses {plan.label}"


def _trust(plan: Plan, record: RecommendationRecord) -> str:
    if plan.criterion is None:
        return ""
    if (plan.criterion,) != RECOMMENDED:
        trusted = " and ".join(CRITERIA[name].label for name in RECOMMENDED)
        return f"; of all criteria {trusted} has the best record."
    return (
        f": where the truth was measured ({record.n_sites} pairs of a model and a task) it lost "
        f"{100 * record.mean:.1f} % of the whole model's gain, chance {100 * record.random:.1f} %."
    )


def of_runs(rows: Sequence[Row]) -> Finding | None:
    """Return what the runs reached that belong together; None while none has ended."""
    ended = [row for row in rows if row.exact_match_after is not None or row.loss_after is not None]
    choice = next((row for row in ended if row.role in ("choice", "manual")), ended[0] if ended else None)
    if choice is None:
        return None
    tuned = choice.plan or "the run"
    beside = [
        f"{'the whole model' if row.role == 'full' else f'the {row.role} blocks'} at {_reached(row)}"
        for row in ended
        if row.role != choice.role
    ]
    found = "; ".join([f"{tuned[:1].upper()}{tuned[1:]} ended at {_reached(choice)}", *beside])
    waiting = len(rows) - len(ended)
    onward = f"Next: wait for {waiting} more." if waiting else "Next: compare the runs, which weighs this against cost."
    return f"{found}.", onward


def _reached(row: Row) -> str:
    parts = []
    if row.exact_match_after is not None:
        parts.append(f"{percent(row.exact_match_after)} exact match")
    if row.loss_after is not None:
        parts.append(f"loss {row.loss_after:.3g}")
    return ", ".join(parts[:1] if row.exact_match_after else parts[-1:])
