"""Runs on the page: the queue with positions, live curves, and what came of them."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import pandas as pd
import streamlit as st

from lsf.app.actions import go_on_buttons, removal_button, stop_buttons
from lsf.app.panels import amount, guard, progress, progress_of_queue, show, size, unmarked
from lsf.app.panels import table as show_table
from lsf.app.runtime import runtime
from lsf.app.state import Session, session
from lsf.figures.runs import Curve, draw_curves
from lsf.jobs.job import JobState, JobView
from lsf.plans.plan import Plan, format_blocks
from lsf.progress import duration
from lsf.runs.comparison import COSTS_ONLY, to_row
from lsf.runs.differences import apart, differences
from lsf.runs.result import Proof, RunResult, RunState
from lsf.runs.spec import NEEDS, ROLES, RunSpec
from lsf.runs.store import Run, can_resume, read_metrics
from lsf.runs.verdict import LOSS, told_by

AXES = {"steps": "step", "tokens": "tokens", "seconds": "seconds"}
"""Horizontal axis -> column of metrics.jsonl."""
METRICS = {
    "training loss": ("loss", True, False),
    "validation loss": ("validation_loss", True, False),
    "validation exact match": ("validation_exact_match", False, True),
}
"""What is drawn -> column of metrics.jsonl, whether lower is better, whether it is a share."""
LONG_NAME, LONG_NAME_WIDTH, TWO_LINES = 25, 190, 66
"""Letters of a run's name beyond which it takes a second line in a table, and the pixels of that column and of rows
that may have two lines: Streamlit breaks none in rows of 64 or less."""
_OF_NO_CONSEQUENCE: dict[str, Any] = {item.name: item.default for item in fields(RunSpec) if item.name in COSTS_ONLY}
"""Settings that change what a run costs and not what it learns."""
_SAID_OTHERWISE = ("model", "data", "plan", "role", "schema_version")


def belong_together(runs: Sequence[Run], name: str | None) -> list[Run]:
    """Return the runs made to be compared with one: all settings equal but plan, role, general data, seed and rate.

    Of runs with the same role, plan, general data, seed and rate only the newest is kept.

    Args:
        runs: newest first.
        name: id of the run; None takes the newest that has a spec.

    Returns:
        Choice first, then full and the controls; empty where the run is not among them.
    """
    own = next((run for run in runs if run.spec is not None and name in (None, run.id)), None)
    if own is None or own.spec is None:
        return []
    kin = _settings(own.spec)
    found: dict[tuple[object, ...], Run] = {}
    for run in runs:
        if run.spec is not None and _settings(run.spec) in (kin, _beside_any(run.spec, kin)):
            one = run.spec
            rate, general = (one.learning_rate, one.tried_rate), (one.general, one.general_share)
            key = (one.role, one.plan.label, one.how, one.seed, *rate, *general)
            found.setdefault(key, run)
    order = {role: place for place, role in enumerate(ROLES)}
    return sorted(found.values(), key=lambda run: (order[run.spec.role] if run.spec else 0, run.id))


def _beside_any(spec: RunSpec, kin: RunSpec) -> RunSpec | None:
    """Return the settings of what stands beside every method: the whole model, and LoRA on all of its blocks."""
    if spec.role == "full" and spec.method == "full":
        return replace(kin, method="full", options={})
    everywhere = len(spec.plan.blocks) == spec.plan.n_blocks and spec.method == "lora"
    return replace(kin, method="lora", options=spec.options) if everywhere else None


def _settings(spec: RunSpec) -> RunSpec:
    nobody = replace(spec.plan.bare, blocks=(0,), embedding=False, final_norm=False, head=False)
    alike = replace(spec, general=None, general_share=RunSpec.general_share)
    return replace(alike, plan=nobody, role="choice", seed=0, learning_rate=None, **_OF_NO_CONSEQUENCE)


def label(run: Run) -> str:
    """Return a run's name in legends: its role, its blocks, and its method where that is not `full`."""
    return run.id if run.spec is None else run.spec.name


def labels(runs: Sequence[Run]) -> list[str]:
    """Return the runs' names; those that are the same are told apart by what else was asked, else by their folders."""
    names = [label(run) for run in runs]
    for name in {name for name in names if names.count(name) > 1}:
        alike = [place for place, one in enumerate(names) if one == name]
        for place, words in zip(alike, apart([runs[place] for place in alike]), strict=True):
            names[place] = f"{name}, {words}" if words else name
    return [f"{name} · {run.id[-4:]}" if names.count(name) > 1 else name for name, run in zip(names, runs, strict=True)]


