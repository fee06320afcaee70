"""Choosing blocks: what the evidence recommends, or criterion, policy and budget, or by hand; the plan they make."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import pandas as pd
import streamlit as st

from lsf.app.actions import follow
from lsf.app.evidence import evidence_words
from lsf.app.panels import attempt, empty, show, table, unmarked
from lsf.app.runtime import runtime
from lsf.app.state import Session, analysed, analysis_view, by_method, predicted_of
from lsf.app.work import source_of
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.evidence.own import all_evidence, record_here
from lsf.evidence.packed import (
    Measured,
    OutcomeElsewhere,
    elsewhere,
    packed_evidence,
    packed_record,
    rule_words,
    words,
)
from lsf.evidence.regret import Blocks, random_regret, regret, relative
from lsf.evidence.standing import StandingRule, is_unproven, model_words, rule_plan, standing_rule
from lsf.evidence.study import Rule
from lsf.figures.budget import BudgetPoint, RunPoint, draw_budget, runs_words
from lsf.plans.plan import Plan, format_blocks, place_of
from lsf.plans.policies import (
    ENDS_FROM,
    POLICIES,
    RECOMMENDED,
    RECOMMENDED_POLICY,
    lacking,
    largest_within,
    make_plan,
    plan_by_hand,
)
from lsf.runs.comparability import of_text
from lsf.runs.memory_forecast import RUN_SHARE
from lsf.runs.store import list_runs, runs_folder
from lsf.wording import counted

BLOCKS, COMPUTE, MEMORY = "Blocks", "Compute", "Memory"
CRITERION_KEY = "criterion"
OURS = (
    "The criteria marked *ours* are our own reading of the paper's idea (arXiv 2406.11753): its exact gain formula is "
    "not available to us."
)

NEED_WORDS = {
    "nothing": "free",
    "forward": "forward pass",
    "path": "forward pass, its states averaged",
    "states": "states kept",
    "vocabulary": "forward pass over the whole vocabulary",
    "bypass": "a forward pass without each block",
    "backward": "one backward pass",
    "per_example": "a backward pass per example",
    "kernel": "backward passes for the tangent kernel",
    "trial_step": "a trial step",
    "weights": "weights alone",
    "runs": "a short run per block",
}
"""What a criterion needs -> what it costs, in words."""


def without_analysis(here: Session, title: str, waiting: str) -> None:
    """Say that there is no finished analysis to work on, and where it is made or watched."""
    view = analysis_view(here)
    if view is not None and view.active:
        follow(here, [view.id], lambda _: empty("The analysis is still running", waiting, "trajectories"), quietly=True)
    else:
        empty(title, "Run an analysis first, until it has measured a criterion: it scores the blocks.", "model")


def take_criterion(here: Session, name: str) -> None:
    """Choose a criterion; blocks chosen by hand are given up."""
    here.criterion, here.by_hand = name, None


def wanted_criteria(here: Session, analysis: Analysis) -> list[str]:
    """Return the criteria that were measured: the chosen one first, then the recommended, then the others."""
    names = [name for name in CRITERIA if name in analysis.criteria]
    wanted = (here.criterion, *standing_rule(analysis.weights).criteria, *RECOMMENDED)
    return list(dict.fromkeys([*(name for name in wanted if name in names), *names]))


def choose_criterion(here: Session, analysis: Analysis) -> str:
    """Draw the criteria and say what the chosen one means; return its name."""
    names = wanted_criteria(here, analysis)
    st.session_state[CRITERION_KEY] = names[0]
    names = [name for name in CRITERIA if name in names]
    name = st.selectbox(
        "Criterion",
        names,
        format_func=lambda key: CRITERIA[key].label,
        key=CRITERION_KEY,
        on_change=lambda: take_criterion(here, st.session_state[CRITERION_KEY]),
        help="What makes a block worth tuning; every criterion gives one score per block, higher is tuned first.",
    )
    entry = CRITERIA[name]
    st.caption(f"{entry.meaning} Unit: {entry.unit}. Source: {entry.source}.")
    return name


def choose_policy(plan: Plan | None, changed: Callable[[], None]) -> str:
    """Draw the policies, at first that of the plan at hand; return the name of the chosen one."""
    first = plan.policy if plan is not None and plan.policy in list(POLICIES) else RECOMMENDED_POLICY
    name = st.selectbox(
        "Policy",
        list(POLICIES),
        index=list(POLICIES).index(first),
        format_func=lambda key: POLICIES[key].label,
        key="policy",
        persist_state="session",
        on_change=changed,
        help="How scores become a set of blocks.",
    )
    st.caption(POLICIES[name].meaning)
    return name


@dataclass(frozen=True)
class Budget:
    """What may be tuned."""

    blocks: int
    """How many blocks."""
    share: float | None = None
    """Share of full fine-tuning's cost that the blocks were to fit, in (0, 1]; None where blocks were asked for."""
    unit: str = "compute"
    """Of which cost: a key of `lsf.plans.cost.cost_shares`."""


