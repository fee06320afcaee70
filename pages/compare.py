"""Step 6: what selective tuning brought and cost, beside full fine-tuning and same-size controls."""

from collections.abc import Sequence

import pandas as pd
import streamlit as st

from lsf.app.actions import at_leisure, follow, page_to_begin
from lsf.app.compare import (
    COSTS,
    cost_table,
    main_table,
    name_runs,
    named_warnings,
    samples_table,
    seeds_table,
    show_cost_table,
    show_main_table,
    show_verdict,
    tradeoff_picture,
)
from lsf.app.findings import of_plan
from lsf.app.frame import page
from lsf.app.graft import draw_graft_panel
from lsf.app.panels import download, empty, finding, onward, show, unmarked
from lsf.app.panels import table as show_table
from lsf.app.runs import (
    belong_together,
    command,
    course_table,
    differences_table,
    label,
    labels,
    proof_table,
    show_differences,
    show_proof,
)
from lsf.app.runtime import runtime
from lsf.app.state import Session, address, leave_run, look_at_run, run_here, source_here
from lsf.app.tuned_models import draw_own_words, draw_take_along
from lsf.app.work import Source, source_of
from lsf.data.lessons import data_words
from lsf.figures.palette import Picture
from lsf.figures.report import Section, comparison_page
from lsf.figures.verdict import draw_verdict
from lsf.jobs.job import JobView
from lsf.models.info import model_label
from lsf.plans.plan import Plan
from lsf.runs.comparison import Comparison, compare
from lsf.runs.controls import control_name
from lsf.runs.formats import bundle_runs, render
from lsf.runs.seeds import Summary, summarise
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, list_runs, runs_folder
from lsf.runs.verdict import CHOOSE, TUNE, Verdict, told_by, verdicts
from lsf.wording import counted

MOST_OFFERED = 3  # pairs of model and data whose runs are offered where those above have none

FORGETTING = (
    "Forgetting: the rise of the loss on text the base model wrote itself. Ratios are to the full run of the same "
    "data, seed and steps; of several, to the one with the lowest test loss."
)


def draw(here: Session) -> None:
    """Draw the page."""
    asked = [run for run in list_runs(runs_folder()) if run.spec is not None]
    group = _at_first(here, asked)
    awaited = _not_ended(here, asked)
    if not group:
        _nothing_yet(here, asked, awaited)
        return
    _offer_way_back(here)
    opening = st.container()
    with st.expander("Runs compared", icon=":material/checklist:", key="runs-compared"):
        picked = _pick(asked, group)
    if not picked:
        st.info("Pick at least one run above.", icon=":material/info:")
        return
    comparison = compare(picked)
    summaries = summarise(comparison.rows)
    judged = sorted(verdicts(comparison), key=lambda one: here.run not in one.choice.runs)  # that looked at first
    with opening:
        name_runs(here, picked)
        _verdict(judged, picked)
    picture = _tradeoff(comparison, summaries)
    draw_graft_panel(here, picked)
    draw_own_words(here, picked)
    draw_take_along(here, picked)
    table = main_table(comparison, picked)
    with st.expander("All runs, number by number", icon=":material/table:"):
        show_main_table(table)
        st.caption(f"{_seeds_words(summaries)} {FORGETTING}")
        for warning in named_warnings(comparison, picked):
            st.caption(f":material/warning: {unmarked(warning)}")
    _details(picked, comparison, summaries)
    _take_away(comparison, judged, picked, table, picture)
    _onward(here, judged)


def _verdict(judged: Sequence[Verdict], picked: Sequence[Run]) -> None:
    """Open with what is to be said of the first choice, and a sentence on each of the others."""
    if not judged:
        st.info(
            "None of these runs tuned chosen blocks, so there is no verdict; the table below has their numbers.",
            icon=":material/info:",
        )
        return
    first = next(run for run in picked if run.id in judged[0].choice.runs)
    show_verdict(judged[0], why_chosen(first))
    if len(judged) > 1:
        more = counted(len(judged) - 1, "more choice")
        with st.expander(f"{more} among these runs", icon=":material/format_list_bulleted:"):
            for verdict in judged[1:]:
                st.markdown(unmarked(f"{verdict.sentence} {' '.join(verdict.warnings)}"))


