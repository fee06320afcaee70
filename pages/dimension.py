"""Intrinsic dimension: how few numbers, projected to all weights, are enough for a task."""

from lsf.jobs.runs import list_runs
from lsf.ui.bench import bench, runs_folder
from lsf.ui.dimension import KIND, draw_form, draw_latest, draw_measured
from lsf.ui.frame import page
from lsf.ui.polling import follow
from lsf.ui.state import Session, analysed
from lsf.ui.work import Source, source_of


def draw(here: Session) -> None:
    """Draw the page."""
    draw_form(here, _source(here), here.plan)
    jobs = [view.id for view in bench().jobs(KIND)]
    follow(here, jobs, lambda views: draw_latest(here, views))
    draw_measured()


def _source(here: Session) -> Source:
    """The model and data looked at: of the analysis, of the run, or chosen on the first page."""
    found = analysed(here)
    if found is not None:
        return found.request.source
    spec = next((run.spec for run in list_runs(runs_folder()) if run.id == here.run and run.spec is not None), None)
    return here.request.source if spec is None else source_of(spec)


page(
    "Intrinsic dimension",
    "A few numbers, projected to all weights that may move, are tuned instead of them. d_90 is how many reach 90 % of "
    "what full fine-tuning reaches.",
    draw,
)