def curves(runs: Sequence[Run], metric: str, axis: str) -> list[Curve]:
    """Return one curve per run from its metrics.jsonl, with a name of its own; rows without a reading are left out."""
    column = METRICS[metric][0]
    found = []
    for name, run in zip(labels(runs), runs, strict=True):
        rows = [row for row in read_metrics(run.folder) if _known(row.get(column)) and _known(row.get(AXES[axis]))]
        role = run.spec.role if run.spec is not None else "manual"
        x, y = (tuple(float(row[key]) for row in rows) for key in (AXES[axis], column))
        found.append(Curve(name, role, x, y))
    return found


def _known(value: Any) -> bool:
    return isinstance(value, int | float)


def command(spec: RunSpec) -> str:
    """Return the shell command that repeats a run: every setting that is not the default."""
    words = ["python", "-m", "lsf", "tune", "--model", spec.model, "--data", spec.data, *_tuned(spec.plan)]
    for item in fields(RunSpec):
        value = getattr(spec, item.name)
        if item.name in _SAID_OTHERWISE or value == item.default:
            continue
        if item.name in NEEDS and getattr(spec, NEEDS[item.name]) is None:
            continue
        if item.name == "options":
            words += [word for name, given in spec.options.items() for word in ("--option", f"{name}={given}")]
            continue
        words += ["--" + item.name.replace("_", "-"), "auto" if value is None else str(value)]
    return shlex.join([*words, "--runs", "runs"])


def _tuned(plan: Plan) -> list[str]:
    """Return the words of a command that name what is tuned."""
    if plan.is_full:
        return ["--all"]
    modules = [name for name in ("embedding", "final_norm", "head") if getattr(plan, name)] + list(plan.modules)
    blocks = ["--blocks", format_blocks(plan.blocks).replace(" ", "") or "none"]
    return [*blocks, "--modules", ",".join(modules)] if modules else blocks


SHORT_HASH = 12
"""Digits of a hash that are shown; files have all of it."""
NAMED = 8
"""Tensors that did not move and are named at most, per run."""


def proof_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return what moved and what did not, checked on the tensors; runs that did not get that far are left out."""
    return pd.DataFrame(
        [
            {
                "run": name,
                "frozen tensors": proof.frozen_tensors,
                "unchanged": "yes" if proof.frozen_identical else "NO",
                "proved by": proof.level,
                "hash of the frozen": proof.frozen_hash[:SHORT_HASH] if proof.frozen_hash else None,
                "tuned tensors": proof.tuned_tensors,
                "moved": proof.tuned_moved,
                "parameters planned": proof.planned_params,
                "parameters tuned": proof.trainable_params,
                "as planned": "yes" if proof.planned_params == proof.trainable_params else "NO",
            }
            for name, proof in _proved(runs)
        ]
    )


def unmoved(runs: Sequence[Run]) -> list[str]:
    """Return a sentence for each run that has tuned tensors which did not move, with their names."""
    told = []
    for name, proof in _proved(runs):
        names = proof.tuned_unmoved
        if names:
            more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
            told.append(f"{name}: did not move: {', '.join(names[:NAMED])}{more}.")
    return told


def _proved(runs: Sequence[Run]) -> list[tuple[str, Proof]]:
    named = zip(labels(runs), runs, strict=True)
    return [(name, run.result.proof) for name, run in named if run.result is not None and run.result.proof is not None]


def course_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return how each run was carried out: prefix cache, micro-batch, rate, seconds of training; unknown is empty."""
    named = zip(labels(runs), runs, strict=True)
    return pd.DataFrame([_course(name, run, run.result) for name, run in named if run.result is not None])


