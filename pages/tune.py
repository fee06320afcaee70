"""Step 5: tune the chosen blocks, the whole model and same-size controls, in the background, one after the other."""

from lsf.app.actions import at_leisure, follow, from_the_top, without_plan
from lsf.app.compare import name_runs
from lsf.app.findings import of_runs
from lsf.app.frame import page
from lsf.app.panels import finding, onward
from lsf.app.run_form import draw_form
from lsf.app.run_store import draw_store
from lsf.app.runs import belong_together, draw_curves_panel, draw_queue, draw_results
from lsf.app.runtime import runtime
from lsf.app.state import Session, address, analysed
from lsf.app.work import Source, source_of
from lsf.jobs.job import JobView
from lsf.runs.comparability import of_text
from lsf.runs.comparison import to_row
from lsf.runs.store import Run, list_runs, runs_folder


def draw(here: Session) -> None:
    """Draw the page."""
    from_the_top(here)
    runs = list_runs(runs_folder())
    source = _source(here, runs)
    if _looks_at_plan(here, runs, source):  # what was started is seen first, and the form for more of it after
        _runs(here)
        _form(here, source)
    else:
        _form(here, source)
        _runs(here)
    draw_store(here, runs)
    group = belong_together(runs, here.run) if here.run is not None else []
    if (found := of_runs([to_row(run) for run in group], here.run)) is not None:
        finding(*found)
    if any(run.result is not None for run in group):
        onward("compare", "Compare the runs", address(here))


def _looks_at_plan(here: Session, runs: list[Run], source: Source | None) -> bool:
    """Say whether the run being looked at is one of the plan at hand, on the same model and data."""
    spec = next((run.spec for run in runs if run.id == here.run), None)
    at_hand = spec is not None and here.plan is not None and spec.plan.label == here.plan.label
    return at_hand and spec is not None and source_of(spec) == source


def _form(here: Session, source: Source | None) -> None:
    if here.plan is None or source is None:
        without_plan(here, "they are tuned here, beside full fine-tuning.")
    else:
        draw_form(here, here.plan, source)


def _runs(here: Session) -> None:
    jobs = runtime().jobs("tune")
    if here.run is not None or any(view.active for view in jobs):
        follow(here, [view.id for view in jobs], lambda views: _watch(here, views), every=at_leisure)


def _source(here: Session, runs: list[Run]) -> Source | None:
    """The model and data to tune on: those of the analysis, else those of the run being looked at."""
    found = analysed(here)
    if found is not None:
        return found.request.source
    spec = next((run.spec for run in runs if run.id == here.run), None)
    if spec is None:
        return None
    return source_of(spec)


def _watch(here: Session, views: tuple[JobView, ...]) -> None:
    """Draw the queue and the curves; called again and again while something runs."""
    draw_queue(here, [view for view in views if view.active])
    own = next((view.run.name for view in views if view.run and view.active and view.owner == here.owner), None)
    name = here.run or own
    group = [] if name is None else belong_together(list_runs(runs_folder()), name)
    if group:
        name_runs(here, group)
        found = analysed(here)
        same = found is not None and any(run.spec and source_of(run.spec) == found.request.source for run in group)
        text = of_text(group, found.analysis.data.rendering if found is not None and same else None)
        draw_curves_panel(group, text)
        draw_results(group, {view.run.name: view for view in views if view.run is not None}, text)


page(
    "Fine-tune",
    "The chosen blocks, the whole model and same-size controls start from the same weights and see the same examples "
    "in the same order. You may close this page: runs go on, and its address finds them again.",
    draw,
)