def _onward(here: Session, judged: Sequence[Verdict]) -> None:
    """Close with what was found and the one next step."""
    if judged:
        finding(f"{judged[0].headline}.", judged[0].onward)
    else:
        finding("None of these runs tuned chosen blocks.", "Next: tune blocks that a criterion chose beside them.")
    then = judged[0].then if judged else TUNE
    onward(then, {TUNE: "Tune more runs", CHOOSE: "Choose other blocks"}[then], address(here))


def why_chosen(run: Run) -> str:
    """Return why blocks were chosen, what stayed frozen and if that was proved, and how many examples tested it."""
    proof = None if run.result is None else run.result.proof
    told = "" if run.spec is None else of_plan(run.spec.plan)
    if run.spec is not None and (simple := _without_a_score(run.spec.plan)) is not None:
        told += f" Without a score, {simple} would have been the same choice."
    if run.result is not None and run.result.after is not None and run.result.after.n_examples:
        told += f" Tested on {counted(run.result.after.n_examples, 'example')}."
    if proof is None or not proof.frozen_tensors:
        return told
    moved = "did not move" if proof.frozen_identical else "MOVED"
    return f"{told} Checked after tuning: the {counted(proof.frozen_tensors, 'frozen tensor')} {moved}."


def _without_a_score(plan: Plan) -> str | None:
    """Return which control tunes just the blocks that a criterion chose: the first ones or the last; None for none."""
    size = len(plan.blocks)
    if plan.criterion in (None, "first", "last") or not 0 < size < plan.n_blocks:
        return None
    ends = {"first": tuple(range(size)), "last": tuple(range(plan.n_blocks - size, plan.n_blocks))}
    return next((control_name(role, size) for role, blocks in ends.items() if blocks == plan.blocks), None)


def _tradeoff(comparison: Comparison, summaries: tuple[Summary, ...]) -> Picture | None:
    cost = st.segmented_control(
        "Against", list(COSTS), default="training seconds", required=True, key="tradeoff-cost", persist_state="session"
    )
    picture = tradeoff_picture(comparison.rows, summaries, cost)
    if picture is not None:
        note = "Up is better, left is cheaper. The dotted line joins the runs that no other run beats in both."
        show(picture, f"tradeoff-{cost}", note)
    return picture


def _nothing_yet(here: Session, asked: list[Run], awaited: bool) -> None:
    """Say that no run of the model and data above has ended, and offer those of others that have.

    Args:
        here: this session.
        asked: every run.
        awaited: whether the page says already of what is looked at that it has not ended, and looks again by itself.
    """
    above, ended = source_here(here), [run for run in asked if run.result is not None]
    own = {run.id for run in asked if run.spec is not None and _pair(run.spec) == _pair(above)}
    jobs = [view for view in runtime().jobs("tune") if view.active and (view.run is None or view.run.name in own)]
    title = f"No run of {above.title} has ended yet" if ended or jobs else "Nothing to compare yet"
    page = "tune" if jobs else page_to_begin(here)
    steps = {"tune": "Tune the chosen blocks", "choose": "Choose blocks and tune them"}
    first = steps.get(page, "Analyse a model and data, choose blocks and tune them")
    usual = f"{first}, with the whole model beside them."

    def waiting(views: tuple[JobView, ...]) -> None:
        count = sum(view.active for view in views)
        if count < len(jobs):
            st.rerun()
        are = "1 is queued or running; it appears" if count == 1 else f"{count} are queued or running; they appear"
        empty(unmarked(title), f"{are} here as soon as one has ended.", "tune")

    if jobs and not awaited:
        follow(here, [view.id for view in jobs], waiting, quietly=True, every=at_leisure)
    else:
        empty(unmarked(title), "The page shows it as soon as it has." if jobs else usual, page)
    _offer_others(here, ended)


