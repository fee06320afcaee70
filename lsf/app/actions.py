"""Jobs from a page: what buttons do (start an analysis, start runs, stop a job), and looking on while jobs run.

While they run one fragment polls; when the last of them ends the full script runs once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import streamlit as st

from lsf.app.panels import NEXT, empty, guard, onward, unmarked
from lsf.app.runtime import runtime
from lsf.app.state import (
    ANALYSIS,
    Session,
    Tour,
    address,
    analysed,
    analysis_view,
    leave_run,
    look_at,
    look_at_run,
)
from lsf.app.work import Foreseen, Request, Source, analysis_work, source_of, without_effect
from lsf.errors import LsfError
from lsf.jobs.job import JobState, JobView
from lsf.jobs.queue import QueuedRun, queue_resumed, queue_runs
from lsf.runs.checkpoints import checkpoint_step
from lsf.runs.controls import with_controls
from lsf.runs.memory_forecast import smaller_spec
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, can_resume, delete_run, left_nothing, runs_folder


def start_analysis(here: Session, request: Request, tour: Tour | None = None) -> None:
    """Put an analysis into the queue and go where it can be watched, on a tour or, where one was on, no more."""
    shared = runtime()
    here.tour = tour
    work = analysis_work(shared, request)
    job = shared.worker.submit(ANALYSIS, request.title, work, here.owner, about=request)
    look_at(here, job)
    if tour is not None:
        tour.analysis = job
    st.switch_page(NEXT["trajectories"][0], query_params=address(here))


def on_your_own_task(here: Session) -> None:
    """Offer to choose blocks where an analysis is looked at, else to bring model and data."""
    page, label = ("model", "Use my own model and data") if analysed(here) is None else ("choose", "Choose blocks")
    onward(page, label, address(here))


def without_plan(here: Session, then: str) -> None:
    """Say that no blocks are chosen, and offer the page that makes what is missing first.

    Args:
        here: this session.
        then: what is done once they are, as the end of a sentence.
    """
    page = page_to_begin(here)
    first = "Analyse a model and data, and choose the blocks" if page == "model" else "Choose the blocks first"
    empty("No plan yet", f"{first}; then {then}", "model" if page == "model" else "choose")


def page_to_begin(here: Session) -> str:
    """Return the page, a key of `NEXT`, on which the next step can be taken: others would only send there."""
    if here.plan is not None:
        return "tune"
    return "model" if analysis_view(here) is None else "choose"


def start_runs(here: Session, source: Source, spec: RunSpec, roles: Sequence[str], n_seeds: int = 1) -> None:
    """Queue the choice and its controls, for one or more seeds, and look at the first of them.

    Args:
        here: this session, the owner.
        source: the model and data they all start from.
        spec: of the choice; its seed is the first.
        roles: controls to run beside it.
        n_seeds: seeds, counted up from the spec's.

    Raises:
        RunError: a run folder cannot be made.
    """
    specs = specs_to_start(spec, roles, n_seeds)
    expected = [expected_seconds(here.foreseen, one, spec) for one in specs]
    _look_at_run(here, queue_specs(here, source, specs, expected)[0].folder.name)


def specs_to_start(spec: RunSpec, roles: Sequence[str], n_seeds: int = 1) -> list[RunSpec]:
    """Return what `start_runs` would queue: at each seed the choice and the controls that equal no other run of it."""
    seeds = range(spec.seed, spec.seed + n_seeds)
    return [run for seed in seeds for run in with_controls(replace(spec, seed=seed), roles)]


def queue_specs(
    here: Session, source: Source, specs: Sequence[RunSpec], expected: Sequence[float | None] | None = None
) -> tuple[QueuedRun, ...]:
    """Queue runs on the chosen model and data for this session, of so many expected seconds each.

    Raises:
        RunError: a run folder cannot be made.
    """
    shared = runtime()
    return queue_runs(
        shared.worker,
        runs_folder(),
        specs,
        loaded=lambda: shared.model_cache().load(source.model, source.dtype, source.device),
        task=source.load_task,
        owner=here.owner,
        expected=expected,
    )


def expected_seconds(foreseen: Foreseen | None, run: RunSpec, choice: RunSpec) -> float | None:
    """Return the wall seconds a run is expected to take, by what was foreseen of the choice; None where nothing was."""
    if foreseen is None or foreseen.choice is None or foreseen.spec != without_effect(choice):
        return None
    if run.role in foreseen.seconds:
        return foreseen.seconds[run.role]
    return sum(foreseen.choice.phases.values())


def resume_run(here: Session, run: Run) -> None:
    """Queue a run that ended early, to go on from its newest checkpoint.

    Raises:
        RunError: it cannot be resumed, or is held by another process.
    """
    shared = runtime()
    queue_resumed(
        shared.worker,
        run.folder,
        loaded=lambda spec: shared.model_cache().load(spec.model, spec.dtype, spec.device),
        task=lambda spec: source_of(spec).load_task(),
        owner=here.owner,
    )
    _look_at_run(here, run.id)


def _look_at_run(here: Session, name: str) -> None:
    """Look at a run that was just started, from the top of the page; the address names it at once."""
    here.run = st.query_params["run"] = name
    here.started += 1


def go_on_buttons(here: Session, run: Run) -> None:
    """Offer to resume a run that ended early, and to ask for less where memory did not suffice."""
    if run.spec is None or not can_resume(run):
        return
    step = checkpoint_step(run.folder)
    with st.container(horizontal=True, gap="small", width="content"):
        label = "Resume from the start" if step is None else f"Resume from step {step}"
        label = "Run its test" if run.result and run.result.test_left else label
        if st.button(label, icon=":material/resume:", key=f"resume-{run.id}"):
            with guard():
                resume_run(here, run)
                st.rerun()
        smaller = smaller_spec(run.spec) if run.result and run.result.failure == "OutOfMemoryError" else None
        if smaller and st.button(f"Try {smaller[1]}", icon=":material/compress:", key=f"smaller-{run.id}"):
            with guard():
                start_runs(here, source_of(run.spec), smaller[0], ())
                st.rerun()


def removal_button(here: Session, run: Run, group: Sequence[Run]) -> None:
    """Offer to remove a run that was refused before anything was measured: nothing is lost with it.

    Args:
        here: this session; it looks at another run of the group afterwards, if there is one.
        run: in any state.
        group: the runs it is shown with.
    """
    if run.state is not RunState.FAILED or not left_nothing(run):
        return
    told = "It was refused before anything was measured; its folder holds no more than what was asked of it."
    if st.button("Remove this run", icon=":material/delete:", type="tertiary", key=f"remove-{run.id}", help=told):
        with guard():
            delete_run(run.folder)
            if here.run == run.id:
                others = [one for one in group if one.id != run.id]
                look_at_run(here, others[0]) if others else leave_run(here)
            st.rerun()


LEFT = {
    "sweep": "What was measured stays.",
    "dimension": "What was measured stays.",
    "ask": "What was written stays.",
    "ask-graft": "What was written stays.",
    "load": "Files that were fetched stay.",
    "measure": "The run stays as it was kept, without a test.",
}
"""Kind of job -> what a stop leaves, where that is something; the kinds of `DISCARDED` have two ways."""
DISCARDED = {
    ANALYSIS: "Nothing that was measured is kept, and it cannot be brought back.",
    "tune": "Its curves stay; checkpoints and tuned weights are removed from the disk and cannot be brought back.",
}
"""Kind of job of which a stop keeps or discards what there is, as is asked for -> what is lost with it."""

SOON_DONE = ("merge", "unload")
"""Kinds of jobs that cannot be stopped once they run."""


ABOVE = "stop-above"
"""Where the buttons of one's own jobs stand on every page."""


