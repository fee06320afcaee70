"""Guided runs: the journey on one model and one lesson, over the same pages, with one sentence on each.

*Show me in 60 seconds* is that of the bundled model and the first lesson; a second one is on a real model. Presented, a
guided run is written large and led by the arrow keys.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

import streamlit as st

from lsf.app.actions import queue_specs, start_analysis
from lsf.app.choose import BLOCKS, default_budget
from lsf.app.panels import NEXT, unmarked
from lsf.app.runs import belong_together
from lsf.app.runtime import runtime
from lsf.app.state import Session, Tour, address, analysed, analysis_view
from lsf.app.work import Analysed, Request, Source
from lsf.criteria.registry import CRITERIA
from lsf.data.lessons import LESSONS
from lsf.figures.palette import share
from lsf.models.info import NAME
from lsf.plans.policies import RECOMMENDED, RECOMMENDED_POLICY, make_plan
from lsf.runs.comparison import compare
from lsf.runs.controls import with_controls
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.runs.store import list_runs, runs_folder
from lsf.runs.verdict import verdicts

SECONDS = 9.0
"""For which a page is shown at least."""
LOOK = 1.0
"""Seconds between two looks whether it goes on."""
N_BLOCKS, BUDGET = 8, 1
"""Blocks of the bundled model, and how many are tuned; of a real one, as many as the page Choose offers at first."""
REAL_STEPS = 20
"""Steps of the real model's runs, in which the whole model forgets less than a nat."""
CONTROLS = ("full", "random")
"""Runs beside the choice."""
PRESENT = "Large type; the arrow keys lead back and on, and nothing goes on by itself."
LARGE = "<style>html { font-size: 22px !important; }</style>"


@dataclass(frozen=True)
class Stop:
    """One page of the tour."""

    page: str
    """A key of `lsf.app.panels.NEXT`."""
    words: Callable[[Session], str]
    """What to look at, and why."""


def start_tour(here: Session, lesson: str = "facts", model: str = "bundled") -> None:
    """Analyse a model, `bundled` or `smollm2`, on a lesson; everything else follows from page to page."""
    here.criterion = None
    start_analysis(here, Request(Source(model, f"lesson:{lesson}")), Tour(lesson, model=model))


def draw_tour(here: Session, title: str) -> None:
    """Say what to look at on this page, and go on to the next when it was shown long enough and its work is done.

    Args:
        here: this session.
        title: of the page that is drawn.
    """
    tour = here.tour
    if tour is None:
        return
    if tour.analysis != here.analysis_job:  # the browser's Back led to another one, which is not the tour's to tune by
        here.tour = None
        return
    view, found = analysis_view(here), analysed(here)
    if tour.jobs is None and (view is None or not view.active):
        here.tour = None  # it is over where the analysis was stopped or failed, which the page says
        if found is None or RECOMMENDED[0] not in found.analysis.criteria:
            return
        replay, here.replay = here.replay, None  # why runs cannot be started is not to be drawn over
        _start_runs(here, tour, found)
        here.tour, here.replay = tour, replay
    stop = STOPS[tour.stop]
    if tour.presents:
        st.html(LARGE)
    with st.container(border=True, key="tour-panel", gap="small"):
        if NEXT[stop.page][1] != title:
            _elsewhere(here, tour)
            return
        tour.since = tour.since or time.monotonic()
        st.markdown(f"**{tour.stop + 1} of {len(STOPS)}** {stop.words(here)}")
        last = tour.stop + 1 == len(STOPS)
        _controls(here, tour, last)


def _start_runs(here: Session, tour: Tour, found: Analysed) -> None:
    """Tune the chosen block, the whole model and the control while the pages before are looked at."""
    source, n_blocks, real = found.request.source, found.analysis.model.n_blocks, tour.model == NAME
    budget = default_budget(n_blocks) if real else BUDGET
    st.session_state.update({"policy": RECOMMENDED_POLICY, "budget-unit": BLOCKS, f"budget-{n_blocks}": budget})
    here.plan = make_plan(found.analysis, RECOMMENDED[0], RECOMMENDED_POLICY, budget)
    steps = REAL_STEPS if real else LESSONS[tour.lesson].steps
    spec = RunSpec(source.model, source.data, here.plan, steps=steps, learning_rate=METHODS_OWN)
    queued = queue_specs(here, source, with_controls(spec, CONTROLS))
    tour.jobs = tuple(one.job for one in queued)
    here.run = st.query_params["run"] = queued[0].folder.name


