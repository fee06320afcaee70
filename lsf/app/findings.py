"""What each page found and what to do next, in two sentences computed from its records; no Streamlit."""

import math
from collections.abc import Sequence

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.data.lessons import data_words
from lsf.dimension.study import ASKED, Study
from lsf.evidence.packed import RecommendationRecord
from lsf.evidence.regret import Truth
from lsf.evidence.standing import standing_rule, trust_words
from lsf.evidence.study import JudgedChoice, decided
from lsf.figures.criteria import leaders, measured_scores
from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import (
    EVENLY_SPACED,
    FIXED_DEPTH,
    POLICIES,
    RECOMMENDED,
    RECOMMENDED_POLICY,
    how_chosen,
    make_plan,
)
from lsf.runs.comparison import Row, is_control
from lsf.runs.controls import control_name
from lsf.runs.result import RunState
from lsf.runs.verdict import LOSS, ROUNDING, percent, told_by
from lsf.wording import counted

Finding = tuple[str, str]
"""What was found, and what to do next."""


def criterion_to_come(wanted: str | None, analysis: Analysis) -> str:
    """Return the criterion that will choose: the one taken, else the recommended one, else the first measured."""
    names = [name for name in CRITERIA if name in analysis.criteria]
    trusted = (*standing_rule(analysis.weights).criteria, *RECOMMENDED)
    return [*(name for name in (wanted, *trusted) if name in names), *names][0]


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
        found = f"The model is furthest from the straight path in state {state}, the output of block {state - 1}"
    examples = () if analysis.trajectories is None else analysis.trajectories.examples
    if examples:
        right = sum(example.target_rank[-1] == 1 for example in examples)
        told = f"puts the target first at {right} of {counted(len(examples), 'position')}"
        found += f"{'; its' if found else 'The'} last state {told}"
    return f"{found}.", f"{_chosen_by(plan)}{_trust(plan, record, analysis)} Next: choose the blocks."


def of_criteria(analysis: Analysis, plan: Plan, record: RecommendationRecord) -> Finding:
    """Return how far the criteria that rank the blocks agree on the best one, and which one has earned trust."""
    best = {
        name: max((score, block) for block, score in enumerate(scores))[1]
        for name, scores in measured_scores(analysis).items()
        if leaders(scores) and CRITERIA[name].needs != "nothing"
    }
    blocks = sorted(set(best.values()))
    named = ", ".join(str(block) for block in blocks)
    if not best:
        found = "No criterion ranks the blocks."
    elif len(best) == 1:
        found = f"One criterion ranks the blocks; it names block {named} as the best."
    elif len(blocks) == 1:
        found = f"All {len(best)} criteria name block {named} as the best."
    else:
        found = f"{len(best)} criteria name {len(blocks)} different blocks as the best ({named})."
    return found, f"{_chosen_by(plan)}{_trust(plan, record, analysis)} Next: choose the blocks."


def _chosen_by(plan: Plan) -> str:
    if plan.criterion is None:
        return f"{plan.label[:1].upper()}{plan.label[1:]}, {how_chosen(plan)}, would be tuned."
    policy = POLICIES[plan.policy].label.lower() if plan.policy is not None and plan.policy in POLICIES else ""
    how = f" ({policy})" if policy and len(plan.blocks) > 1 else ""
    return f"{CRITERIA[plan.criterion].label} chooses {plan.label}{how}"


def _trust(plan: Plan, record: RecommendationRecord, analysis: Analysis) -> str:
    if plan.criterion is None:
        return ""
    criteria = standing_rule(analysis.weights).criteria
    if (plan.criterion,) != criteria:
        trusted = " and ".join(CRITERIA[name].label for name in criteria)
        return f"; of all criteria {trusted} has the best record."
    return f": {trust_words(analysis, len(plan.blocks), record)}"