def choose_budget(
    plan: Plan | None, analysis: Analysis, criterion: str, policy: str, changed: Callable[[], None]
) -> Budget:
    """Draw the budget, in blocks or as a share of full fine-tuning's cost; a share is told in the plan's blocks.

    At first it is that of the plan at hand: an address that names a run opens with its blocks.
    """
    n_blocks = analysis.model.n_blocks
    same = plan is not None and plan.n_blocks == n_blocks
    first = int(plan.budget.get("blocks", len(plan.blocks))) if plan is not None and same else default_budget(n_blocks)
    unit = st.segmented_control(
        "Budget",
        [BLOCKS, COMPUTE, MEMORY],
        default=BLOCKS,
        required=True,
        wrap=True,
        key="budget-unit",
        persist_state="session",
    )
    if unit == BLOCKS:
        if n_blocks == 1:
            st.caption("The model has a single block.")
            return Budget(1)
        blocks = st.slider(
            "Maximum blocks to tune",
            1,
            n_blocks,
            value=min(max(1, first), n_blocks),
            key=f"budget-{n_blocks}",
            persist_state="session",
            on_change=changed,
        )
        return Budget(blocks)
    percent = st.slider(
        f"Maximum {unit.lower()}, in percent of full fine-tuning",
        5,
        100,
        60,
        step=5,
        key=f"budget-{unit}",
        persist_state="session",
        on_change=changed,
        help="Predicted: floating-point operations per token, or bytes of weights, gradients and optimizer state.",
    )
    share, kind = percent / 100, unit.lower()
    fitting = largest_within(analysis, partial(make_plan, analysis, criterion, policy), share, kind)
    if fitting is None:
        st.warning("Not even one block fits this share; one block is taken all the same.")
        return Budget(1, share, kind)
    size = len(fitting.blocks)
    st.caption(f"{size} block{'s fit' if size > 1 else ' fits'} this share.")
    return Budget(size, share, kind)


def default_budget(n_blocks: int) -> int:
    """Return the budget offered at first: a quarter of the blocks."""
    return max(1, round(n_blocks / 4))


def chosen_plan(here: Session, analysis: Analysis, criterion: str, policy: str, budget: int) -> Plan:
    """Return the plan of the criterion, or of the blocks chosen by hand; a plan that was taken as offered stays itself.

    Raises:
        PlanError: no block is chosen by hand.
    """
    if here.by_hand is not None:
        plan, taken = plan_by_hand(analysis, here.by_hand), here.taken
        if taken is None or taken.blocks != plan.blocks or taken.criterion is not None:
            return plan
        return replace(plan, policy=taken.policy, reasons=taken.reasons, rates=taken.rates)
    return make_plan(analysis, criterion, policy, budget)


def take_by_hand(here: Session, blocks: tuple[int, ...]) -> None:
    """Overrule the criterion."""
    here.by_hand = tuple(sorted(blocks))


def toggle(here: Session, block: int) -> None:
    """Add a block to the choice, or take it out."""
    take_by_hand(here, tuple(_chosen(here) ^ {int(block)}))


def brush(here: Session, first: int, last: int) -> None:
    """Give a run of blocks the side that its first block does not have: all tuned, or all frozen."""
    current = _chosen(here)
    run = set(range(min(first, last), max(first, last) + 1))
    take_by_hand(here, tuple(current - run if first in current else current | run))


def _chosen(here: Session) -> set[int]:
    """Return the blocks chosen now; after a click the plan follows only when the page is drawn, maybe after another."""
    return set(here.by_hand if here.by_hand is not None else here.plan.blocks if here.plan is not None else ())


