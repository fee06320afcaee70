"""The pictures of an analysis: paths, deviation, and the logit lens, with an example picked by click or from a list."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import streamlit as st

from lsf.app.actions import follow
from lsf.app.panels import amount, progress, show, table, unmarked
from lsf.app.runs import labels
from lsf.app.runtime import runtime
from lsf.app.state import Session, analysed
from lsf.app.work import Analysed, paths_work
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, DataInfo, ExamplePath, Trajectories
from lsf.data.lessons import data_words
from lsf.figures.deviation import axis_beginning, draw_deviation, draw_scores, score_intervals
from lsf.figures.lens import VIEWS, draw_lens, draw_targets, lens_table, ranks_table, ranks_words
from lsf.figures.palette import ending, visible
from lsf.figures.trajectories import Points, draw_paths
from lsf.jobs.job import JobState, JobView
from lsf.models.info import model_label
from lsf.plans.plan import Plan
from lsf.progress import duration
from lsf.runs.comparability import RAW, made_by, texts_of
from lsf.runs.store import Run, list_runs, runs_folder
from lsf.wording import counted

MEAN = "mean of the examples kept"
EXAMPLE_KEY = "example-choice"
STATE_KEY = "lens-state"
PROMPT_CHARACTERS = 60
MANY = 160
"""Characters of a prompt that stand above its lens."""


def analysis_facts(analysis: Analysis) -> str:
    """Return one line on what was measured, and how fast."""
    model, data, timing = analysis.model, analysis.data, analysis.timing
    name = unmarked(model_label(model.name))
    positions = counted(data.n_positions, "position")
    parts = [
        f"**{name}**: {model.family}, {counted(model.n_blocks, 'block')}, {amount(model.n_params)} parameters",
        f"**{unmarked(data_words(data.name))}**: {_examples(data)} ({data.split}), {positions}",
    ]
    if model.left_out is not None:
        parts.append(model.left_out)
    if data.n_dropped:
        parts.append(f"{data.n_dropped:,} too long and left out")
    if data.n_straddling:
        parts.append(f"{data.n_straddling:,} with a token part prompt, part completion")
    if data.kernel_examples is not None and data.kernel_examples < data.n_examples:
        scores = [CRITERIA[name].label.lower() for name in analysis.criteria if CRITERIA[name].needs == "kernel"]
        scored = scores[0] if len(scores) == 1 else "scores by tangent kernels"
        parts.append(f"{scored} from the first {data.kernel_examples:,}")
    if data.sampled_positions is not None and data.sampled_positions < data.n_positions:
        parts.append(f"similarity (cka) of the first {counted(data.sampled_positions, 'position')}")
    if data.ablation_positions is not None and data.ablation_positions < data.n_positions:
        parts.append(f"blocks bypassed at the first {counted(data.ablation_positions, 'position')}")
    if data.settled:
        parts.append("stopped there, since the ranking had settled")
    if data.jittered:
        parts.append("singular head: semantic bases with a jitter of 1e-6")
    if data.short:
        parts.append(data.short.rstrip("."))
    if timing.total_seconds is not None:
        parts.append(f"measured in {duration(timing.total_seconds)}")
    return " · ".join(parts)


def _examples(data: DataInfo) -> str:
    if data.n_rows is None or data.n_rows <= data.n_read:
        return f"{counted(data.n_examples, 'example')}"
    windows = data.n_examples + data.n_dropped > data.n_read
    if windows:
        return f"{counted(data.n_examples, 'window')} ({data.n_read:,} of {counted(data.n_rows, 'row')})"
    return f"{data.n_examples:,} of {counted(data.n_rows, 'example')}"


def choose_view(here: Session, analysis: Analysis) -> int:
    """Draw the choices of the paths, flat or in space and which example; return the number of components."""
    assert analysis.trajectories is not None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        dimensions = st.segmented_control(
            "Components", ["2-D", "3-D"], default="2-D", required=True, key="dimensions", persist_state="session"
        )
        _pick_example(here, analysis.trajectories.examples)
    return 3 if dimensions == "3-D" else 2


LAID = "laid-over"
"""Kind of the jobs that read the kept examples through what a run tuned."""


@dataclass(frozen=True)
class Laid:
    """Paths after tuning."""

    paths: Trajectories
    told: str
    """The sentence on where they leave those before."""


def choose_run_after(here: Session) -> Laid | None:
    """Offer to lay the paths after tuning over those before; return them, None until they are chosen and read."""
    found = analysed(here)
    same = [] if found is None else [run for run in list_runs(runs_folder()) if _is_of(run, found)]
    if found is None or not same:
        return None
    names = dict(zip([run.id for run in same], labels(same), strict=True))
    chosen = st.selectbox(
        "Laid over: the same after tuning", list(names), None, format_func=names.__getitem__, placeholder="No run",
        key="laid-over", persist_state="session", width=520,
        help="A run of the same model and data: where does the path change?",
    )  # fmt: skip
    run = next((run for run in same if run.id == chosen), None)
    if run is None:
        return None
    about, shared = (found.request, run.id), runtime()
    view = next((one for one in reversed(shared.jobs(LAID)) if one.about == about), None)
    ended = view is not None and view.state in (JobState.CANCELLED, JobState.FAILED)
    if view is None or (ended and st.button("Read it again", icon=":material/replay:", key="lay-again")):
        work = paths_work(shared, found, run.folder)
        job = shared.worker.submit(LAID, f"paths after tuning {names[run.id]}", work, here.owner, about=about)
        view = shared.worker.view(job)
    if view.active:
        follow(here, [view.id], _show_progress, quietly=True)
    elif view.error:
        st.error(unmarked(view.error), icon=":material/error:")
    return None if view.result is None else Laid(view.result, where_apart(run, found.analysis))


def where_apart(run: Run, analysis: Analysis) -> str:
    """Say from where on the paths after tuning can be others: what reads or feeds every state moves all of them."""
    if run.spec is None:
        return "Green squares: the same after tuning."
    plan, same = run.spec.plan, "Green squares: the same after tuning"
    fed = plan.embedding or (plan.head and analysis.model.tied_head)
    read = plan.final_norm and analysis.data.reading != "raw"
    names = " and ".join(["the embedding"] * fed + ["the final norm"] * read)
    if names:
        return f"{same}; {names} {'were' if fed and read else 'was'} tuned too, so that every state can be elsewhere."
    if not plan.blocks:
        return f"{same}, which left every state where it was."
    return f"{same}, apart from the lowest tuned block on."


def _show_progress(views: Sequence[JobView]) -> None:
    for view in views:
        if view.active:
            progress(view)


def _is_of(run: Run, found: Analysed) -> bool:
    """Say whether what a run learned is there and is of an analysis' model, data and texts; it may read fewer rows."""
    result, weights = run.result, found.analysis.weights
    rows, options = found.analysis.data.fingerprint, found.request.source.options
    if run.spec is None or result is None or not result.stored_bytes:
        return False
    read, *how = made_by(found.analysis.data.rendering or RAW, options.train_on, options.chat_template)
    made, *made_how = texts_of(run.spec, result)
    alike = (read or "") in (made or "") and how in ([], made_how)
    return alike and (weights, rows) == (result.weights, result.data_fingerprint) and None not in (weights, rows)