def _course(name: str, run: Run, result: RunResult) -> dict[str, Any]:
    cache = result.cache or {}
    kept = cache.get("kind") not in (None, "off")
    return {
        "run": name,
        "prefix cache": cache.get("kind"),
        "blocks below it": cache.get("depth") if kept else None,
        "examples computed": cache.get("computed"),
        "examples served": cache.get("served"),
        "cache size": size(cache["bytes"]) if kept and "bytes" in cache else None,
        "why": cache.get("reason"),
        "micro-batch": result.micro_batch,
        "rate": result.learning_rate,
        "rate from": rate_words(result),
        "training": None if (seconds := to_row(run).tuning_seconds) is None else duration(seconds),
        "resumed at step": result.resumed_at,
        "tuned": None if result.trainable_params is None else amount(result.trainable_params),
    }


def rate_words(result: RunResult) -> str | None:
    """Say where a run's rate came from, and on which blocks it was searched where other blocks were tuned there."""
    on = None if result.searched_on is None else f"on {result.searched_on}"
    return ", ".join(filter(None, (result.rate_from, on))) or None


def differences_table(runs: Sequence[Run]) -> pd.DataFrame:
    """Return one row per setting in which the runs differ, and a column per run."""
    names = labels(runs)
    return pd.DataFrame(
        [{"setting": one.setting, **dict(zip(names, one.values, strict=True))} for one in differences(runs)]
    )


def show_proof(runs: Sequence[Run], key: str) -> None:
    """Show proof and course of runs; what is known of none of them takes no room.

    Args:
        runs: in any state.
        key: names the tables on this page, and their files.
    """
    proof = proof_table(runs)
    if len(proof):
        show_table(proof.dropna(axis="columns", how="all"), f"{key}-proof")
    else:
        st.caption("No run has reached its proof yet.")
    for sentence in unmoved(runs):
        st.warning(unmarked(sentence), icon=":material/warning:")
    st.caption(
        "By identity: every frozen tensor shares the base's storage, was not written to, and was not held by the "
        "optimizer. By hash, if asked for: its bytes are hashed before and after. Every tuned tensor must "
        "have moved, and the optimizer must have held as many parameters as the plan names."
    )
    course = course_table(runs)
    if len(course):
        show_table(
            course.dropna(axis="columns", how="all"),
            f"{key}-course",
            column_config={
                "rate": st.column_config.NumberColumn(format="%.2g", help="Peak learning rate"),
                "rate from": st.column_config.TextColumn(
                    help="A search is shared by runs that tune as many blocks; it was made on those of the first"
                ),
                "training": st.column_config.TextColumn(help="Training steps alone, with the search for a mask if any"),
            },
        )
        st.caption(
            "The blocks below the lowest tuned one never change, so what leaves them is computed once per example and "
            "then served. A micro-batch smaller than the batch means that gradients were added up to save memory."
        )


def show_differences(runs: Sequence[Run], key: str) -> None:
    """Show in which settings runs differ.

    Args:
        runs: those compared.
        key: names the table on this page, and its file.
    """
    table = differences_table(runs)
    if len(table):
        show_table(table, key)
    else:
        st.caption("No differences: the runs have the same settings, versions and device.")


def draw_queue(here: Session, active: Sequence[JobView]) -> None:
    """Draw how far all of them are, the running job and those that wait, each with what its owner may do."""
    outlook = runtime().worker.outlook()
    if outlook is not None and outlook.n_jobs > 1:
        progress_of_queue(outlook)
    waiting = [view for view in active if view.state is JobState.QUEUED]
    for view in active:
        if view not in waiting:
            _draw_job(here, view, waits=False)
    if not waiting:
        return
    with st.expander("Queue", icon=":material/playlist_play:", expanded=len(waiting) < 3, key="waiting"):
        own = [view for view in waiting if view.owner in ("", here.owner)]
        if len(own) > 1 and st.button("Remove all of mine from the queue", icon=":material/clear_all:", key="stop-all"):
            with guard():
                for view in reversed(own):
                    runtime().worker.stop(view.id, here.owner)
                st.rerun()
        for view in waiting:
            _draw_job(here, view, waits=True)


def _draw_job(here: Session, view: JobView, waits: bool) -> None:
    with st.container(
        key=f"job-{view.id}", gap="xsmall", horizontal=waits, vertical_alignment="center", border=not waits
    ):
        progress(view)
        stop_buttons(here, view)


