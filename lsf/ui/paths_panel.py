"""The pictures of an analysis: paths, deviation, and the logit lens, with an example picked by click or from a list."""

from functools import partial

import streamlit as st

from lsf.analysis.result import Analysis, ExamplePath
from lsf.figures.deviation import draw_deviation
from lsf.figures.lens import draw_lens, draw_targets, lens_table
from lsf.figures.picture import visible
from lsf.figures.trajectories import draw_paths
from lsf.ui.panels import amount, duration, show
from lsf.ui.state import Session

MEAN = "mean of the examples kept"
EXAMPLE_KEY = "example-choice"
PROMPT_CHARACTERS = 60


def analysis_facts(analysis: Analysis) -> str:
    """Return one line on what was measured, and how fast."""
    model, data, timing = analysis.model, analysis.data, analysis.timing
    parts = [
        f"**{model.name}**: {model.family}, {model.n_blocks} blocks, {amount(model.n_params)} parameters",
        f"**{data.name}**: {data.n_examples:,} examples ({data.split}), {data.n_positions:,} positions",
    ]
    if data.n_dropped:
        parts.append(f"{data.n_dropped:,} too long and left out")
    if data.settled:
        parts.append("stopped there, since the ranking had settled")
    if timing.total_seconds is not None:
        parts.append(duration(timing.total_seconds))
    return " · ".join(parts)


def choose_view(here: Session, analysis: Analysis) -> int:
    """Draw the two choices of the paths, flat or in space and which example; return the number of components."""
    assert analysis.trajectories is not None
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        dimensions = st.segmented_control(
            "Components", ["2-D", "3-D"], default="2-D", required=True, key="dimensions", persist_state="session"
        )
        _pick_example(here, analysis.trajectories.examples)
    return 3 if dimensions == "3-D" else 2


def draw_paths_panel(here: Session, analysis: Analysis, dimensions: int, finished: bool) -> None:
    """Draw the paths, animated once they are final."""
    assert analysis.trajectories is not None
    examples = analysis.trajectories.examples
    example = here.example if here.example is not None and here.example < len(examples) else None
    picture = draw_paths(analysis, example, dimensions, animated=finished)
    show(
        picture,
        "paths",
        "Numbers are states: 0 enters the first block, the last leaves the last block. A dotted line joins where the "
        "model is to where the even walk would be.",
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
        help="Or click the end of a faint path, or a column of the heat map below.",
    )


def _look_at_example(here: Session, index: int) -> None:
    here.example = int(index) if index >= 0 else None


def _example_label(index: int, example: ExamplePath) -> str:
    prompt = example.prompt.replace("\n", "⏎")
    tail = prompt if len(prompt) <= PROMPT_CHARACTERS else "…" + prompt[-PROMPT_CHARACTERS:]
    return f"{index + 1}: {tail} → {visible(example.target_token)}"


def draw_deviation_panel(analysis: Analysis) -> None:
    """Draw the deviation of every state."""
    show(
        draw_deviation(analysis),
        "deviation",
        "Bars: how far each state is from the even walk (0 none, 1 at right angles); whiskers: 95 % interval over "
        "examples. Diamonds: how far it still is from the target's own meaning.",
    )


def draw_lens_panels(here: Session, analysis: Analysis) -> None:
    """Draw what the head would say at each depth, over all examples and for the picked one."""
    assert analysis.trajectories is not None
    examples = analysis.trajectories.examples
    picked = here.example if here.example is not None and here.example < len(examples) else None
    if examples:
        show(
            draw_targets(examples, picked),
            "targets",
            "Each column is one example: the probability its target has at each state, on a logarithmic scale. Click a "
            "column to see that example's own path and lens.",
            on_click=partial(_look_at_example, here),
        )
    if picked is not None:
        example = examples[picked]
        st.markdown(f"Example {picked + 1}: {example.prompt} **{example.completion.strip()}**")
        show(
            draw_lens(example),
            "lens",
            "The tokens the head would choose if the model stopped at that state; the target is framed.",
        )
    with st.expander("Logit lens per state, over all positions", icon=":material/table_rows:"):
        st.dataframe(
            lens_table(analysis),
            hide_index=True,
            column_config={
                "target probability": st.column_config.ProgressColumn(min_value=0, max_value=1, format="%.3f")
            },
        )