def _path_after(after: Trajectories, example: ExamplePath | None) -> Points | None:
    """Return the path after tuning of one example, or the mean; None where that example was not read."""
    if example is None:
        return after.factual
    same = (one.factual for one in after.examples if (one.prompt, one.read) == (example.prompt, example.read))
    return next(same, None)


def draw_paths_panel(
    here: Session, analysis: Analysis, dimensions: int, finished: bool, after: Laid | None = None
) -> None:
    """Draw the paths, animated once they are final, and those after tuning over them."""
    assert analysis.trajectories is not None
    examples = analysis.trajectories.examples
    example = here.example if here.example is not None and here.example < len(examples) else None
    laid = None if after is None else _path_after(after.paths, None if example is None else examples[example])
    picture = draw_paths(analysis, example, dimensions, finished, laid)
    n_read = analysis.data.n_positions
    told = "" if after is None or laid is None else f" {after.told}"
    kept = f" Drawn: the first {len(examples)} of {n_read:,} positions read." if len(examples) < n_read else ""
    show(
        picture,
        "paths",
        "Numbers are states: 0 is the input of block 0, s the output of block s - 1. A dotted arrow leads from "
        f"where the model is to where the straight path would be.{told}{kept}",
        on_click=partial(_look_at_example, here) if example is None else None,
    )


def _pick_example(here: Session, examples: tuple[ExamplePath, ...]) -> None:
    labels = [MEAN, *(_example_label(index, example) for index, example in enumerate(examples))]
    wanted = 0 if here.example is None or here.example >= len(examples) else here.example + 1
    st.session_state[EXAMPLE_KEY] = wanted
    st.selectbox(
        "Path of",
        range(len(labels)),
        format_func=lambda index: labels[index],
        key=EXAMPLE_KEY,
        on_change=lambda: _look_at_example(here, st.session_state[EXAMPLE_KEY] - 1),
        width=520,
        help="Or click the end of a faint path, or a cell of the heat map below.",
    )