def stop_buttons(here: Session, view: JobView, where: str = "stop") -> None:
    """Offer the owner of a job to stop it; others read whose it is. `where` tells apart buttons of one job."""
    if view.owner and view.owner != here.owner:
        st.caption("Started in another browser; it can be stopped only there.")
        return
    waiting = view.seconds is None
    if not waiting and view.kind in SOON_DONE:
        return
    with st.container(horizontal=True, gap="small", width="content"):
        label, told = "Remove from the queue", None
        if not waiting:
            label = "Stop and keep" if view.kind in DISCARDED else "Stop"
            told = None if view.kind in DISCARDED else LEFT.get(view.kind, "Nothing of it is kept.")
        kind, key = "tertiary" if waiting else "secondary", f"{where}-{view.id}-True"
        if st.button(label, icon=":material/stop_circle:", type=kind, key=key, disabled=view.stopping, help=told):
            _stop(here, view, keep=True)
        if not waiting and view.kind in DISCARDED:
            _offer_discarding(here, view, where)


def _offer_discarding(here: Session, view: JobView, where: str) -> None:
    """Offer to stop a job and discard what there is, and say once what would be lost."""
    icon, key = ":material/delete:", f"{where}-ask-{view.id}"
    if where == ABOVE:  # in a popover itself
        asking = st.expander("Stop and discard", icon=icon, key=key)
    else:
        asking = st.popover("Stop and discard", icon=icon, key=key, disabled=view.stopping)
    with asking:
        st.markdown(f"Stop {unmarked(view.title)} and discard it? {DISCARDED[view.kind]}")
        label, key = "Discard it", f"{where}-{view.id}-False"
        icon = ":material/delete_forever:"
        if st.button(label, type="primary", icon=icon, key=key, disabled=view.stopping):
            _stop(here, view, keep=False)