def of_plan(plan: Plan) -> str:
    """Return why these blocks are tuned, and what stays frozen."""
    if plan.criterion is None:
        fixed = plan.policy in (EVENLY_SPACED, FIXED_DEPTH) and not plan.rates
        how = how_chosen(plan)
        why = f"{how[:1].upper()}{how[1:]}{'; no score was looked at' if fixed else ''}."
    elif len(plan.blocks) == 1 and plan.policy in ("top_k", "window"):
        why = f"Chosen by {CRITERIA[plan.criterion].label}: the block of the greatest score."
    else:
        rule = "" if plan.policy not in list(POLICIES) else POLICIES[plan.policy].meaning
        why = f"Chosen by {CRITERIA[plan.criterion].label}{f' ({rule[:1].lower()}{rule[1:-1]})' if rule else ''}."
    rest = [block for block in range(plan.n_blocks) if block not in plan.blocks]
    beside = [name.replace("_", " ") for name in ("embedding", "final_norm", "head") if not getattr(plan, name)]
    frozen = [f"block{'s' if len(rest) > 1 else ''} {format_blocks(rest)}"] if rest else []
    frozen += [f"the {name}" for name in beside]
    if not frozen:
        return f"{why} Nothing is frozen."
    last = f" and {frozen[-1]}" if len(frozen) > 1 else frozen[-1]
    return f"{why} Frozen: {', '.join(frozen[:-1])}{last}."


def of_runs(rows: Sequence[Row], looked_at: str | None = None) -> Finding | None:
    """Return what the runs reached that belong together; None while none has ended.

    Args:
        rows: of runs that belong together, the newest of those alike last.
        looked_at: id of the run whose choice is told; None for the first.
    """
    ended = [row for row in rows if row.exact_match_after is not None or row.loss_after is not None]
    chosen = [row for row in ended if row.role in ("choice", "manual")]
    choice = next((row for row in chosen if row.run == looked_at), next(iter([*chosen, *ended]), None))
    if choice is None:
        return None
    by_loss = told_by(ended) == LOSS  # all by one measure, that of the verdict
    tuned = choice.plan or "the run"
    if len({row.seed for row in ended}) > 1:
        tuned += f" (seed {choice.seed})"
    beside = {
        "the whole model"
        if row.role == "full"
        else control_name(str(row.role), row.n_blocks or 0, row.beside or ""): _reached(row, by_loss)
        for row in ended
        if row.seed == choice.seed and row.role != choice.role
        if (row.role, row.method) == ("full", "full") or (is_control(row, choice) and row.plan != choice.plan)
    }
    told = [f"{name} at {reached}" for name, reached in beside.items()]
    found = "; ".join([f"{tuned[:1].upper()}{tuned[1:]} ended at {_reached(choice, by_loss)}", *told])
    waiting = sum(row.state in (RunState.QUEUED, RunState.RUNNING) for row in rows)
    onward = f"Next: wait for {waiting} more." if waiting else "Next: compare the runs, which weighs this against cost."
    return f"{found}.", onward


def _reached(row: Row, by_loss: bool) -> str:
    fault = "" if row.fault is None else f" ({row.fault})"
    if row.exact_match_after is not None and not (by_loss and row.loss_after is not None):
        return f"{percent(row.exact_match_after)} exact match{fault}"
    return "a loss that is not known" if row.loss_after is None else f"loss {row.loss_after:.3g}{fault}"


def of_truth(truth: Truth, ways: Sequence[JudgedChoice], budget: int) -> Finding:
    """Return which blocks were best in a sweep, what the recommended criterion and chance lost, and what follows."""
    if not truth.gains:
        return (
            "No plan does better here than the base model and than the best answer that ignores the prompt.",
            "Next: measure it on another task, or with more steps.",
        )
    best = truth.best(truth.plans(budget))
    trusted = [CRITERIA[name].label for name in RECOMMENDED]
    lost = [
        f"{one.label} lost {100 * one.relative:.1f} % of what the best plan gains"
        for one in ways
        if one.label in trusted and one.relative is not None
    ]
    chance = next((one.relative for one in ways if one.choice is None and one.relative is not None), None)
    beside = "" if chance is None or not lost else f", chance {100 * chance:.1f} %"
    named = f"{'Block' if budget == 1 else 'Blocks'} {format_blocks(best)}"
    found = f"{named} scored best of all plans of {counted(budget, 'block')}"
    told = f"{found}{'; ' if lost else ''}{' and '.join(lost)}{beside}."
    if sure := decided(truth, budget):
        return told, "Next: choose by it on your own task, and measure the truth there."
    if sure is None:
        return told, "Whether that is chance is unknown without more seeds. Next: measure it on your own task."
    return (
        told,
        "Seeds differ as much as these plans do, so the best is not decided. Next: measure it on your own task.",
    )