def draw_curves_panel(group: Sequence[Run], text: bool) -> None:
    """Draw one metric of runs that belong together; of plain text, how many answers are right is none."""
    last = "validation loss" if text else "validation exact match"
    offered = list(METRICS)[: list(METRICS).index(last) + 1]
    with st.container(horizontal=True, gap="medium"):
        metric = st.segmented_control(
            "Metric",
            offered,
            default=last,
            required=True,
            key="curve-metric-of-text" if text else "curve-metric",
            persist_state="session",
        )
        axis = st.segmented_control(
            "Against", list(AXES), default="steps", required=True, key="curve-axis", persist_state="session"
        )
    picture = draw_curves(curves(group, metric, axis), metric, axis, *METRICS[metric][1:])
    notes = {
        "training loss": "Loss of each step's own batch, in nats per completion token.",
        "validation loss": "Loss on held-out validation examples, in nats per completion token.",
        "validation exact match": "Share of held-out validation examples whose whole completion is right.",
    }
    show(picture, "curves", notes[metric] + " Seconds count training steps only, not the evaluations in between.")


def draw_results(group: Sequence[Run], views: Mapping[str, JobView], text: bool) -> None:
    """Draw where each run of a group, on plain text or not, stands, and why one failed."""
    by_loss = text or told_by([to_row(run) for run in group]) == LOSS
    names = labels(group)
    rows = [_result_row(name, run, views.get(run.id), by_loss) for name, run in zip(names, group, strict=True)]
    long = max(map(len, names)) > LONG_NAME
    number = st.column_config.NumberColumn
    st.dataframe(
        pd.DataFrame(rows),
        hide_index=True,
        placeholder="",
        row_height=TWO_LINES if long else None,
        column_config={
            "run": st.column_config.TextColumn(width=LONG_NAME_WIDTH if long else None),
            "test before": number(
                "before", format="percent", help="Share of test completions exactly right, base model"
            ),
            "test after": number("after", format="percent", help="The same after tuning"),
            "loss before": number(
                "before", format="%.3f", help="Loss on the test, base model, in nats per trained token"
            ),
            "loss after": number("after", format="%.3f", help="The same after tuning"),
            "in all": st.column_config.TextColumn(
                help="From start to end; what the training itself took is under Proof"
            ),
        },
    )
    for name, run in zip(labels(group), group, strict=True):
        if run.state is RunState.FAILED and run.problem:
            st.error(unmarked(f"{name}: {run.problem}"), icon=":material/error:")
        elif (view := views.get(run.id)) is not None and view.state is JobState.FAILED and view.error:
            st.error(unmarked(f"{name}: {view.error}"), icon=":material/error:")  # it could not go on
        elif run.state is RunState.INTERRUPTED:
            st.warning(unmarked(f"{name}: {run.problem}"), icon=":material/power_off:")
        elif run.state is RunState.CANCELLED and can_resume(run):
            st.info(unmarked(f"{name}: {run.problem}"), icon=":material/stop_circle:")
        go_on_buttons(session(), run)
        removal_button(session(), run, group)
    _draw_warnings(group)
    if any(run.result is not None for run in group) and not any(view.active for view in views.values()):
        with st.expander("Proof, and how the runs were carried out", icon=":material/verified:"):
            show_proof(group, "tune")


def _draw_warnings(group: Sequence[Run]) -> None:
    """Say once what is to be said of several runs."""
    said: dict[str, list[str]] = {}
    for name, run in zip(labels(group), group, strict=True):
        for words in () if run.result is None else run.result.warnings:
            said.setdefault(words, []).append(name)
    for words, names in said.items():
        whose = "All runs" if 1 < len(names) == len(group) else ", ".join(names)
        st.warning(unmarked(f"{whose}: {words}"), icon=":material/warning:")


def _result_row(name: str, run: Run, view: JobView | None, by_loss: bool) -> dict[str, object]:
    result = run.result
    row = to_row(run)
    if by_loss:
        quality = {"loss before": row.loss_before, "loss after": row.loss_after}
    else:
        quality = {"test before": row.exact_match_before, "test after": row.exact_match_after}
    whole = row.total_seconds if result is not None else view.seconds if view is not None else None
    return {
        "run": name,
        "state": str(view.state if view is not None and view.active else run.state),
        **quality,
        "steps": result.steps if result is not None else _steps_so_far(view),
        "in all": None if whole is None else duration(whole),
    }


def _steps_so_far(view: JobView | None) -> int | None:
    """Return the step of the last row a running job told."""
    return view.partial["step"] if view is not None and isinstance(view.partial, dict) else None
