"""Where x how: the same places tuned by several methods, one grid of what it brought and what it cost."""

from lsf.analysis.plan import Plan
from lsf.jobs.job import JobView
from lsf.jobs.runs import Run, list_runs, runs_folder
from lsf.ui.bench import bench
from lsf.ui.frame import page
from lsf.ui.panels import empty
from lsf.ui.places import draw_form, draw_grid, draw_grids
from lsf.ui.polling import follow
from lsf.ui.run_panels import draw_queue
from lsf.ui.state import Session, analysed
from lsf.ui.work import Source, source_of


def draw(here: Session) -> None:
    """Draw the page."""
    runs = list_runs(runs_folder())
    plan, source = _start(here, runs)
    if plan is None or source is None:
        empty("No plan yet", "Choose the blocks first; then places and methods are crossed here.", "choose")
        draw_grids(here, runs)
        return
    base = draw_form(here, plan, source, runs)

    def watch(views: tuple[JobView, ...]) -> None:
        draw_queue(here, [view for view in views if view.active])
        draw_grid(here, base)

    follow(here, [view.id for view in bench().jobs("tune")], watch)


def _start(here: Session, runs: list[Run]) -> tuple[Plan | None, Source | None]:
    """Return the plan and what it was chosen on: of the grid that was opened, else of this session, nobody else's."""
    specs = {run.id: run.spec for run in runs if run.spec is not None}
    opened, looked_at = specs.get(here.grid or ""), specs.get(here.run or "")
    found = analysed(here)
    source = None if found is None else found.request.source
    if opened is not None and (here.plan is None or source_of(opened) != source):
        return opened.plan, source_of(opened)
    if source is not None and here.plan is not None:
        return here.plan, source
    if looked_at is not None and looked_at.role in ("choice", "manual") and source in (None, source_of(looked_at)):
        return here.plan or looked_at.plan, source_of(looked_at)
    return None, None


page(
    "Where x how",
    "The chosen blocks, the whole model and controls of the same size, each tuned by several methods from the same "
    "start. You may close this page: the grid fills as the runs end.",
    draw,
)