def _offer_others(here: Session, ended: list[Run]) -> None:
    """Offer, by one click each, the newest ended runs of the models and data that were tuned last."""
    newest: dict[tuple[str, str], tuple[Source, Run]] = {}
    for run in ended:
        if run.spec is not None:
            newest.setdefault(_pair(run.spec), (source_of(run.spec), run))
    if not newest:
        return
    st.caption("Runs of other models or data that have ended:")
    with st.container(gap="xsmall"):
        for source, run in list(newest.values())[:MOST_OFFERED]:
            count = counted(len(belong_together(ended, run.id)), "run")
            label = unmarked(f"Compare {count} of {source.title}")
            if st.button(label, icon=":material/history:", key=f"compare-{run.id}"):
                look_at_run(here, run)
                st.rerun()
        if len(newest) > MOST_OFFERED:
            st.caption("Older ones are in the list of all runs, on the page Fine-tune.")


def _offer_way_back(here: Session) -> None:
    """Where a run of another model or other data than those above is looked at, offer theirs."""
    run, above = run_here(here), source_here(here)
    if run is None or run.spec is None or _pair(run.spec) == _pair(above):
        return
    label = unmarked(f"Back to the runs of {above.title}")
    if st.button(label, icon=":material/arrow_back:", type="tertiary", key="compare-back"):
        leave_run(here)
        st.rerun()


def _not_ended(here: Session, asked: list[Run]) -> bool:
    """Say what has not ended of the run being looked at and those beside it, and draw the page anew as each ends.

    Returns:
        Whether there was something to say.
    """
    missing = {run.id: run for run in belong_together(asked, here.run) if run.result is None} if here.run else {}
    active = [view for view in runtime().jobs("tune") if view.active and view.run and view.run.name in missing]
    own = missing.get(here.run or "")
    others = len(active) - any(view.run and view.run.name == here.run for view in active)
    awaited = "1 run to be compared with it is" if others == 1 else f"{others} runs to be compared with it are"
    told = [
        "" if own is None else f"The run you look at, {label(own)}, has not ended yet.",
        "" if own is None else own.problem or "",
        f"{awaited} queued or running." if others else "",
        "Runs are added here as they end." if active else "",
    ]
    words = unmarked(" ".join(filter(None, told)))

    def look(views: tuple[JobView, ...]) -> None:
        if not all(view.active for view in views):
            st.rerun()
        st.info(words, icon=":material/hourglass_top:")

    if active:
        follow(here, [view.id for view in active], look, quietly=True, every=at_leisure)
    elif own is not None:
        st.info(words, icon=":material/hourglass_top:")
    return own is not None or bool(active)


def _at_first(here: Session, asked: list[Run]) -> list[str]:
    """Return the ended runs compared at first; none where there are none of the model and data above.

    Those of the run being looked at; where none of these has ended, the newest of the model and data above, with
    the same templates and settings if there are any.
    """
    ended = [run for run in asked if run.result is not None]
    beside = belong_together([run for run in asked if run.result is not None or run.id == here.run], here.run or "")
    if group := [run.id for run in beside if run.result is not None]:
        return group
    above = source_here(here)
    alike = [run for run in ended if run.spec is not None and _pair(run.spec) == _pair(above)]
    newest = next(
        (run for run in alike if run.spec is not None and source_of(run.spec) == above), next(iter(alike), None)
    )
    return [] if newest is None else [run.id for run in belong_together(ended, newest.id)]


def _pair(asked: RunSpec | Source) -> tuple[str, str]:
    """Return the model and data that were asked for, without templates and settings."""
    return asked.model, asked.data


