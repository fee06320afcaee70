"""Evidence on a page: every way of choosing judged, a sweep's pictures, what was measured elsewhere."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.app.panels import guard, show, table, unmarked
from lsf.criteria.registry import CRITERIA
from lsf.data.lessons import data_words
from lsf.evidence.own import own_problems, own_sweeps, record_here, remove_own, texts_apart
from lsf.evidence.packed import Measured, RecommendationRecord, gaining
from lsf.evidence.real import RealTask, real_tasks, real_words, spacing
from lsf.evidence.regret import Truth
from lsf.evidence.study import Entry, JudgedChoice, Rule, decided, entries, of_rule, paired_difference
from lsf.figures.sweeps import as_metric, draw_profile, draw_regrets, draw_sets, draw_triangle
from lsf.models.info import model_label
from lsf.plans.plan import format_blocks
from lsf.plans.policies import ENDS_FROM, RECOMMENDED

ROW_WORDS = {
    "recommended": "The recommendation",
    "random": "Drawn at random (mean)",
    "full": "Full fine-tuning",
    "constant": "Best constant",
    "depth": "Fixed depth",
}
"""Row of the study that is no criterion -> what a person reads."""


def judged_table(judged: Sequence[JudgedChoice], metric: str, key: str, note: str = "") -> None:
    """Show what every way of choosing would have tuned and lost, as a folded table that can be taken away."""
    rows = [
        {
            "way of choosing": one.label,
            "kind": one.kind,
            "tunes": _tuned(one),
            metric.replace("_", " "): None if one.score is None else as_metric(one.score, metric),
            "regret": one.regret,
            "relative regret": None if one.relative is None else 100 * one.relative,
            "within chance": {True: "yes", False: "no", None: "unknown"}[one.within_chance],
        }
        for one in judged
    ]
    decimals = st.column_config.NumberColumn(format="%.3f")
    with st.expander("What every way of choosing lost", icon=":material/table_rows:", key=f"{key}-table"):
        table(
            pd.DataFrame(rows),
            key,
            column_config={
                metric.replace("_", " "): decimals,
                "regret": decimals,
                "relative regret": st.column_config.NumberColumn(format="%.1f %%"),
            },
        )
        if note:
            st.caption(note)


def _tuned(one: JudgedChoice) -> str:
    if one.label == ROW_WORDS["full"]:
        return "all blocks, embedding, norm and head"
    return "at random" if one.choice is None else format_blocks(one.choice)


def sweep_pictures(truth: Truth, metric: str, key: str) -> None:
    """Show the profile of single blocks, and the triangle of runs of blocks where longer ones were measured."""
    seeds = len(truth.full)
    whiskers = "One seed: no spread is known." if seeds < 2 else f"Whiskers: standard deviation over {seeds} seeds."
    show(
        draw_profile(truth, metric),
        f"{key}-profile",
        f"Each block tuned alone, everything else frozen. {whiskers} Lines: full fine-tuning, the base model, and the "
        "best answer that ignores the prompt where that is better.",
    )
    if all(len(blocks) == 1 for blocks in truth.scores):
        return
    show(
        draw_triangle(truth, metric),
        f"{key}-triangle",
        "Every measured range of neighbouring blocks; the diagonal is the profile above. Framed: the best. Empty: not "
        "measured, and not filled in.",
    )


def not_decided(truth: Truth, budget: int) -> None:
    """Say so where plans of a budget differ by no more than chance makes of them, or where seeds cannot tell."""
    sure = decided(truth, budget)
    if not truth.gains:
        st.info(
            "No plan does better here, by this measure, than the base model and than the best answer that ignores the "
            "prompt: there is no relative regret, and this sweep tells nothing about blocks.",
            icon=":material/do_not_disturb:",
        )
    if sure is None:
        st.info(
            "Whether the plans differ beyond chance is unknown: that takes at least two seeds with different results.",
            icon=":material/casino:",
        )
    elif not sure:
        st.info(
            "Not decided: plans of this budget differ by no more than their seeds do by chance (Tukey's test, 5 %).",
            icon=":material/balance:",
        )


def real_panel(heading: str = "On a real language model") -> None:
    """Show what each block alone reached on a real language model, and what every criterion would have lost there."""
    tasks = {one.task: one for one in real_tasks()}
    if not tasks:
        return
    st.header(heading, anchor=False)
    name = next(iter(tasks))
    if len(tasks) > 1:
        name = st.segmented_control("Task", list(tasks), default=name, required=True, key="real-task")
    one = tasks[str(name)]
    rule = RECOMMENDED[0]
    show(
        draw_profile(one.truth, one.metric, {"chosen": one.named(rule)}, {"LoRA on all blocks": one.lora}),
        "real-profile",
        f"{one.model}, {one.task}: each block tuned alone, {one.steps} steps. Marked *chosen*: the block that the "
        "recommended criterion names.",
    )
    st.markdown(unmarked(real_words(one.weights) or ""))
    if one.at_an_end:
        st.caption(
            f"Of the learning rates tried, the best for {' and for '.join(one.at_an_end)} was the lowest or the "
            "highest: a better one may lie beyond."
        )
    _lost_by_criteria(one, 1, "What every criterion would have lost")
    if one.sets is None:
        return
    budget = one.sets.budget
    whole, alone = (as_metric(score, one.metric) for score in (one.whole, max(one.alone)))
    show(
        draw_sets(one, rule),
        "real-sets",
        f"{one.model}, {one.task}: {budget} blocks tuned together, a row each, {one.steps} steps. The whole model "
        f"had {whole:.3f}, the best block alone {alone:.3f}.",
    )
    st.markdown(unmarked(real_words(one.weights, budget) or ""))
    if (held := spacing(budget)) is not None:
        st.markdown(unmarked(held.words))
    _lost_by_criteria(one, budget, f"What every criterion would have lost with {budget} neighbours")


def _lost_by_criteria(one: RealTask, budget: int, heading: str) -> None:
    rows = []
    for criterion in (name for name in one.scores if name in one.placebo):
        named, blind = one.named(criterion, budget), one.named(criterion, budget, placebo=True)
        rows.append(
            {
                "criterion": CRITERIA[criterion].label,
                "blocks": format_blocks(named),
                "lost": _percent(one.lost(named)),
                "blocks, shuffled": format_blocks(blind),
                "lost, shuffled": _percent(one.lost(blind)),
            }
        )
    percent = st.column_config.NumberColumn(format="%.1f %%")
    key = "real" if budget == 1 else f"real-{budget}"
    with st.expander(heading, icon=":material/table_rows:", key=f"{key}-table"):
        shown = pd.DataFrame(rows).sort_values("lost", kind="stable")
        table(shown, key, column_config=dict.fromkeys(("lost", "lost, shuffled"), percent))
        st.caption(
            "Lost: how far the named blocks fall short of the best of as many, as a share of what the best of all "
            "plans gains over the floor, the better of the base model and of the best answer that ignores the prompt. "
            "*Shuffled*: the criterion read completions of other prompts; if it loses as little then, it tells depth, "
            "not the task."
        )


def record_panel(settings: Sequence[Measured]) -> None:
    """Show the mean relative regret of every criterion and control over everything that was measured."""
    known = gaining(settings)
    record = record_here()
    own = Entry("recommended", "recommendation", of_rule(known, Rule(RECOMMENDED, ENDS_FROM is not None)))
    rows = [own, *entries(known)]
    budgets = sorted({budget for row in rows for _, budget in row.relative})
    columns = {f"{budget} block{'s' if budget > 1 else ''}": budget for budget in budgets}
    found = [
        {
            "way of choosing": CRITERIA[row.name].label if row.name in CRITERIA else ROW_WORDS[row.name],
            "kind": row.kind,
            **{name: _percent(row.mean(budget)) for name, budget in columns.items()},
            "mean": _percent(row.mean()),
            "worst": _percent(max(row.relative.values())),
            "settings": len({setting for setting, _ in row.relative}),
        }
        for row in rows
    ]
    means = {str(row["way of choosing"]): row["mean"] / 100 for row in found if isinstance(row["mean"], float)}
    controls = [str(row["way of choosing"]) for row in found if row["kind"] == "control"]
    apart = {row.name: paired_difference(own.relative, row.relative) for row in rows if row.kind == "control"}
    beaten = sum(gap is not None and gap[1] > 0 for gap in apart.values())
    show(
        draw_regrets(means, ROW_WORDS["recommended"], [name for name in controls if name in means], beaten),
        "record",
        f"Over {record.pairs}, each of which counts the same, and in it each budget. Orange: "
        "what the page Choose recommends; grey: controls, which use no score.",
    )
    shown = pd.DataFrame(found).sort_values("mean", kind="stable")
    percent = st.column_config.NumberColumn(format="%.1f %%")
    with st.expander("Every budget, and the worst case", icon=":material/table_rows:", key="regrets-table"):
        st.markdown(evidence_words(record))
        table(shown, "regrets", column_config=dict.fromkeys([*columns, "mean", "worst"], percent))
    st.caption(
        "Relative regret: how far a plan falls short of the best measured one of its size, as a share of what the best "
        "plan of all, the whole model among them, gains over the better of the base model and of the best answer that "
        "ignores the prompt. Lower is better; below zero full fine-tuning beats every plan of that size. *Best "
        "constant*: one plan per model for all its tasks, picked in hindsight; *fixed depth*: "
        "neighbours at the relative depth that lost least on the other models; *drawn at random*: the mean of all "
        "measured plans of a size, from two blocks on ranges of neighbours and both ends."
    )
    for problem in own_problems():
        st.warning(unmarked(problem), icon=":material/warning:")


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def own_panel() -> None:
    """List the sweeps of the user's own that count, each with a button that takes it out."""
    kept = own_sweeps()
    if not kept:
        return
    with st.expander(f"Your own sweeps: {len(kept)}", icon=":material/lab_profile:", key="own-sweeps"):
        for one in kept:
            spec = one.sweep.spec
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                task = f"{model_label(spec.model)} on {data_words(spec.data)}"
                st.markdown(unmarked(f"{task}: {spec.over}, seeds {spec.seeds}, steps {spec.steps}{texts_apart(one)}"))
                stop_counting(one.name)


