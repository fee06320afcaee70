"""The parts of a comparison: table, picture, proof, prediction beside measurement, answers before and after."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import streamlit as st

from lsf.app.panels import amount, memory_words, show, size, task_words, unmarked
from lsf.app.panels import table as show_table
from lsf.app.runs import labels
from lsf.app.state import Session, source_here
from lsf.app.work import source_of
from lsf.figures.palette import Picture
from lsf.figures.runs import Outcome, draw_tradeoff
from lsf.figures.verdict import draw_verdict
from lsf.runs.comparison import Comparison, Row, non_dominated
from lsf.runs.seeds import Estimate, Summary, by_seed
from lsf.runs.store import Run
from lsf.runs.verdict import LOSS, MEASURES, QUALITY, Measure, Verdict, told_by

COSTS = {
    "training seconds": ("tuning_seconds", "training time (s)", 1.0),
    "peak memory": ("peak_memory_bytes", "peak memory (MB)", 1e-6),
    "tuned parameters": ("trainable_params", "tuned parameters (M)", 1e-6),
}
"""Name -> column, axis title, factor."""


def name_runs(here: Session, runs: Sequence[Run]) -> None:
    """Say which model and data the runs shown are of, and where these are not the ones in the line above every page.

    Args:
        here: this session.
        runs: those shown.
    """
    specs, above = [run.spec for run in runs if run.spec is not None], source_here(here)
    named = list(dict.fromkeys(task_words(spec.model, spec.data) for spec in specs))
    told = f"Runs of {', and of '.join(named)}"
    if any((spec.model, spec.data) != (above.model, above.data) for spec in specs):
        alike = task_words(above.model, above.data) in named
        told += ": another file of that name, not the one above." if alike else ", not of the model and data above."
        st.info(told, icon=":material/alt_route:")
    elif any(source_of(spec) != above for spec in specs):
        st.info(f"{told}, with other templates or settings than those looked at.", icon=":material/alt_route:")
    else:
        st.caption(f"{told}.")


def named_warnings(comparison: Comparison, runs: Sequence[Run]) -> list[str]:
    """Return what makes runs less comparable than they look, with the runs' names of the page instead of folders'."""
    told = []
    for warning in comparison.warnings:
        for run, name in zip(runs, labels(runs), strict=True):
            warning = warning.replace(run.id, name)
        told.append(f"{warning[:1].upper()}{warning[1:]}")
    return told


def show_verdict(verdict: Verdict, why: str) -> None:
    """Show what is to be said of a choice: one sentence, four numbers, what makes them unfair, and the picture.

    Args:
        verdict: of the choice.
        why: its blocks were chosen, and what stayed frozen.
    """
    st.subheader(unmarked(verdict.sentence), anchor=False)
    st.markdown(unmarked(why))
    numbers: dict[Measure, Estimate | None] = {one: getattr(verdict.choice, one.name) for one in MEASURES}
    with st.container(horizontal=True, gap="small", key="verdict-numbers"):
        for measure, found in numbers.items():
            if found is None:  # the sentence and a warning say why
                continue
            st.metric(
                measure.label,
                measure.write(found.mean),
                found.words(measure.write),
                delta_color="off",
                delta_arrow="off",
                help=measure.meaning,
                border=True,
            )
    for warning in verdict.warnings:
        st.warning(unmarked(warning), icon=":material/warning:")
    note = (
        "Lines: the whole model; for forgetting, none. Whiskers: 95 % interval over seeds. The choice is compared with "
        f"each by {verdict.score} on the test examples, seed by seed."
    )
    show(draw_verdict(verdict), "verdict", note, title="The choice and its controls")


def main_table(comparison: Comparison, runs: Sequence[Run]) -> pd.DataFrame:
    """Return the table people read first: what was tuned, what it brought, what it cost, in ratios to full.

    What it brought is told by exact match, or by the loss where answers are hardly ever wholly right. What is wrong
    with a run, the share right by generation, and plain text's perplexity per byte stand beside it, general data beside
    forgetting; they take no room where no run has them.
    """
    by_loss = told_by(comparison.rows) == LOSS
    rows = []
    for row, name in zip(comparison.rows, labels(runs), strict=True):
        rows.append(
            {
                "run": name,
                **_quality(row, by_loss),
                "right before": row.generated_match_before,
                "right after": row.generated_match_after,
                "bytes before": row.byte_perplexity_before,
                "bytes after": row.byte_perplexity_after,
                "fault": row.fault,
                "try rate": row.rate_to_try,
                "forgetting": row.forgetting,
                "general data": row.general_share,
                "of tokens": row.general_token_share,
                "parameters": None if row.trainable_params is None else amount(row.trainable_params),
                "x parameters": row.x_params,
                "seconds": row.tuning_seconds,
                "x step time": row.x_time,
                "memory": None if row.peak_memory_bytes is None else size(row.peak_memory_bytes),
                "x memory": row.x_memory,
                **({} if by_loss else {"test loss": row.loss_after}),
                "rate": row.learning_rate,
                "state": row.state,
            }
        )
    table = pd.DataFrame(rows)
    told = {
        "fault": ("fault", "try rate"),
        "general_share": ("general data", "of tokens"),
        "generated_match_before": ("right before", "right after"),
        "byte_perplexity_before": ("bytes before", "bytes after"),
    }
    absent = [name for name in told if all(getattr(row, name) is None for row in comparison.rows)]
    return table.drop(columns=[column for name in absent for column in told[name]])


def _quality(row: Row, by_loss: bool) -> dict[str, float | None]:
    if by_loss:
        return {"loss before": row.loss_before, "loss after": row.loss_after, "x gain": row.x_gain}
    return {"test before": row.exact_match_before, "test after": row.exact_match_after, "x quality": row.x_quality}


def show_main_table(table: pd.DataFrame) -> None:
    """Show the main table with its units explained where the pointer rests."""
    number = st.column_config.NumberColumn
    st.dataframe(
        table,
        hide_index=True,
        placeholder="",
        column_config={
            "rate": number(format="%.2g", help="Peak learning rate: given, default or found by a search"),
            "fault": st.column_config.TextColumn(
                help="Why its numbers say little about what it tunes: it diverged, ended below the floor (the better "
                "of the base model and the best answer that ignores the prompt), or forgot more than a nat; no ratio "
                "refers to it"
            ),
            "try rate": number(format="%.2g", help="Learning rate to try instead"),
            "test before": number(format="percent", help="Share of test completions exactly right, base model"),
            "test after": number(format="percent", help="The same after tuning"),
            "right before": number(format="percent", help="Share of generated test answers that are right, base model"),
            "right after": number(format="percent", help="The same after tuning"),
            "bytes before": number(format="%.3f", help="Perplexity per byte of the test text, base model"),
            "bytes after": number(format="%.3f", help="The same after tuning"),
            "loss before": number(format="%.3f", help="On the test examples, base model, in nats per trained token"),
            "loss after": number(format="%.3f", help="The same after tuning"),
            "x gain": number(format="%.2f x", help="Of what the full run's test loss gains over the floor"),
            "test loss": number(format="%.3f", help="After tuning, in nats per completion token"),
            "forgetting": number(
                format="%.3f",
                help="Rise of the loss on the base model's own text, in nats per token; 0: nothing forgotten",
            ),
            "general data": number(format="percent", help="Share of each step's rows mixed in from another source"),
            "of tokens": number(format="percent", help="General data's share of all tokens trained on"),
            "seconds": number(format="%.1f", help="Training steps, and the search for a mask where a method makes one"),
            "x parameters": number(format="%.2f x", help="Of the full run's tuned parameters"),
            "x step time": number(format="%.2f x", help="Of the full run's median step"),
            "x memory": number(format="%.2f x", help="Of the full run's peak memory"),
            "x quality": number(format="%.2f x", help="Of the full run's test exact match"),
        },
    )


def seeds_table(summaries: Sequence[Summary], score: str) -> pd.DataFrame:
    """Return mean and spread per choice, in words where there is no spread; what it brought is told by the score.

    What it brought over the full run is mean over mean, with its interval. Means of fewer seeds than there are say so.
    """

    def cell(summary: Summary, name: str, digits: str) -> str | None:
        mean, spread, n = summary.mean[name], summary.spread[name], summary.known[name]
        over = summary.over_full.get(name)
        if mean is None:
            return None
        if over is not None and summary.n_seeds > 1:
            return f"{format(mean, digits)} ({over.words(lambda value: format(value, digits))})"
        fewer = "" if n == summary.n_seeds else f", {n} of {summary.n_seeds} seeds"
        return format(mean, digits) + ("" if spread is None else f" ± {format(spread, digits)}") + fewer

    by_loss = score == LOSS
    quality = ("loss after", "loss_after", ".3f") if by_loss else ("test after", "exact_match_after", ".1%")
    ratio = ("x gain", "x_gain", ".2f") if by_loss else ("x quality", "x_quality", ".2f")
    return pd.DataFrame(
        [
            {
                "stands for": summary.role,
                "tuned": summary.plan,
                "seeds": summary.note,
                quality[0]: cell(summary, *quality[1:]),
                "forgetting": cell(summary, "forgetting", ".3f"),
                "seconds": cell(summary, "tuning_seconds", ".1f"),
                "x step time": cell(summary, "x_time", ".2f"),
                ratio[0]: cell(summary, *ratio[1:]),
            }
            for summary in summaries
        ]
    )


def tradeoff_picture(rows: Sequence[Row], summaries: Sequence[Summary], cost: str) -> Picture | None:
    """Draw test exact match, or the gain in loss, against one cost, one mark per choice; None where none has both."""
    column, title, factor = COSTS[cost]
    score = told_by(rows)
    quality = QUALITY[score]
    by_id = {row.run: row for row in rows}
    outcomes = []
    for summary in summaries:
        own = [by_id[run] for run in summary.runs]
        known = [row for row in own if None not in (getattr(row, column), getattr(row, quality))]
        if known:
            costs = tuple(factor * cost for cost in by_seed(known, column))
            qualities = tuple(by_seed(known, quality))
            outcomes.append(Outcome(_tuned(summary), summary.role or "manual", costs, qualities))
    if not outcomes:
        return None
    marks = non_dominated([outcome.quality for outcome in outcomes], [outcome.cost for outcome in outcomes])
    front = [index for index, stands in enumerate(marks) if stands]
    if score == LOSS:
        return draw_tradeoff(outcomes, front, "gain over the floor, nats per token", title)
    starts = {row.exact_match_before for row in rows if row.exact_match_before is not None}
    before = starts.pop() if len(starts) == 1 else None  # of other models or data there is no one start
    return draw_tradeoff(outcomes, front, "test exact match", title, before, share=True)


def _tuned(summary: Summary) -> str:
    """Return what was tuned and how: all blocks by LoRA are not the whole model by all of its weights."""
    plan = summary.plan.replace("full", "whole model", 1) if summary.plan.startswith("full") else summary.plan
    return plan if summary.method in (None, "full") else f"{plan} by {summary.method}"


def cost_table(runs: Sequence[Run], rows: Sequence[Row]) -> pd.DataFrame:
    """Return what each run was expected to cost beside what it cost; empty cells are unknown."""
    cells: list[dict[str, Any]] = []
    for name, run, row in zip(labels(runs), runs, rows, strict=True):
        if run.spec is None:
            continue
        expected = run.spec.plan.predicted if run.result is None else run.result.predicted
        dry, measured = bool(expected.phases), row.peak_memory_bytes if row.memory_grown is None else None
        cells.append(
            {
                "run": name,
                "time expected": expected.wall_seconds,
                "time measured": row.total_seconds,
                "memory expected": memory_words(expected) if dry else None,
                "memory measured": None if measured is None else size(measured),
                "measured / expected": _over(measured, expected.memory_bytes) if dry else None,
                "step expected": expected.step_seconds,
                "step measured": row.step_seconds_median,
                "compute expected": expected.flops_ratio,
                "step time over full": row.x_time,
                "parameters expected": expected.trainable_params,
                "parameters tuned": row.trainable_params,
            }
        )
    return pd.DataFrame(cells)


def _over(one: float | None, other: float | None) -> float | None:
    return None if one is None or not other else one / other


def show_cost_table(table: pd.DataFrame) -> None:
    """Show what was expected beside what was measured."""
    number = st.column_config.NumberColumn
    show_table(
        table,
        "cost",
        placeholder="",
        column_config={
            "measured / expected": number(format="%.2f x", help="Memory"),
            "time expected": number(format="%.1f s", help="From start to end, evaluations included, as forecast"),
            "time measured": number(format="%.1f s", help="From start to end, evaluations included"),
            "step expected": number(format="%.4f s", help="From the pass measured before the run"),
            "step measured": number(format="%.4f s", help="Median of the run's steps"),
            "compute expected": number(format="%.2f x", help="By counting matrix products, over full fine-tuning"),
            "step time over full": number(format="%.2f x", help="Measured, over the full run's median step"),
        },
    )


def samples_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return test prompts with the target, the base model's answer and each run's."""
    rows: dict[tuple[str, str, str], dict[str, Any]] = {}
    for name, run in zip(labels(runs), runs, strict=True):
        for sample in run.result.samples if run.result is not None else ():
            row = rows.setdefault(
                (sample.prompt, sample.target, sample.before),
                {"prompt": sample.prompt, "wanted": sample.target, "before": sample.before},
            )
            row[name] = sample.after
    return pd.DataFrame(list(rows.values()))