def budget_panel(here: Session, found: Analysis, rule: tuple[str, str], plan: Plan) -> None:
    """Draw what every number of blocks would cost on this machine, and what runs of so many have reached.

    Args:
        here: this session.
        found: the analysis that is looked at.
        rule: criterion and policy.
        plan: the one at hand.
    """
    plans = [make_plan(found, *rule, budget) for budget in range(1, found.model.n_blocks + 1)]
    points = {len(one.blocks): one.predicted for one in plans}
    cost = plan.predicted if by_method(here, plan) else predicted_of(here, plan)[0]  # all of them by all weights
    size = len(plan.blocks)
    tried = cost.memory_bytes if cost.phases else None
    free = next((one.free_bytes for one in runtime().devices() if one.name == found.model.device), None)
    ended = _ended_runs(here)
    show(
        draw_budget(
            [BudgetPoint(count, one.flops_ratio, one.memory_bytes) for count, one in sorted(points.items())],
            BudgetPoint(size, cost.flops_ratio, plan.predicted.memory_bytes, tried),
            found.model.n_blocks,
            None if free is None else RUN_SHARE * free,
            ended,
        ),
        "budget",
        "Compute per step is relative to full fine-tuning. The memory line is the least a run takes beyond the loaded "
        "model: weights, gradients and optimizer state, without activations. The line: the criterion's plans; orange "
        "diamonds: the plan at hand"
        f"{'; the one above the line is the memory shown above, activations included' if tried else ''}."
        f"{runs_words(ended)}",
    )


def _ended_runs(here: Session) -> list[RunPoint]:
    """Return what runs on the same model and data got right; of plain text no answer can be right as a whole."""
    ours = analysed(here)
    points = []
    for run in list_runs(runs_folder()):
        after = None if run.result is None else run.result.after
        if run.spec is None or ours is None or after is None or after.exact_match is None or of_text([run]):
            continue
        asked, rows = ours.request.source, {ours.analysis.data.fingerprint, run.result and run.result.data_fingerprint}
        alike = replace(source_of(run.spec), dtype=asked.dtype, device=asked.device) == asked
        if alike and len(rows - {None}) < 2:
            how = "" if run.spec.how == "full" else f" by {run.spec.how}"  # as every page calls it
            name = f"{place_of(run.spec.plan)}{how}, {counted(run.spec.steps, 'step')}, seed {run.spec.seed}"
            points.append(RunPoint(len(run.spec.plan.blocks), run.spec.role, name, after.exact_match))
    return points


THIN = 10
"""Below so many models the evidence is called thin."""


def recommendation_panel(here: Session, found: Analysis, budget: Budget) -> None:
    """Show what is recommended for this analysis, why, and what the same rule did elsewhere; offer to take it.

    Args:
        here: this session; taking the recommendation is a choice by hand.
        found: the analysis that is looked at.
        budget: where it is a share of a cost, the recommendation is the rule's own largest plan within it.
    """
    settings = attempt(packed_evidence)
    if not settings:
        return
    blocks = budget.blocks
    who = "the study of small models" if is_unproven(found) else "the evidence"
    with st.expander(f"What {who} recommends", icon=":material/lightbulb:", key="recommendation"):
        standing = standing_rule(found.weights)
        needs_criterion = standing.ends_from is None or blocks < standing.ends_from
        if needs_criterion and (missing := lacking(found, standing.criteria)):
            names = ", ".join(CRITERIA[name].label for name in missing)
            st.write(f"The recommendation needs {names}, which this analysis did not measure. {found.data.short or ''}")
        else:
            plan = _recommended(found, budget)
            if plan is None:
                st.write("No block that the rule names fits this share.")
            else:
                blocks = len(plan.blocks)
                _offer(here, plan, standing)
                if truth := known_truth(settings, found, plan.blocks):
                    st.info(truth, icon=":material/fact_check:")
                _on_this_model(found, blocks, standing)
        _why(blocks, standing)
        if found.data.kernel_examples is not None:
            st.caption(_sample_words(settings, found.data.kernel_examples))