def stop_counting(name: str) -> None:
    """Offer to take a sweep out of what counts."""
    if st.button("Stop counting it", icon=":material/delete:", key=f"uncount-{name}", type="tertiary"):
        with guard():
            remove_own(name)
            st.rerun()


def evidence_words(record: RecommendationRecord, rule: str = "this rule") -> str:
    """Say what the rule lost where the truth is known, where it was tested, and held out; `rule` is what it is called.

    Own pairs were neither known when the rule was made nor announced.
    """
    return (
        f"Elsewhere, over {record.pairs}, {rule} lost "
        f"**{100 * record.mean:.1f} %** of the best plan's gain, on average against the best of the same size "
        f"(budgets of 1, 2 and a quarter of the blocks; worst case {100 * record.worst:.0f} %, "
        f"{unmarked(record.worst_site)}). Always the first blocks: {100 * record.first:.0f} %; always the last: "
        f"{100 * record.last:.0f} %; at random: {100 * record.random:.0f} %. {_announced_words(record)}Held out, a "
        f"rule chosen without the task it is judged on lost **{100 * record.without_task:.1f} %**, without the model "
        f"**{100 * record.without_model:.1f} %**."
    )


def _announced_words(record: RecommendationRecord) -> str:
    if record.announced is None or record.announced_random is None:
        return ""
    return (
        f"{record.n_sites - record.n_own - record.n_announced} of the pairs were known when the rule was made; on the "
        f"{record.n_announced} that were announced before they were measured it lost "
        f"**{100 * record.announced:.1f} %** (at random {100 * record.announced_random:.1f} %). "
    )
