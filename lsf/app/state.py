"""What one browser session has in hand, as one typed record: whose it is, what it looks at, what is forecast of that.

The part that its address carries, `?analysis=<job>`, `?run=<run folder>` and `?grid=<run folder>`, is enough to find
everything again after a reload or in a second tab: the jobs belong to the process, the runs to the disk.
"""

from dataclasses import dataclass, field, replace

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from lsf.app.browser import browser_name
from lsf.app.panels import unmarked
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.work import Analysed, Foreseen, Request, Source, source_of
from lsf.criteria.result import Analysis
from lsf.errors import LsfError, NoRunError
from lsf.jobs.job import JobState, JobView
from lsf.methods.catalogue import CATALOGUE
from lsf.plans.plan import Plan, Predicted
from lsf.runs.answers import Voice
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, load_run, runs_folder

_KEY = "lsf"
OWNER_LENGTH = 12
ADDRESS = ("analysis", "run", "grid")
"""Query parameters."""
ANALYSIS = "analyze"
"""Kind of the jobs that are analyses."""


@dataclass
class Tour:
    """Where the guided tour is."""

    lesson: str
    """Name of the lesson it tunes to."""
    analysis: str | None = None
    """Job of its analysis; None before that is in the queue."""
    stop: int = 0
    """Which of its pages, counted from 0."""
    since: float | None = None
    """Monotonic seconds at which that page was first shown; None before."""
    jobs: tuple[str, ...] | None = None
    """Jobs of its runs; None before they were started."""
    stays: bool = False
    """Whether it waits for a click to go on."""
    model: str = "bundled"
    """What it tunes: `bundled` or `smollm2`."""
    presents: bool = False
    """Whether it is presented: in large type, and led by the arrow keys alone."""


@dataclass
class Session:
    """What this session looks at and has decided."""

    owner: str
    """Who starts jobs here: the same for every tab of one browser; only the owner may stop them."""
    request: Request = field(default_factory=Request)
    """The model, data and settings chosen on the first page."""
    asked: bool = False
    """Whether that page was drawn here."""
    analysis_job: str | None = None
    """Job of the analysis being looked at."""
    replay: int | None = None
    """Which moment of that analysis is shown next, layer by layer and example by example; None for all of it."""
    moment: Analysis | None = None
    """What is shown of it now; None for all of it."""
    example: int | None = None
    """Example picked by click or from the list; None for the mean over positions."""
    state: int | None = None
    """State of the picked example whose tokens are listed; None for the last."""
    criterion: str | None = None
    """Criterion chosen by name or by click; None for the first that was measured."""
    by_hand: tuple[int, ...] | None = None
    """Blocks chosen by hand; None while the criterion decides."""
    taken: Plan | None = None
    """The plan without a criterion that was taken last as it was offered: its reasons and rates go with its blocks."""
    plan: Plan | None = None
    """The plan to tune."""
    run: str | None = None
    """Folder name of the run being looked at."""
    grid: str | None = None
    """Folder name of a run of the grid of places and methods being looked at."""
    forecast_job: str | None = None
    """Job that works out what the asked run needs; None once its answer is taken."""
    forecast_of: RunSpec | None = None
    """What that job was asked, or the last one was."""
    foreseen: Foreseen | None = None
    """The last answer."""
    prompts: tuple[str, ...] = ()
    """What was asked last in one's own words; empty before."""
    prompts_of: Source | None = None
    """Model and data of the runs that were asked."""
    part: str | None = None
    """Part of the graft being looked at, by its name; None for the one that does most."""
    grafted: dict[tuple[Voice, str], str] = field(default_factory=dict)
    """Jobs in which grafts answered: who answered, and the prompt."""
    started: int = 0
    """How often runs were started here; a new start is looked at from the top of the page."""
    shown: int = 0
    """Which of these starts was scrolled to."""
    tour: Tour | None = None
    """The guided tour; None where none is on."""
    idle_pages: set[str] = field(default_factory=set)
    """Pages, by their scripts' hashes, whose empty address was drawn when nothing was looked at."""
    watched: set[str] = field(default_factory=set)
    """Jobs seen running, whose end is to be told."""


def session() -> Session:
    """Return this session's record, made at its first use."""
    if is_new():
        st.session_state[_KEY] = Session(owner=_owner())
    return st.session_state[_KEY]


def is_new() -> bool:
    """Say whether this session has not drawn a page yet."""
    return _KEY not in st.session_state