def _recommended(found: Analysis, budget: Budget) -> Plan | None:
    """Return what is recommended within a budget; None where not even one block of the rule fits its share."""
    if budget.share is None:
        return rule_plan(found, budget.blocks)
    return largest_within(found, partial(rule_plan, found), budget.share, budget.unit)


def known_truth(settings: Sequence[Measured], found: Analysis, choice: Blocks) -> str | None:
    """Say what the study measured of a choice on this very model and task; None where it did not.

    Args:
        settings: of the study.
        found: the analysis behind the choice.
        choice: blocks the recommendation names.
    """
    for one in settings:
        truth, size = one.setting.truth, len(choice)
        named = (
            found.data.name in (one.setting.task, f"lesson:{one.setting.task}")
            and found.model.name == one.setting.model
        )
        if not named or choice not in truth.scores or size not in truth.budgets or not truth.gains:
            continue  # where not every plan of a size was measured, nothing is the best of it
        lost, lot = regret(truth, choice), relative(truth, random_regret(truth, size))
        share = f"{100 * (lost.relative or 0.0):.1f} %"
        told = (
            f"The study measured this model and task: {words(choice)} lost {share} of the best plan's gain "
            f"against {words(lost.best)}, the best of its size"
        )
        told += "." if lot is None else f"; at random {100 * lot:.1f} %."
        then = Rule(RECOMMENDED, ENDS_FROM is not None).choose(one.setting.scores, size, truth.n_blocks)
        if then is not None and then != choice:
            told += f" On the study's own sample the rule named {words(then)}: the choice depends on the examples read."
        return told
    return None


def _sample_words(settings: Sequence[Measured], n_examples: int) -> str:
    read = [one.examples["kernel"] for one in settings if "kernel" in one.examples]
    return (
        f"In the study the rule read {min(read)} to {max(read)} examples, as many as about 8 % of a run's cost pays "
        f"for; this analysis read {n_examples}. On other examples it may name other blocks: the page Criteria shows "
        "how much that matters."
    )


def _on_this_model(found: Analysis, budget: int, standing: StandingRule) -> None:
    """Say what own sweeps of this model measured, or that nothing was, and which rule stands here and why."""
    if told := model_words(found, budget):
        sentence, measured = told
        (st.info if measured else st.warning)(
            unmarked(sentence), icon=":material/fact_check:" if measured else ":material/warning:"
        )
    if standing.why:
        st.markdown(unmarked(standing.why))


def _offer(here: Session, plan: Plan, standing: StandingRule) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**Tune {plan.label}.** {rule_words(standing.criteria, standing.ends_from)}")
        if st.button("Use this plan", icon=":material/check:", key="take-recommendation"):
            here.by_hand, here.taken = plan.blocks, plan
            st.rerun()


def _why(budget: int, standing: StandingRule) -> None:
    record, study = record_here(), packed_record()
    st.markdown(evidence_words(record, "this rule" if standing.criteria == RECOMMENDED else "the study's rule"))
    if study.n_models < THIN or record.failing:
        failing = "".join(
            f" On {unmarked(one.model)} it lost {100 * one.mean:.1f} %, more than at random ({100 * one.random:.1f} %)."
            for one in record.failing
        )
        st.warning(
            f"Thin evidence: {counted(study.n_models, 'small model')} and {counted(study.n_tasks, 'task')}."
            f"{failing} Measure it on yours: the page Evidence runs a small sweep.",
            icon=":material/warning:",
        )
    rows = elsewhere(all_evidence(), standing.criteria, standing.ends_from, budget)
    if not rows:
        st.caption(f"No plan of {counted(budget, 'block')} was measured; the figures above are for smaller budgets.")
        return
    table(_elsewhere_table(rows), "elsewhere", column_config={
        name: st.column_config.NumberColumn(format="%.1f %%") for name in ("lost", "drawn at random loses")
    })  # fmt: skip


def _elsewhere_table(rows: Sequence[OutcomeElsewhere]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "model": one.model,
                "task": one.task,
                "recommended": format_blocks(one.choice),
                "best": format_blocks(one.best),
                "lost": None if one.relative is None else 100 * one.relative,
                "drawn at random loses": None if one.by_lot is None else 100 * one.by_lot,
                "decided": {True: "yes", False: "no", None: "unknown"}[one.decided],
            }
            for one in rows
        ]
    )