def _controls(here: Session, tour: Tour, last: bool) -> None:
    def stay() -> None:
        tour.stays = not tour.stays

    def present() -> None:
        tour.presents = tour.stays = not tour.presents

    back, onward = ("Left", "Right") if tour.presents else (None, None)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if tour.presents and st.button(
            "Back", icon=":material/arrow_back:", key="tour-previous", shortcut=back, disabled=tour.stop == 0
        ):
            _go_to(here, tour, tour.stop - 1)
        if not last:
            if st.button("Next", icon=":material/arrow_forward:", type="primary", key="tour-next", shortcut=onward):
                _go_to(here, tour, tour.stop + 1)
            if not tour.presents:
                st.button("Continue automatically" if tour.stays else "Stay here", key="tour-stay", on_click=stay)
        words = "Leave the presentation" if tour.presents else "Present"
        st.button(words, type="tertiary", key="tour-present", on_click=present, help=PRESENT)
        st.button("End the tour", type="tertiary", key="tour-end", on_click=lambda: _end(here))
        if not last:
            st.fragment(run_every=None if tour.stays else LOOK)(lambda: _look(here, tour))()


def _end(here: Session) -> None:
    here.tour = None


def _elsewhere(here: Session, tour: Tour) -> None:
    """Offer the way back to somebody who looks at another page."""
    file, name = NEXT[STOPS[tour.stop].page]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"The tour continues on the page **{name}**.")
        if st.button("Go there", icon=":material/arrow_forward:", key="tour-back"):
            st.switch_page(file, query_params=address(here))
        st.button("End the tour", type="tertiary", key="tour-end", on_click=lambda: _end(here))


def _look(here: Session, tour: Tour) -> None:
    """Say when it goes on, and go on then; called again every second."""
    waits = _waits_for(here, tour)
    left = SECONDS - (time.monotonic() - (tour.since or 0.0))
    if tour.stays:
        st.caption("The tour stays here until you press Next.")
    elif waits:
        st.caption(f"The tour continues as soon as {waits}.")
    elif left > 0:
        st.caption(f"The tour continues in {left:.0f} s.")
    else:
        _go_to(here, tour, tour.stop + 1)


def _waits_for(here: Session, tour: Tour) -> str:
    """Return what must end before the next page has something to show; empty where nothing must."""
    if tour.jobs is None:
        return "the analysis is done"
    if here.replay is not None:
        return "the replay has ended"
    if STOPS[tour.stop + 1].page != "compare":
        return ""
    active = sum(view.active for view in runtime().jobs("tune") if view.id in tour.jobs)
    return f"the runs have ended, {active} of {len(tour.jobs)} to go" if active else ""


def _go_to(here: Session, tour: Tour, stop: int) -> None:
    tour.stop, tour.since, tour.stays = stop, None, tour.presents
    st.switch_page(NEXT[STOPS[tour.stop].page][0], query_params=address(here))


def _paths(here: Session) -> str:
    assert here.tour is not None
    study = "study of small models; *Evidence* has what holds on real ones" if here.tour.model == NAME else "study"
    return (
        f"{LESSONS[here.tour.lesson].teaches} The dotted arrows show, state by state, how far the model is (orange, "
        "dashed) from the straight path to the right answer (blue). Such deviations are the paper's way to score "
        f"blocks; the next page chooses by another, {CRITERIA[RECOMMENDED[0]].label}, which lost less in our "
        f"{study}."
    )


def _choice(here: Session) -> str:
    if here.plan is None:
        return "The analysis is not done yet; every block will have one score here."
    ratio, several = here.plan.predicted.flops_ratio, len(here.plan.blocks) > 1
    cost = "" if ratio is None else f", so that a step takes {share(ratio)} of a full step's compute"
    tuned = f"the {len(here.plan.blocks)} neighbours that score highest are" if several else "the highest is"
    return (
        f"Every block has one score, and {tuned} tuned: look at {here.plan.label} in the tower, orange and "
        f"hatched. The arrow beside {'them' if several else 'it'} is the backward pass: it ends there{cost}. What "
        "frozen blocks below compute is kept from the first time on, which saves more."
    )


def _runs(here: Session) -> str:
    chosen = "the chosen block" if here.plan is None else here.plan.label
    return (
        f"Three runs from the same start: {chosen} alone, the whole model, and as many blocks drawn at random. See "
        "how the curves go: a good choice keeps up with the whole model."
    )


def _result(here: Session) -> str:
    group = [run for run in belong_together(list_runs(runs_folder()), here.run) if run.result is not None]
    judged = verdicts(compare(group))
    return unmarked(judged[0].sentence if judged else "The run of the chosen block has not ended yet.")


STOPS = (
    Stop("trajectories", _paths),
    Stop("choose", _choice),
    Stop("tune", _runs),
    Stop("compare", _result),
)
"""Pages in order."""