def attach() -> Session:
    """Take up what the address names, and make the address name what this session looks at."""
    here, shared = session(), runtime()
    _follow_back(here)
    asked = st.query_params.get("analysis")
    named = _known_job(shared, asked)
    if asked is not None and named is None:
        st.warning("The analysis of this address is gone: the server was started again, or many jobs came after it.")
        del st.query_params["analysis"]
    if named is not None and named != here.analysis_job:
        if here.analysis_job is not None:  # the browser's Back leads to an earlier one
            _drop_choices(here)
        here.analysis_job = named
        if "run" not in st.query_params:
            _leave_other_run(here)
    _take_up_run(here, st.query_params.get("run") or here.run)
    here.grid = st.query_params.get("grid") or here.grid
    if here.grid is not None and _run_called(here.grid) is None:
        here.grid = None
        st.query_params.pop("grid", None)
    if here.analysis_job and _known_job(shared, here.analysis_job) is None:
        here.analysis_job = None
    named = address(here)
    if any(st.query_params.get(name) != value for name, value in named.items()):
        st.query_params.update(named)  # at once: each change of the address is one more step for the browser's Back
    return here


def _follow_back(here: Session) -> None:
    """Look no longer at a run where the browser's Back leads to what was looked at before it.

    An address that names anything names all. The empty one is also that of a page just turned to in the side bar,
    whatever is looked at: it stands for nothing on pages that were drawn by it when nothing was looked at.
    """
    context = get_script_run_ctx()
    if context is None:
        return
    page, empty = context.page_script_hash, not any(name in st.query_params for name in ADDRESS)
    if empty and not context.is_history_navigation:
        (here.idle_pages.discard if address(here) else here.idle_pages.add)(page)
    elif context.is_history_navigation and "run" not in st.query_params and (not empty or page in here.idle_pages):
        leave_run(here)


def address(here: Session) -> dict[str, str]:
    """Return the query parameters that find this session's analysis, run and grid again."""
    named = zip(ADDRESS, (here.analysis_job, here.run, here.grid), strict=True)
    return {name: value for name, value in named if value}


def analysis_view(here: Session) -> JobView | None:
    """Return the job of the analysis being looked at, if there is one."""
    if here.analysis_job is None:
        return None
    try:
        return runtime().worker.view(here.analysis_job)
    except LsfError:
        return None


def analysed(here: Session) -> Analysed | None:
    """Return the finished analysis being looked at, with its request; None while there is none."""
    view = analysis_view(here)
    return view.result if view is not None and isinstance(view.result, Analysed) else None


def analysis(here: Session) -> Analysis | None:
    """Return the finished analysis being looked at; None while there is none."""
    found = analysed(here)
    return None if found is None else found.analysis


def looked_at(here: Session) -> Analysed | None:
    """Return the analysis being looked at, as far as it is."""
    view = analysis_view(here)
    found = None if view is None else view.result
    if view is not None and found is None and view.state is not JobState.CANCELLED:  # what was discarded is not shown
        found = view.partial
    return found if isinstance(found, Analysed) else None


def request_of(view: JobView | None) -> Request | None:
    """Return what an analysis was asked, also one that waits or was discarded; None where nothing says so."""
    left = None if view is None else view.result or view.partial or view.about
    return left.request if isinstance(left, Analysed) else left if isinstance(left, Request) else None


def request_here(here: Session) -> Request:
    """Return the model, data and settings being looked at: of the analysis, of the run, or as chosen on the first page.

    A run says nothing of settings, and an analysis that was discarded nothing of what is looked at.
    """
    view = analysis_view(here)
    asked = request_of(view)
    if view is not None and asked is not None and (view.active or looked_at(here) is not None):
        return asked
    run = run_here(here)
    return here.request if run is None or run.spec is None else replace(here.request, source=source_of(run.spec))


def source_here(here: Session) -> Source:
    """Return the model and data of `request_here`."""
    return request_here(here).source


def look_at(here: Session, job: str) -> None:
    """Look at another analysis: what was chosen on the old one is dropped, and a run on another model or other data."""
    _drop_choices(here)
    here.analysis_job, here.replay, here.grid = job, 0, None
    st.query_params.pop("grid", None)
    _leave_other_run(here)


def _drop_choices(here: Session) -> None:
    here.example = here.state = here.by_hand = here.taken = here.plan = here.replay = here.moment = None


