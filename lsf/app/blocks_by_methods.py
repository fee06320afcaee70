"""The grid of places and methods: what is asked for, the cells as they fill, and the run behind one of them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import streamlit as st

from lsf.app.actions import go_on_buttons, queue_specs
from lsf.app.panels import amount, guard, setting_input, show, size, task_words, unmarked
from lsf.app.run_form import is_loaded, usual_steps
from lsf.app.runs import draw_curves_panel
from lsf.app.runtime import runtime
from lsf.app.state import Session
from lsf.app.work import Source, source_of
from lsf.errors import LsfError
from lsf.figures.blocks_by_methods import MEASURES, Cell, draw_front, draw_places, full_value, in_words
from lsf.figures.palette import ROLES as MARKS
from lsf.methods.catalogue import CATALOGUE, options_of
from lsf.plans.plan import Plan, place_of
from lsf.runs.comparability import found_states, of_text
from lsf.runs.comparison import non_dominated, to_row
from lsf.runs.controls import METHOD_CHOICES, PLACES, cell_of, control_spec, grid_specs, grids, missing, same_grid
from lsf.runs.result import RunResult, RunState
from lsf.runs.spec import GAIN, READINGS, ROLES, RunSpec
from lsf.runs.store import Run, list_runs, read_metrics, runs_folder
from lsf.runs.verdict import QUALITY, told_by
from lsf.wording import counted

DEFAULT_WAYS = ("full", "lora", "adapter (kind=pfeiffer)", "pafi (scope=per_tensor)", "hiwi", "said")
PLACE_WORDS = {"choice": "chosen plan", "full": "whole model", "last": "last blocks", "random": "random blocks"}
PICKED, OPENED, TAKEN_UP, FORM = "grid-picked", "grid-opened", "grid-taken-up", "grid-form"
NAMED = "grid-named"
"""Key of the box that names the picked cell."""
CAP = 5
"""Times the steps of the form that a cell may take where each goes on as long as it learns."""
BEATEN = 1.1
"""Times full fine-tuning's exact match; a cell beyond it says that full's rate or steps do not suit it."""
COSTS = ("tuning_seconds", "peak_memory_bytes", "stored_bytes", "latency_ratio", "forgetting")


def draw_grids(here: Session, runs: Sequence[Run]) -> None:
    """Offer the grids that are on disk."""
    known = {run.id: run.spec for run in grids(runs) if run.spec is not None}
    if not [name for name in known if name != here.grid]:
        return
    chosen = st.selectbox(
        "Grids on disk",
        list(known),
        index=None,
        format_func=lambda name: _grid_words(known[name]),
        placeholder="Open an earlier grid",
        key="grid-open",
        label_visibility="collapsed",
    )
    if chosen is not None and chosen != st.session_state.get(OPENED):
        here.grid = st.session_state[OPENED] = chosen
        st.query_params["grid"] = chosen
        st.rerun()
    st.session_state[OPENED] = chosen


def _grid_words(spec: RunSpec) -> str:
    rates = "rates searched" if spec.searches_rate else "default rates"
    most = "at most " if spec.until == "flat" else ""
    return (
        f"{source_of(spec).title}: {most}{counted(spec.steps, 'step')} of {spec.batch_size}, seed {spec.seed}, {rates}"
    )


def _form(here: Session, source: Source, runs: Sequence[Run]) -> dict[str, Any]:
    """Return what the form starts with: the settings of the grid that was opened, else the usual ones."""
    steps, steps_key = usual_steps(source.data, "grid")
    usual = {
        "steps": steps,
        "batch_size": 16,
        "seed": 0,
        "search": False,
        "flat": True,
        "where": ["choice", "full"],
        "how": list(DEFAULT_WAYS),
    }
    own = next((run.spec for run in runs if run.id == here.grid and run.spec is not None), None)
    if own is not None and source_of(own) == source and st.session_state.get(TAKEN_UP) != here.grid:
        specs = [run.spec for run in same_grid(runs, own) if run.spec is not None]
        roles = {"choice" if spec.role == "manual" else spec.role for spec in specs}
        st.session_state[TAKEN_UP] = here.grid
        st.session_state[FORM] = (
            source,
            {
                "steps": own.steps if own.until == "steps" else own.steps // CAP,
                "batch_size": own.batch_size,
                "seed": own.seed,
                "search": own.searches_rate,
                "flat": own.until == "flat",
                "where": [place for place in PLACES if place in roles],
                "how": [name for name in METHOD_CHOICES if name in {spec.how for spec in specs}],
            },
        )
        for key in (steps_key, *(f"grid-{name}" for name in usual)):  # what was typed was of another grid
            st.session_state.pop(key, None)
    of, known = st.session_state.get(FORM, (None, usual))
    return known if of == source else usual


def draw_form(here: Session, plan: Plan, source: Source, runs: Sequence[Run]) -> RunSpec:
    """Draw what the grid is made of and the button that queues it; return the spec that all its runs share."""
    known, steps_key = _form(here, source, runs), usual_steps(source.data, "grid")[1]
    with st.container(border=True):
        chosen = f"the chosen plan is **{plan.label}** of {plan.n_blocks}"
        st.markdown(f"{task_words(source.model, source.data)}; {chosen}.")
        places = st.pills(
            "Blocks",
            PLACES,
            format_func=PLACE_WORDS.__getitem__,
            selection_mode="multi",
            default=known["where"],
            key="grid-where",
            persist_state="session",
            help="Last and random take as many blocks as the chosen plan.",
        )
        names = st.multiselect(
            "Methods",
            list(METHOD_CHOICES),
            default=known["how"],
            format_func=how_words,
            key="grid-how",
            persist_state="session",
            help=_meanings(),
        )
        base = _shared_settings(plan, source, known, steps_key)
        with guard():
            wanted = (
                grid_specs(base, places, [METHOD_CHOICES[name] for name in names], base.learning_rate is None)
                if places and names
                else ()
            )
            possible, refused = apart(source, wanted)
            _start_button(here, source, missing(possible, same_grid(runs, base)), len(possible))
            for sentence in (*_needless(base, places), *refused):
                st.caption(f":material/block: {unmarked(sentence)}")
    draw_grids(here, runs)
    return base


def _shared_settings(plan: Plan, source: Source, known: Mapping[str, Any], steps_key: str) -> RunSpec:
    """Draw the settings that all cells share, and return the spec that they make.

    Args:
        plan: the chosen one.
        source: model and data.
        known: values to begin with, by setting.
        steps_key: of the steps among the widgets.
    """
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        values = {}
        for name in ("steps", "batch_size", "seed"):
            with st.container(width=140):
                key = steps_key if name == "steps" else f"grid-{name}"
                values[name] = setting_input(RunSpec, name, known[name], key)
        search = st.checkbox(
            "Search each cell's own learning rate",
            known["search"],
            key="grid-search",
            persist_state="session",
            help="Off: each method's default rate on this model and number of blocks. On: short runs around it, "
            "at most a fifth of a cell's cost, counted separately.",
        )
        flat = st.checkbox(
            "Train each cell until it stops improving",
            known["flat"],
            key="grid-flat",
            persist_state="session",
            help=f"On: a cell ends once {READINGS} validations in a row improve by less than {GAIN} nats, or after "
            f"{CAP} times the steps; the rule is the same for every method, and each cell's steps are shown. Off: "
            "every cell takes the same steps.",
        )
    base = until_flat(base_spec(plan, source, **values)) if flat else base_spec(plan, source, **values)
    return replace(base, learning_rate=None) if search else base


def _needless(base: RunSpec, places: Sequence[str]) -> list[str]:
    """Say which places asked for have no cells of their own."""
    seen: dict[str, str] = {}
    told = []
    for place in places:
        plan = base.plan if place == "choice" else control_spec(base, place).plan
        first = seen.setdefault(place_of(plan), place)
        if first != place:
            told.append(f"No separate cells: {PLACE_WORDS[place]}, the same blocks as the {PLACE_WORDS[first]}.")
    return told


def apart(source: Source, specs: Sequence[RunSpec]) -> tuple[list[RunSpec], list[str]]:
    """Return the specs that the loaded model can carry out, and why it cannot the others, a sentence per reason.

    Where another model is in memory, or none, nothing is known, and a run that cannot be carried out says so itself.
    """
    loaded = runtime().loaded() if is_loaded(source) else None
    if loaded is None:
        return list(specs), []
    from lsf.methods.registry import METHODS  # noqa: PLC0415 - torch, which a loaded model has imported

    possible: list[RunSpec] = []
    refused: dict[str, None] = {}
    for spec in specs:
        try:
            METHODS[spec.method].count(loaded, spec.plan, options_of(spec.method, spec.options))
            possible.append(spec)
        except LsfError as error:
            refused[str(error)] = None
    return possible, list(refused)


def _start_button(here: Session, source: Source, todo: Sequence[RunSpec], n_wanted: int) -> None:
    if st.button(
        f"Start {counted(len(todo), 'run')}",
        type="primary",
        icon=":material/grid_view:",
        key="grid-start",
        disabled=not todo,
    ):
        start_grid(here, source, todo)
        st.rerun()
    if not n_wanted:
        st.caption("Pick at least one set of blocks and one method.")
    if n_wanted > len(todo):
        there = n_wanted - len(todo)
        words = "already exists or is" if there == 1 else "already exist or are"
        st.caption(f"{there} of {counted(n_wanted, 'cell')} {words} in the queue.")


def base_spec(plan: Plan, source: Source, **values: Any) -> RunSpec:
    """Return the spec of full tuning of the chosen plan, from which every cell differs in place, method and rate."""
    return RunSpec(
        model=source.model,
        data=source.data,
        plan=plan,
        role="choice",
        prompt_template=source.prompt_template,
        completion_template=source.completion_template,
        **vars(source.options),
        dtype=source.dtype,
        device=source.device,
        **values,
    )


def until_flat(spec: RunSpec) -> RunSpec:
    """Return the spec of a run that goes on as long as it learns, read as often as the shorter one would be."""
    return replace(spec, until="flat", steps=CAP * spec.steps, eval_every=max(1, spec.steps // 5))


def start_grid(here: Session, source: Source, specs: Sequence[RunSpec]) -> None:
    """Queue the cells that are missing, and name the grid in the address.

    Raises:
        RunError: a run folder cannot be made.
    """
    queued = queue_specs(here, source, specs)
    chosen = [one for one, spec in zip(queued, specs, strict=True) if spec.role == "choice"]
    here.grid = st.session_state[TAKEN_UP] = (chosen or queued)[0].folder.name
    st.query_params["grid"] = here.grid


def list_runs_of(base: RunSpec) -> tuple[Run, ...]:
    """Return the newest run of every cell of the grid, from disk."""
    return same_grid(list_runs(runs_folder()), base)


def cells_of(runs: Sequence[Run], base: RunSpec) -> list[Cell]:
    """Return the cells in the order of the form: places, then methods as the registry lists them.

    Args:
        runs: one per cell.
        base: its plan is the one that is chosen now; a plan chosen earlier is one by hand.
    """
    methods, chosen = list(CATALOGUE), place_of(base.plan)

    def role(spec: RunSpec) -> str:
        if place_of(spec.plan) == chosen:
            return "full" if spec.plan.is_full else "choice"
        return "manual" if spec.role == "choice" else spec.role

    def place(run: Run) -> tuple[int, int, str]:
        assert run.spec is not None
        return ROLES.index(role(run.spec)), methods.index(run.spec.method), run.spec.how

    found = []
    for run in sorted((run for run in runs if run.spec is not None), key=place):
        assert run.spec is not None
        where, how = cell_of(run.spec)
        kind = role(run.spec)
        named = where if kind == "full" else f"{where} ({MARKS[kind].label})"
        found.append(Cell(named, how_words(how), replace(to_row(run), method=how), kind))
    return found


def draw_grid(here: Session, base: RunSpec) -> None:
    """Draw the grid, the picked run and the trade-off; called again and again while something runs."""
    runs = list_runs_of(base)
    if not runs:
        st.info("No cell of this grid has been started yet.", icon=":material/info:")
        return
    cells = cells_of(runs, base)
    measure = st.segmented_control(
        "Shown",
        list(MEASURES),
        format_func=lambda name: MEASURES[name].short,
        default="loss_after" if of_text(runs) else "exact_match_after",
        required=True,
        key="grid-measure",
        persist_state="session",
    )
    show(
        draw_places(cells, measure, st.session_state.get(PICKED)),
        "grid",
        "Colour: the ratio to full fine-tuning of the whole model; blue is better, orange worse. ?: unknown. Cells "
        "that are queued, running or failed say so. Click a cell to see its run.",
        on_click=pick,
    )
    _name_picked(cells)
    _draw_picked(here, runs)
    _draw_cautions(cells, runs, base, measure)
    _draw_front(cells)


def _name_picked(cells: Sequence[Cell]) -> None:
    """Offer every cell by its name too: a picture cannot be clicked from the keyboard."""
    names = {cell.row.run: f"{cell.method} on {cell.place}" for cell in cells}
    now = st.session_state.get(PICKED)
    st.session_state[NAMED] = now if now in names else None
    st.selectbox(
        "Run of a cell",
        list(names),
        None,
        format_func=names.__getitem__,
        key=NAMED,
        on_change=lambda: pick(st.session_state[NAMED]),
        placeholder="None picked",
        width=520,
        help="Or click its cell.",
    )


def pick(run: object) -> None:
    """Look at the run of a clicked cell."""
    st.session_state[PICKED] = None if run is None else str(run)


def _draw_cautions(cells: Sequence[Cell], runs: Sequence[Run], base: RunSpec, measure: str) -> None:
    """Say what makes this grid less comparable than it looks."""
    exact = MEASURES["exact_match_after"]
    full = full_value(cells, exact)
    better = [cell for cell in cells if full is not None and (cell.value(exact) or 0.0) > BEATEN * full]
    if not base.searches_rate and full is not None and better:
        best = max(better, key=lambda cell: cell.value(exact) or 0.0)
        st.warning(
            f"Full fine-tuning of the whole model gets {in_words(full, exact)} at its default rate, {best.method} on "
            f"{best.place} {in_words(best.value(exact), exact)}: the rate, or {counted(base.steps, 'step')}, do not "
            "suit it here, and ratios to it say little. Search each cell's own learning rate.",
            icon=":material/balance:",
        )
    elif base.until == "steps":
        st.caption(
            f"{counted(base.steps, 'step')} for all: methods that tune few parameters learn more slowly. *Train each "
            "cell until it stops improving* gives every cell the steps it needs."
        )
    for cell in cells:
        if cell.row.fault is not None:
            instead = "" if cell.row.rate_to_try is None else f" Try the rate {cell.row.rate_to_try:g}."
            st.caption(f":material/warning: {cell.method} on {cell.place}: {cell.row.fault}.{instead}")
    warm = sum(run.result is not None and found_states(run.result) for run in runs)
    if measure == "tuning_seconds" and warm:
        st.caption(
            f"{warm} of {counted(len(runs), 'cell')} took the states below the tuned blocks from an earlier run; their "
            "seconds leave out the cost of computing them."
        )


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
        key="grid-cost",
        persist_state="session",
    )
    by = QUALITY[told_by([cell.row for cell in ended])]
    known = [c for c in ended if c.value(MEASURES[cost]) is not None and c.value(MEASURES[by]) is not None]
    if not known:
        st.caption("No finished cell has this measure.")
        return
    values = [c.value(MEASURES[by]) for c in known], [c.apart(MEASURES[cost]) for c in known]
    front = [index for index, stands in enumerate(non_dominated(*values)) if stands]
    note = "Up is better, left is cheaper. Labelled: the cells that no other cell beats in both."
    show(draw_front(known, front, cost, by), f"grid-front-{cost}", note, on_click=pick)


def _draw_picked(here: Session, runs: Sequence[Run]) -> None:
    ids = {run.id: run for run in runs if run.spec is not None}
    if st.session_state.get(PICKED) not in ids:
        return
    run = ids[st.session_state[PICKED]]
    assert run.spec is not None
    where, how = cell_of(run.spec)
    with st.container(border=True, key="grid-run"):
        st.subheader(f"{how_words(how)} on {where}", anchor=False)
        if run.problem:
            (st.error if run.state is RunState.FAILED else st.info)(unmarked(run.problem), icon=":material/info:")
        go_on_buttons(here, run)
        result = run.result
        if result is not None and result.after is not None:
            rate = "unknown" if result.learning_rate is None else f"{result.learning_rate:.2g}"
            st.markdown(
                f"{amount(result.trainable_params)} parameters tuned at learning rate {rate}; "
                f"{size(result.stored_bytes)} stored; a forward pass takes {_latency(result)} of the base's time."
            )
        if read_metrics(run.folder):
            draw_curves_panel([run], of_text([run]))
        if st.button("Show this run", icon=":material/visibility:", key="grid-look"):
            st.switch_page("pages/tune.py", query_params={"run": run.id})


def _latency(result: RunResult) -> str:
    if result.latency_ratio is None or result.latency_low is None or result.latency_high is None:
        return "an unknown share"
    return f"{result.latency_ratio:.3f} (95 %: {result.latency_low:.3f} to {result.latency_high:.3f})"


def how_words(how: str) -> str:
    """Return a method as people read it, by its acronym where it has one: `All weights`, `Adapters (pfeiffer)`."""
    name, _, options = how.partition(" ")
    label, _, acronym = CATALOGUE[name].label.partition(" (")
    told = [_option_words(*option.partition("=")[::2]) for option in options.strip("()").split(", ") if option]
    return f"{acronym.rstrip(')') or label}{f' ({words})' if (words := ', '.join(told)) else ''}"


def _option_words(option: str, value: str) -> str:
    """Return a setting as people say it: a choice by its own name (`per tensor`), a number with its own (`size 4`)."""
    return (f"{option} {value}" if value[:1].isdigit() or value in ("True", "False") else value).replace("_", " ")


def _meanings() -> str:
    return " ".join(f"**{chosen_method.label}**: {chosen_method.meaning}" for chosen_method in CATALOGUE.values())
