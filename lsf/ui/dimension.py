"""Intrinsic dimension on a page: what is searched, the live curve, and what was measured before."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from lsf.analysis.plan import Plan, full_plan
from lsf.bundled.dimension import along_pretraining, over_blocks, over_lessons
from lsf.figures.dimension import draw_gap, draw_study
from lsf.figures.dimension_tasks import draw_blocks, draw_progress, draw_tasks, published_table
from lsf.jobs.dimensions import ASKED, DimensionSettings, Study
from lsf.jobs.job import JobView, Report
from lsf.ui.actions import stop_buttons
from lsf.ui.bench import Bench, bench
from lsf.ui.forms import setting_input
from lsf.ui.guard import guard
from lsf.ui.panels import progress, show
from lsf.ui.panels import table as show_table
from lsf.ui.state import Session
from lsf.ui.work import Source

KIND = "dimension"
METHOD_WORDS = {"said": "SAID, a scale per block", "did": "DID, without"}
WHOLE, CHOSEN = "Whole model", "Chosen blocks"
MAIN = ("projection", "seeds", "steps")
MORE = ("low", "high", "bisections", "rates", "share", "batch_size")


@dataclass(frozen=True)
class Asked:
    """A study as it was asked for."""

    source: Source
    """Model and data."""
    plan: Plan | None
    """Blocks that may move; None for the whole model."""
    settings: DimensionSettings
    """What is tried."""
    methods: tuple[str, ...]
    """said, did, or both."""


def study_work(shared: Bench, asked: Asked) -> Callable[[Report], Study]:
    """Return the job that loads what is asked for and searches d_90, streaming."""

    def work(report: Report) -> Study:
        from lsf.training.dimension import study_dimension  # noqa: PLC0415 - imports torch

        source = asked.source
        report.progress(0, None, f"loading {source.model}")
        task = source.load_task()
        loaded = shared.shelf().load(source.model, source.dtype, source.device)
        plan = asked.plan or full_plan(loaded.info.name, loaded.info.n_blocks)
        return study_dimension(loaded, task, plan, asked.settings, report, asked.methods)

    return work


def draw_form(here: Session, source: Source, plan: Plan | None) -> None:
    """Draw what is searched and the button that starts it."""
    with st.container(border=True):
        st.markdown(f"**{source.model}** on **{source.data}**: full fine-tuning first, then fewer and fewer numbers.")
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            methods = st.pills(
                "Methods",
                ASKED,
                format_func=METHOD_WORDS.__getitem__,
                selection_mode="multi",
                default=list(ASKED),
                key="dimension-methods",
                persist_state="session",
            )
            places = [WHOLE] if plan is None else [WHOLE, CHOSEN]
            place = st.segmented_control(
                "May move", places, default=WHOLE, required=True, key="dimension-place", persist_state="session"
            )
        values = _settings()
        chosen = plan if place == CHOSEN else None
        with guard():
            settings = DimensionSettings(**values)
            if st.button("Search d_90", type="primary", icon=":material/compress:", key="start", disabled=not methods):
                start(here, Asked(source, chosen, settings, tuple(methods)))
                st.rerun()


def _settings() -> dict[str, Any]:
    defaults, values = DimensionSettings(), {}

    def ask(names: Sequence[str]) -> None:
        with st.container(horizontal=True, gap="small"):
            for name in names:
                with st.container(width=170):
                    values[name] = setting_input(DimensionSettings, name, getattr(defaults, name), f"dimension-{name}")

    ask(MAIN)
    with st.expander("The search", icon=":material/settings:"):
        ask(MORE)
    return values


def start(here: Session, asked: Asked) -> None:
    """Put a study into the queue."""
    shared = bench()
    title = f"d_90 of {asked.source.data}"
    shared.worker.submit(KIND, title, study_work(shared, asked), here.owner)


def draw_latest(here: Session, views: Sequence[JobView]) -> None:
    """Draw the newest study, finished or not; called again and again while it runs."""
    for view in views:
        if view.active:
            with st.container(border=True):
                progress(view)
                stop_buttons(here, view)
        elif view.error:
            st.error(f"{view.title}: {view.error}", icon=":material/error:")
    studies = [found for view in views if isinstance(found := view.result or view.partial, Study)]
    if not studies:
        return
    study = studies[-1]
    show(
        draw_study(study),
        "study",
        "Every point is tuned from the same start with its own rate, the best on validation. Dashed: the share of full "
        "fine-tuning's exact match to be reached; a ring: the smallest d that does, d_90.",
    )
    if any(curve.points for curve in study.curves):
        show(
            draw_gap(study),
            "gap",
            f"How much less is right on the test split than on what was trained. Dotted: sqrt(d / m) with m = "
            f"{study.n_train:,} training examples, the shape of the bound O(sqrt(d / m)); its factor is not known, and "
            "above 1 it says nothing.",
        )


def draw_measured() -> None:
    """Draw what was measured before and is kept with the bundled model."""
    lessons, along, blocks = over_lessons(), along_pretraining(), over_blocks()
    if not lessons:
        st.caption("No committed measurements are here; `python benchmarks/dimension.py` makes them.")
        return
    st.divider()
    st.caption("Measured before on the bundled model: benchmarks/RESULTS.md says when and how.")
    show(
        draw_tasks(lessons),
        "lessons",
        "The whole bundled model, on a logarithmic axis: the median of one search per seed. No bar, *1 of 3*: only "
        "under so many seeds does a d that was tried reach 90 % of full; none: under none; ?: not measured.",
    )
    if along:
        settings = along[0].settings
        seeds = f"{settings.seeds} seeds, bars from least to most" if settings.seeds > 1 else "one seed"
        show(
            draw_progress(along),
            "pretraining",
            f"Checkpoints of the bundled model's pre-training, made again; {settings.steps} steps each instead of the "
            f"{lessons[0].settings.steps} above, since early ones learn slowly; {seeds}. Full fine-tuning is measured "
            "anew at each; one at which it learns less than half is left out. One that no d reaches has no mark, and "
            "ranks above all others where exact match still rose. Spearman's rho below 0: later ones need fewer "
            "numbers.",
        )
    if blocks:
        seeds = min(study.settings.seeds for study in blocks)
        whole = [s.of_seeds(seeds) for s in lessons if s.data == blocks[0].data]
        show(
            draw_blocks([*(s.of_seeds(seeds) for s in blocks if s.data == blocks[0].data), *whole]),
            "blocks",
            "Where fewer blocks may move, all of their values together are the reference. "
            + (f"Medians over {seeds} seeds." if seeds > 1 else "One seed each, also of the whole model."),
        )
    with st.expander("Published numbers beside ours", icon=":material/menu_book:"):
        show_table(published_table(lessons), "published")
        st.caption(
            "Aghajanyan et al. 2020 (arXiv 2012.13255) tuned other models, a hundred times as large, on other tasks: "
            "the numbers stand beside each other and cannot be compared."
        )