def _leave_other_run(here: Session) -> None:
    """Look no longer at a run that is not of the model and data of the analysis being looked at."""
    run, asked = run_here(here), request_of(analysis_view(here))
    if run is not None and run.spec is not None and asked is not None and source_of(run.spec) != asked.source:
        leave_run(here)


def look_at_run(here: Session, run: Run) -> None:
    """Look at a run that was picked, and take up its plan."""
    _turn_to_run(here, run.id)
    st.query_params["run"] = run.id
    take_up_plan(here, run.spec)


def leave_run(here: Session) -> None:
    """Look at no run; the address names none either."""
    _turn_to_run(here, None)
    st.query_params.pop("run", None)


def _turn_to_run(here: Session, name: str | None) -> None:
    """Look at another run, or none; a plan is dropped where another model or other data are looked at with it."""
    before = source_here(here)
    here.run = name
    if source_here(here) != before:
        here.plan = here.by_hand = here.taken = None


def run_here(here: Session) -> Run | None:
    """Return the run being looked at; None where there is none, or where it was deleted since."""
    return None if here.run is None else _run_called(here.run)


def take_up_plan(here: Session, spec: RunSpec | None) -> bool:
    """Take up the plan of a run whose blocks were chosen, and say so.

    It is left where the analysis being looked at, running or finished, is of another model or other data, or does not
    tell yet what it is of: its plan is not for those blocks.
    """
    if spec is None or spec.role not in ("choice", "manual"):
        return False
    view, found = analysis_view(here), looked_at(here)
    if found is None and view is not None and view.active:
        return False
    if found is not None and found.request.source != source_of(spec):
        return False
    here.plan = spec.plan
    return True


def foreseen_of(here: Session, plan: Plan) -> Foreseen | None:
    """Return what was forecast of a plan on the model and data being looked at; None where that was not done."""
    foreseen = here.foreseen
    if foreseen is None or foreseen.choice is None or foreseen.spec.plan.label != plan.label:
        return None
    return foreseen if source_of(foreseen.spec) == source_here(here) else None


def predicted_of(here: Session, plan: Plan) -> tuple[Predicted, Predicted | None]:
    """Return what a plan is expected to cost, and full fine-tuning beside it: as the next page forecast it, if it did.

    Where this plan was not forecast on this model and data, what was counted for it, and None.
    """
    foreseen = foreseen_of(here, plan)
    if foreseen is None or foreseen.choice is None:
        return plan.predicted, None
    return foreseen.choice.predicted, None if foreseen.full is None else foreseen.full.predicted


def by_method(here: Session, plan: Plan) -> str:
    """Return by which method that is, as words after a number; nothing where all weights of the blocks are tuned."""
    foreseen = foreseen_of(here, plan)
    if foreseen is None or foreseen.spec.method == "full":
        return ""
    return f" by {CATALOGUE[foreseen.spec.method].label}"


def _known_job(shared: AppRuntime, job: str | None) -> str | None:
    """Return the job of an analysis; None for one that is none, or that the worker does not remember."""
    return job if any(view.id == job and view.kind == ANALYSIS for view in shared.worker.views()) else None


def _take_up_run(here: Session, name: str | None) -> None:
    """Look at the run an address names, if it is one of ours; a job's id is understood as well."""
    if name is None:
        return
    for view in runtime().worker.views():
        if view.id == name and view.run is not None:
            name = view.run.name
    run = _run_called(name)
    if run is None:
        st.warning(f"There is no run {unmarked(repr(name))} any more; it was deleted, or its folder was moved.")
        leave_run(here)
    elif name != here.run:
        _turn_to_run(here, name)
        if here.plan is None and run.spec is not None and take_up_plan(here, run.spec):
            here.criterion = here.criterion or run.spec.plan.criterion
            here.by_hand = run.spec.plan.blocks if run.spec.plan.criterion is None else None
            here.taken = run.spec.plan if run.spec.plan.rates or run.spec.plan.policy else None


def _run_called(name: str) -> Run | None:
    """Return the run that a word of the address names; None where it is none, or leads elsewhere."""
    folder = runs_folder() / name
    try:
        within = folder.parent == runs_folder() and name not in (".", "..") and folder.is_dir()
        return load_run(folder) if within else None
    except (OSError, NoRunError):  # OSError: longer than a name can be
        return None


def _owner() -> str:
    """Return a name for this browser, the same for all its tabs and after a reload; `local` where it has no cookie."""
    return (browser_name() or "local")[:OWNER_LENGTH]