def _pick(asked: list[Run], group: list[str]) -> list[Run]:
    """Let the user pick ended runs; at first those of a group."""
    runs = [run for run in asked if run.result is not None]
    by_id = {run.id: run for run in runs}
    names = st.multiselect(
        "Runs",
        list(by_id),
        default=group,
        format_func=dict(zip(by_id, labels(runs), strict=True)).__getitem__,
        help="Runs of the same name are told apart by their other settings, or by the end of the folder's name.",
        key=f"compare-{'-'.join(group)}",
        persist_state="session",
    )
    return [by_id[name] for name in names]


def _seeds_words(summaries: tuple[Summary, ...]) -> str:
    notes = list(dict.fromkeys(summary.note for summary in summaries))
    return f"{notes[0]}." if len(notes) == 1 else " ".join(f"{summary.plan}: {summary.note}." for summary in summaries)


def _details(picked: list[Run], comparison: Comparison, summaries: tuple[Summary, ...]) -> None:
    with st.expander("Mean and spread over seeds", icon=":material/functions:"):
        show_table(seeds_table(summaries, told_by(comparison.rows)), "seeds")
    samples = samples_table(picked)
    if len(samples):
        with st.expander("Answers before and after", icon=":material/chat:", expanded=True):
            show_table(samples, "answers")
            st.caption(
                f"{len(samples)} of the test prompts, answered greedily by the base model and by each tuned model. "
                "Exact match, above, counts all of them."
            )
    with st.expander("Settings in which these runs differ", icon=":material/difference:"):
        show_differences(picked, "differences")
    with st.expander("Proof that frozen weights did not move", icon=":material/verified:"):
        show_proof(picked, "compare")
    with st.expander("Expected and measured", icon=":material/straighten:"):
        show_cost_table(cost_table(picked, comparison.rows))
        st.caption(
            "Expected memory and step time come from one pass measured before the run, expected compute from counting "
            "matrix products. "
            "On a CPU memory is measured as the growth of the whole process, which has costs of its own; where tensors "
            "take less than 64 MB it tells nothing of a run, and is left out. A cached prefix makes steps cheaper than "
            "compute says."
        )


def _take_away(
    comparison: Comparison,
    judged: Sequence[Verdict],
    picked: list[Run],
    table: pd.DataFrame,
    picture: Picture | None,
) -> None:
    def as_page() -> str:
        sections = [
            Section("", f"{verdict.sentence} {' '.join(verdict.warnings)}", draw_verdict(verdict)) for verdict in judged
        ]
        sections.append(Section("The runs", FORGETTING, picture, table))
        sections += [
            Section("Answers before and after", table=samples_table(picked)),
            Section("Proof that frozen weights did not move", table=proof_table(picked)),
            Section("How the runs were carried out", table=course_table(picked)),
            Section("Settings in which they differ", table=differences_table(picked)),
            Section("Expected and measured", table=cost_table(picked, comparison.rows)),
        ]
        spec = picked[0].spec
        title = "Tuning" if spec is None else f"Tuning {model_label(spec.model)} on {data_words(spec.data)}"
        return comparison_page(title, " ".join(named_warnings(comparison, picked)), sections)

    with st.container(horizontal=True, gap="small"):
        download("Table (CSV)", lambda: render(comparison, "csv"), "comparison.csv", "text/csv", "compare-csv")
        download(
            "Comparison (JSON)",
            lambda: render(comparison, "json"),
            "comparison.json",
            "application/json",
            "compare-json",
        )
        download("Report (HTML)", as_page, "comparison.html", "text/html", "compare-html")
        commands = "".join(f"{command(run.spec)}\n" for run in picked if run.spec is not None)
        download("Commands (shell)", lambda: commands, "runs.sh", "text/x-shellscript", "compare-commands")
        download("Bundle (ZIP)", lambda: bundle_runs(picked), "runs.zip", "application/zip", "compare-bundle")


page(
    "Compare",
    "What the chosen blocks reached, beside the whole model and as many blocks chosen without looking at any score.",
    draw,
)