def _stop(here: Session, view: JobView, keep: bool) -> None:
    with guard():
        runtime().worker.stop(view.id, here.owner, keep=keep)
        st.rerun()  # of all: the click may have come with a run of the whole script


SECONDS = 1.0
"""Between two looks."""
SELDOM, LONG = 3.0, 120.0
"""Between two looks where all jobs together have longer than so many seconds to go: drawing takes time from them."""
TO_TOP = """document.querySelector('[data-testid="stMain"]').scrollTo(0, 0);"""
"""Script that scrolls the page to its top."""
_ENDINGS = {
    JobState.SUCCEEDED: (":material/check_circle:", "is done"),
    JobState.CANCELLED: (":material/stop_circle:", "was stopped"),
    JobState.FAILED: (":material/error:", "failed"),
}


def follow(
    here: Session,
    jobs: Sequence[str],
    draw: Callable[[tuple[JobView, ...]], None],
    quietly: bool = False,
    goes_on: Callable[[], bool] = lambda: False,
    every: Callable[[float], float] = lambda now: SECONDS,
) -> None:
    """Draw the jobs as they are now, and again until the last of them has ended.

    Args:
        here: this session, for toasts.
        jobs: ids; those the worker forgot are left out.
        draw: draws snapshots; called in a fragment, so its widgets run this part alone.
        quietly: whether nobody is told by a toast how they ended.
        goes_on: says whether there is more to draw after that.
        every: seconds between two looks now -> from here on; the page is drawn anew where that changes.
    """
    active = goes_on() or any(view.active for view in _views(jobs))

    pace = every(SECONDS)

    @st.fragment(run_every=pace if active else None)
    def look() -> None:
        views = _views(jobs)
        draw(views)
        ended = not goes_on() and not any(view.active for view in views)
        if active and (ended or every(pace) != pace):
            st.rerun()

    if not quietly:
        announce(here, _views(jobs))
    look()


def at_leisure(now: float) -> float:
    """Return how many seconds may lie between two looks at jobs that go on without being looked at.

    Args:
        now: seconds between two looks at present; who looks seldom goes on so down to half of `LONG`, so that a
            time left that wavers does not draw the page anew each time.
    """
    outlook = runtime().worker.outlook()
    least = LONG / 2 if now == SELDOM else LONG
    return SELDOM if outlook is not None and (outlook.eta_seconds or 0.0) > least else SECONDS


def from_the_top(here: Session) -> None:
    """Show the page from its top, where progress is, once after each start: browsers keep the place of the button."""
    if here.shown < here.started:
        here.shown = here.started
        st.html(f"<script>{TO_TOP} // start {here.started}</script>", unsafe_allow_javascript=True)


def announce(here: Session, views: Sequence[JobView]) -> None:
    """Tell by one toast how the jobs ended that this session saw running, once none of them runs any more."""
    here.watched |= {view.id for view in views if view.active}
    if any(view.active for view in views):
        return
    ended = [view for view in views if view.id in here.watched]
    here.watched -= {view.id for view in ended}
    states = [view.state for view in ended]
    if len(ended) == 1:
        icon, words = _ENDINGS[ended[0].state]
        st.toast(f"{unmarked(ended[0].title)} {words}.", icon=icon)
    elif ended:
        told = ", ".join(f"{states.count(state)} {state}" for state in _ENDINGS if state in states)
        worst = next(state for state in reversed(_ENDINGS) if state in states)
        st.toast(f"All jobs ended: {told}.", icon=_ENDINGS[worst][0])


def _views(jobs: Sequence[str]) -> tuple[JobView, ...]:
    found = []
    for job in jobs:
        try:
            found.append(runtime().worker.view(job))
        except LsfError:
            continue
    return tuple(found)