def of_dimension(studies: Sequence[Study], beside: str) -> Finding | None:
    """Return how few numbers suffice, of the newest study or of all lessons; None while nothing was measured.

    Args:
        studies: of one task each.
        beside: where they come from, in words.
    """
    found = [(d, method, study) for study in studies for method in ASKED if (d := study.d_90(method)) is not None]
    if not found:
        return None
    least, most = min(found, key=lambda one: one[0]), max(found, key=lambda one: one[0])
    told = f"{beside}, {least[0]:,.0f} numbers suffice for {_task(least[2])} by {least[1].upper()}"
    if most[2] is not least[2]:
        told += f", {most[0]:,.0f} for {_task(most[2])} by {most[1].upper()}"
    told += f", of {studies[0].full[0].d:,}"
    for study in studies:  # the most that suffices says nothing of where nothing does
        tried = [point.d for curve in study.curves for point in curve.points]
        if tried and study not in [one for _, _, one in found]:
            told += f"; for {_task(study)} {max(tried):,} do not"
    return (
        f"{told}.",
        "Next: how few numbers suffice does not say where they belong; choose the blocks by a criterion.",
    )


def _task(study: Study) -> str:
    return f'"{data_words(study.data)}"'


def of_grid(rows: Sequence[tuple[str, str, Row]]) -> Finding | None:
    """Return the best cell of blocks and methods and the cheapest one that is level with it; None before two ended.

    Args:
        rows: place, method and run of each cell.
    """
    ended = [one for one in rows if one[2].exact_match_after is not None and one[2].fault is None]
    if len(ended) < 2:
        return None
    by_loss = told_by([row for _, _, row in ended]) == LOSS
    known = [row.gain if by_loss else row.exact_match_after for _, _, row in ended]
    reached = [-math.inf if value is None else value for value in known]
    best = reached.index(max(reached))
    place, method, row = ended[best]
    most = f"a gain of {reached[best]:.3g} nats" if by_loss else f"{percent(reached[best])} exact match"
    told = f"{method} on {place} reached the most, {most}, storing {_kilobytes(row)}"
    if reached[best] == -math.inf:
        return None
    if by_loss and reached[best] <= 0.0:  # the floor: base model, or the best answer that ignores the prompt
        told = (
            f"No cell gained anything over the floor; {method} on {place} came nearest, {-reached[best]:.3g} nats above"
        )
    if by_loss:
        level = [ended[best]]
    else:
        within = reached[best] - 1 / (row.n_test or 1) - ROUNDING
        level = [one for one, value in zip(ended, reached, strict=True) if value >= within]
    cheap = min(level, key=lambda one: math.inf if one[2].stored_bytes is None else one[2].stored_bytes)
    if cheap is not ended[best]:
        told += f"; {cheap[1]} on {cheap[0]} is within one test example of it, storing {_kilobytes(cheap[2])}"
    seeds = "One seed each. " if len({one[2].seed for one in ended}) == 1 else ""
    if by_loss and reached[best] <= 0.0:
        return f"{told}.", f"{seeds}Next: give the cells more steps, or search their rates."
    return f"{told}.", f"{seeds}Next: repeat the best two with other seeds before trusting it."


def _kilobytes(row: Row) -> str:
    return "an unknown size" if row.stored_bytes is None else f"{row.stored_bytes / 1e3:,.0f} kB"