def _look_at_example(here: Session, index: int) -> None:
    here.example = int(index) if index >= 0 else None


def _example_label(index: int, example: ExamplePath) -> str:
    tail = ending(example.before_target, PROMPT_CHARACTERS)
    return f"{index + 1}: {tail} → {visible(example.target_token)}"


def draw_deviation_panel(analysis: Analysis) -> None:
    """Draw the deviation of every state."""
    beginning = axis_beginning(analysis.states)
    told = f" The axis begins at {beginning:g}, so that differences can be seen." if beginning else ""
    show(
        draw_deviation(analysis),
        "deviation",
        "Bars: how far each state is from the straight path (0 none, 1 at right angles); whiskers: 95 % interval over "
        f"examples. Diamonds: how far it still is from the target's own meaning.{told}",
    )


def draw_lens_panels(here: Session, analysis: Analysis) -> None:
    """Draw what the model would predict at each depth: over all examples, and beside it for the picked one."""
    assert analysis.trajectories is not None
    examples = analysis.trajectories.examples
    if examples:
        picked = here.example if here.example is not None and here.example < len(examples) else None
        view = st.segmented_control(
            "Logit lens shows",
            list(VIEWS),
            format_func=lambda name: VIEWS[name].label,
            default="rank",
            required=True,
            key="lens-view",
            persist_state="session",
        )
        grid = st.grid(2, min_column_width=360, gap="medium", key="lenses")
        with grid.cell():
            show(
                draw_targets(examples, picked, here.state, str(view)),
                "targets",
                f"Each column is one token to be predicted; equal targets stand side by side. "
                f"{VIEWS[str(view)].meaning} Click a cell to open its example.",
                on_click=partial(_look_at_cell, here),
            )
        with grid.cell():
            _draw_example(here, examples[picked or 0], picked or 0)
    with st.expander("Logit lens per state, over all positions", icon=":material/table_rows:"):
        probability = st.column_config.ProgressColumn(min_value=0, max_value=1, format="%.3f")
        table(lens_table(analysis), "lens-states", column_config={"target probability": probability})


def draw_criterion_panel(analysis: Analysis, plan: Plan, criterion: str) -> None:
    """Draw the scores by which blocks will be chosen, with the blocks that the plan at hand tunes."""
    entry, intervals = CRITERIA[criterion], score_intervals(analysis, criterion)
    show(
        draw_scores(analysis.scores(criterion), plan.blocks, entry.label, entry.unit, intervals=intervals),
        "criterion",
        f"The deviation describes the path; blocks are chosen by this score: {entry.meaning} "
        "Orange and hatched: what would be tuned. Block b leads from state b to state b + 1.",
    )


def _look_at_cell(here: Session, cell: Sequence[int]) -> None:
    _look_at_example(here, cell[0])
    here.state = int(cell[1])


def _draw_example(here: Session, example: ExamplePath, index: int) -> None:
    """Draw one example's lens, and the tokens of one of its states with their places one state before."""
    last = len(example.top_tokens) - 1
    state = last if here.state is None else min(here.state, last)
    read, target = ending(example.before_target, MANY), visible(example.target_token)
    show(
        draw_lens(example, state),
        "lens",
        f"Example {index + 1}: {unmarked(read)} **{unmarked(target)}** What the model would "
        "predict if it stopped there; framed: the target. Arrows: ranks gained or lost since the state before; +: new. "
        "Click a row to list its tokens.",
        on_click=lambda row: _look_at_state(here, row),
    )
    with st.expander("The tokens of one state", icon=":material/format_list_numbered:", key="tokens-of-state"):
        _list_state(here, example, state)


def _list_state(here: Session, example: ExamplePath, state: int) -> None:
    st.session_state[STATE_KEY] = state
    st.select_slider(
        "Tokens of state",
        range(len(example.top_tokens)),
        key=STATE_KEY,
        on_change=lambda: _look_at_state(here, st.session_state[STATE_KEY]),
    )
    st.caption(unmarked(ranks_words(example, state)))
    probability = st.column_config.NumberColumn(format="%.3g")
    columns = {"probability": probability, "place": "rank", "place before": "rank before"}
    table(ranks_table(example, state), "ranks", column_config=columns, placeholder="")


def _look_at_state(here: Session, state: int) -> None:
    here.state = int(state)
