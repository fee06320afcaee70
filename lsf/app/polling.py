"""Looking on while jobs run: one fragment that polls, and one full script run when the last of them ends."""

from collections.abc import Callable, Sequence

import streamlit as st

from lsf.app.panels import unmarked
from lsf.app.runtime import runtime
from lsf.app.state import Session
from lsf.errors import LsfError
from lsf.jobs.job import JobState, JobView

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
