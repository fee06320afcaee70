"""Intrinsic dimension: how few numbers, projected to all weights, are enough for a task."""

from lsf.app.actions import at_leisure, follow, on_your_own_task
from lsf.app.dimension import KIND, draw_form, draw_latest, draw_lessons, draw_measured, kept_studies
from lsf.app.findings import of_dimension
from lsf.app.frame import page
from lsf.app.panels import finding
from lsf.app.runtime import runtime
from lsf.app.state import Session, analysed
from lsf.app.work import Source, source_of
from lsf.dimension.study import over_lessons
from lsf.models.info import model_label
from lsf.plans.plan import Plan
from lsf.runs.store import list_runs, runs_folder


def draw(here: Session) -> None:
    """Draw the page."""
    source, plan = _asked(here)
    jobs = [view.id for view in runtime().jobs(KIND)]
    own, measured = kept_studies(source), over_lessons()
    if own or jobs:
        follow(here, jobs, lambda views: draw_latest(here, source, views), every=at_leisure)
    else:
        draw_lessons(measured)
    draw_form(here, source, plan)
    if own or jobs:
        draw_lessons(measured)
    draw_measured(measured)
    found = of_dimension(own[:1], f"On {model_label(source.model)}") or of_dimension(measured, "On the bundled model")
    if found is not None:
        finding(*found)
    on_your_own_task(here)


def _asked(here: Session) -> tuple[Source, Plan | None]:
    """The model and data looked at, of the analysis, of the run, or chosen on the first page; and the plan on them."""
    found, specs = analysed(here), {run.id: run.spec for run in list_runs(runs_folder()) if run.spec is not None}
    spec = specs.get(here.run or "") or specs.get(here.grid or "")
    source = here.request.source if spec is None else source_of(spec)
    if found is not None:
        source = found.request.source
    plan = spec.plan if spec is not None and source_of(spec) == source and not spec.plan.is_full else None
    return source, here.plan or plan


page(
    "Intrinsic dimension",
    "How hard is a task for the model? Instead of all weights that may move, a few numbers are tuned and projected to "
    "them. d_90 is how few of these numbers reach 90 % of what full fine-tuning reaches. SAID and DID are two ways to "
    "project; only SAID has a scale for every block.",
    draw,
)
