"""The grid of places and methods: what is asked for, the cells as they fill, and the run behind one of them."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from lsf.analysis.plan import Plan
from lsf.compare.pareto import non_dominated
from lsf.compare.table import to_row
from lsf.figures.cell_front import draw_front
from lsf.figures.cells import MEASURES, Cell
from lsf.figures.places import draw_places
from lsf.jobs.places import PLACES, WAYS, cell_of, grid_specs, missing, same_grid
from lsf.jobs.queue import queue_runs
from lsf.jobs.result import RunResult, RunState
from lsf.jobs.runs import Run, list_runs
from lsf.jobs.spec import ROLES, RunSpec
from lsf.training.catalogue import CATALOGUE
from lsf.ui.bench import bench, runs_folder
from lsf.ui.forms import setting_input
from lsf.ui.guard import guard
from lsf.ui.panels import amount, show, size
from lsf.ui.run_panels import draw_curves_panel
from lsf.ui.run_settings import usual_steps
from lsf.ui.runs import command
from lsf.ui.state import Session
from lsf.ui.work import Source

DEFAULT_WAYS = ("full", "lora", "adapter (kind=pfeiffer)", "pafi (scope=per_tensor)", "hiwi", "said")
PLACE_WORDS = {"choice": "chosen plan", "full": "whole model", "last": "last blocks", "random": "random blocks"}
PICKED = "places-picked"
COSTS = ("tuning_seconds", "peak_memory_bytes", "stored_bytes", "latency_ratio", "forgetting")


def draw_form(here: Session, plan: Plan, source: Source) -> RunSpec:
    """Draw what the grid is made of and the button that queues it; return the spec that all its runs share."""
    with st.container(border=True):
        chosen = f"the chosen plan is **{plan.label}** of {plan.n_blocks}"
        st.markdown(f"**{source.model}** on **{source.data}**; {chosen}.")
        places = st.pills(
            "Where",
            PLACES,
            format_func=PLACE_WORDS.__getitem__,
            selection_mode="multi",
            default=["choice", "full"],
            key="places-where",
            persist_state="session",
            help="Last and random take as many blocks as the chosen plan.",
        )
        names = st.multiselect(
            "How", list(WAYS), default=list(DEFAULT_WAYS), key="places-how", persist_state="session", help=_meanings()
        )
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            values = {}
            steps, steps_key = usual_steps(source.data, "places")
            for name, value, key in (
                ("steps", steps, steps_key),
                ("batch_size", 16, "places-batch_size"),
                ("seed", 0, "places-seed"),
            ):
                with st.container(width=140):
                    values[name] = setting_input(RunSpec, name, value, key)
            search = st.checkbox(
                "Search each cell's own learning rate",
                key="places-search",
                persist_state="session",
                help="Off: each method's default rate, found by a search on the bundled model (LOG.md). On: every cell "
                "tries rates on the validation split first, which is counted apart.",
            )
        base = base_spec(plan, source, **values)
        with guard():
            wanted = grid_specs(base, places, [WAYS[name] for name in names], bool(search)) if places and names else ()
            todo = missing(wanted, list_runs_of(base))
            _start_button(here, source, todo, len(wanted))
    return base


def _start_button(here: Session, source: Source, todo: Sequence[RunSpec], n_wanted: int) -> None:
    if st.button(
        f"Start {len(todo)} run{'' if len(todo) == 1 else 's'}",
        type="primary",
        icon=":material/grid_view:",
        key="places-start",
        disabled=not todo,
    ):
        start_grid(here, source, todo)
        st.rerun()
    if n_wanted > len(todo):
        st.caption(f"{n_wanted - len(todo)} of {n_wanted} cells are there already, or wait in the queue.")


def base_spec(plan: Plan, source: Source, **values: Any) -> RunSpec:
    """Return the spec of full tuning of the chosen plan, from which every cell differs in place, method and rate."""
    return RunSpec(
        model=source.model,
        data=source.data,
        plan=plan,
        role="choice",
        prompt_template=source.prompt_template,
        completion_template=source.completion_template,
        dtype=source.dtype,
        device=source.device,
        **values,
    )


def start_grid(here: Session, source: Source, specs: Sequence[RunSpec]) -> None:
    """Queue the cells that are missing.

    Raises:
        RunError: a run folder cannot be made.
    """
    shared = bench()
    queue_runs(
        shared.worker,
        runs_folder(),
        specs,
        loaded=lambda: shared.shelf().load(source.model, source.dtype, source.device),
        task=source.load_task,
        owner=here.owner,
    )


def list_runs_of(base: RunSpec) -> tuple[Run, ...]:
    """Return the newest run of every cell of the grid, from disk."""
    return same_grid(list_runs(runs_folder()), base)


def cells_of(runs: Sequence[Run]) -> list[Cell]:
    """Return the cells in the order of the form: places, then methods as the registry lists them."""
    methods = list(CATALOGUE)

    def place(run: Run) -> tuple[int, int, str]:
        assert run.spec is not None
        return ROLES.index(run.spec.role), methods.index(run.spec.method), run.spec.how

    found = []
    for run in sorted((run for run in runs if run.spec is not None), key=place):
        assert run.spec is not None
        where, how = cell_of(run.spec)
        found.append(Cell(where, how, replace(to_row(run), method=how), run.spec.role))
    return found


def draw_grid(base: RunSpec) -> None:
    """Draw the grid, the trade-off and the picked run; called again and again while something runs."""
    runs = list_runs_of(base)
    if not runs:
        st.info("No cell of this grid has been started yet.", icon=":material/info:")
        return
    cells = cells_of(runs)
    measure = st.segmented_control(
        "Shown",
        list(MEASURES),
        format_func=lambda name: MEASURES[name].short,
        default="exact_match_after",
        required=True,
        key="places-measure",
        persist_state="session",
    )
    show(
        draw_places(cells, measure, st.session_state.get(PICKED)),
        "places",
        "Colour: the ratio to full fine-tuning of the whole model, blue better and orange worse. ?: not known. A cell "
        "that waits, runs or failed says so. Click a cell for its run.",
        on_click=pick,
    )
    _draw_front(cells)
    _draw_picked(runs)


def pick(run: object) -> None:
    """Look at the run of a clicked cell."""
    st.session_state[PICKED] = None if run is None else str(run)


def _draw_front(cells: Sequence[Cell]) -> None:
    ended = [cell for cell in cells if cell.row.state == "succeeded"]
    if len(ended) < 2:
        return
    cost = st.segmented_control(
        "Against",
        COSTS,
        format_func=lambda name: MEASURES[name].short,
        default="stored_bytes",
        required=True,
        key="places-cost",
        persist_state="session",
    )
    known = [c for c in ended if c.value(MEASURES[cost]) is not None and c.row.exact_match_after is not None]
    if not known:
        st.caption("No ended cell has this number.")
        return
    values = [c.row.exact_match_after for c in known], [c.value(MEASURES[cost]) for c in known]
    front = [index for index, stands in enumerate(non_dominated(*values)) if stands]
    note = "Up is better, left is cheaper. Named: the cells that no other cell beats in both."
    show(draw_front(known, front, cost), f"places-front-{cost}", note, on_click=pick)


def _draw_picked(runs: Sequence[Run]) -> None:
    ids = {run.id: run for run in runs if run.spec is not None}
    if st.session_state.get(PICKED) not in ids:
        return
    run = ids[st.session_state[PICKED]]
    assert run.spec is not None
    where, how = cell_of(run.spec)
    with st.container(border=True, key="places-run"):
        st.subheader(f"{how} on {where}", anchor=False)
        if run.problem:
            st.error(run.problem, icon=":material/error:")
        result = run.result
        if result is not None and result.after is not None:
            rate = "unknown" if result.learning_rate is None else f"{result.learning_rate:.2g}"
            st.markdown(
                f"{amount(result.trainable_params)} values tuned at rate {rate}; {size(result.stored_bytes)} stored; "
                f"a forward pass takes {_latency(result)} of the base's time."
            )
        if run.state in (RunState.RUNNING, *_ENDED):
            draw_curves_panel([run])
        st.code(command(run.spec), language="bash")
        if st.button("Look at this run", icon=":material/visibility:", key="places-look"):
            st.switch_page("pages/tune.py", query_params={"run": run.id})


def _latency(result: RunResult) -> str:
    if result.latency_ratio is None or result.latency_low is None or result.latency_high is None:
        return "an unknown share"
    return f"{result.latency_ratio:.3f} (95 %: {result.latency_low:.3f} to {result.latency_high:.3f})"


_ENDED = (RunState.SUCCEEDED, RunState.CANCELLED, RunState.FAILED, RunState.INTERRUPTED)


def _meanings() -> str:
    return " ".join(f"**{way.name}**: {way.meaning}" for way in CATALOGUE.values())
