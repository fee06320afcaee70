"""Intrinsic dimension on a page: what is searched, the live curve, and what was measured before."""

import hashlib
import secrets
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from lsf.app.actions import stop_buttons
from lsf.app.panels import guard, progress, setting_input, show, task_words, unmarked
from lsf.app.panels import table as show_table
from lsf.app.runtime import AppRuntime, runtime
from lsf.app.state import Session
from lsf.app.work import Source
from lsf.data.contents import DEFAULTS
from lsf.data.lessons import data_words
from lsf.dimension.study import ASKED, DimensionSettings, Study, along_pretraining, over_blocks
from lsf.errors import LsfError
from lsf.figures.dimension import draw_blocks, draw_gap, draw_progress, draw_study, draw_tasks, published_table
from lsf.files import make_folder
from lsf.jobs.job import JobView, Report
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Forwarding
from lsf.runs.store import runs_folder
from lsf.wording import counted

KIND = "dimension"
CURVE_WORDS = (
    "Every point is tuned from the same start with its own learning rate, the best on validation by exact match, then "
    "by loss. Dashed: the share of full fine-tuning's exact match to be reached; ring: d_90, the smallest d that does."
)
METHOD_WORDS = {"said": "SAID, with a scale per block", "did": "DID, without scales"}
STUDIES = "dimension"
"""Folder among the runs in which studies are kept."""
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


def study_work(shared: AppRuntime, asked: Asked) -> Callable[[Report], Study]:
    """Return the job that loads what is asked for and searches d_90, streaming."""

    def work(report: Report) -> Study:
        from lsf.dimension.search import study_dimension  # noqa: PLC0415 - imports torch

        source = asked.source
        file = folder_of(source) / f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}.json"
        make_folder(file.parent)
        report.progress(0, None, f"loading {source.model}")
        task = source.load_task()
        loaded = shared.model_cache().load(source.model, source.dtype, source.device)
        plan = asked.plan or full_plan(loaded.info.name, loaded.info.n_blocks)
        study = study_dimension(loaded, task, plan, asked.settings, _Kept(report, file), asked.methods)
        study.save(file)
        return study

    return work


class _Kept(Forwarding):
    """A job's report that writes every partial study to its file too."""

    def __init__(self, report: Report, file: Path) -> None:
        super().__init__(report)
        self._file = file

    def partial(self, value: Study) -> None:
        value.save(self._file)
        self.report.partial(value)


def folder_of(source: Source) -> Path:
    """Return where studies of data read like this are kept: a record of one does not say by which templates it was."""
    read = (source.prompt_template, source.completion_template, source.options)
    folder = runs_folder() / STUDIES
    plain = read == (None, None, DEFAULTS)
    return folder if plain else folder / hashlib.sha256(repr(read).encode()).hexdigest()[:12]


def kept_studies(source: Source) -> list[Study]:
    """Return the studies of a model and data that are on disk, newest first; what cannot be read is left out.

    Those of the same data read by other templates or options are of another task.
    """
    found = []
    for file in sorted(folder_of(source).glob("*.json"), reverse=True):
        try:
            study = Study.load(file)
        except LsfError:
            continue
        if (study.model, study.data) == (source.model, source.data):
            found.append(study)
    return found


def draw_form(here: Session, source: Source, plan: Plan | None) -> None:
    """Draw what is searched and the button that starts it."""
    with st.container(border=True):
        st.markdown(f"{task_words(source.model, source.data)}: full fine-tuning first, then fewer and fewer numbers.")
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
            words = "Blocks chosen on the page Choose can be searched alone." if plan is None else None
            place = st.segmented_control(
                "Search in",
                places,
                default=WHOLE,
                required=True,
                key="dimension-place",
                persist_state="session",
                help=words,
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
    shared = runtime()
    title = f"d_90 of {data_words(asked.source.data)}"
    shared.worker.submit(KIND, title, study_work(shared, asked), here.owner, about=asked.source)


def draw_latest(here: Session, source: Source, views: Sequence[JobView]) -> None:
    """Draw the studies of a model and data, the newest first seen; called again and again while one runs."""
    for view in views:
        if view.active:
            with st.container(border=True):
                progress(view)
                stop_buttons(here, view)
    last = views[-1] if views else None
    if last is not None and last.error and last.owner == here.owner:
        st.error(unmarked(f"{last.title}: {last.error}"), icon=":material/error:")
    running = [view.partial for view in views if view.active and view.about == source]
    now = [one for one in running if isinstance(one, Study)]
    studies = now + [one for one in kept_studies(source) if one not in now]
    if not studies:
        return
    names = numbered([_study_words(study, study in now) for study in studies])
    name = names[0]
    if len(studies) > 1:
        name = st.selectbox("Studies of this model and data", names, key="dimension-study") or name
    study = studies[names.index(name)] if name in names else studies[0]
    st.caption(_study_words(study, study in now))
    show(draw_study(study), "study", CURVE_WORDS)
    if any(curve.points for curve in study.curves):
        show(
            draw_gap(study),
            "gap",
            f"Exact match on the training examples minus that on the test split. Dotted: sqrt(d / m) with m = "
            f"{study.n_train:,} training examples, the shape of the bound O(sqrt(d / m)); its factor is not known, and "
            "above 1 it says nothing.",
        )


def numbered(names: Sequence[str]) -> list[str]:
    """Return names, newest first, of which those that are the same say which of them is the older."""
    told, counts = [], Counter(names)
    for place, name in enumerate(names):
        nth = counts[name] - names[:place].count(name)
        told.append(name if counts[name] == 1 else f"{name} (number {nth} of {counts[name]} alike)")
    return told


def _study_words(study: Study, running: bool) -> str:
    settings = study.settings
    where = "whole model" if study.plan.is_full else study.plan.label
    seeds = f"{settings.seeds} seeds" if settings.seeds > 1 else "one seed"
    loop = f"{counted(settings.steps, 'step')} of {settings.batch_size}"
    found = ", ".join(f"{m.upper()} {study.summary(m)}" for m in ASKED if study.of(m)) or "no point"
    return f"{where}, {settings.projection}, {loop}, {seeds}: {'still running' if running else found}"


def draw_lessons(lessons: Sequence[Study]) -> None:
    """Draw d_90 of every lesson, measured before on the bundled model."""
    if not lessons:
        st.caption("No committed measurements are here; `python benchmarks/dimension.py` makes them.")
        return
    show(
        draw_tasks(lessons),
        "lessons",
        "Measured beforehand on the whole bundled model: the median of one search per seed, on a logarithmic axis. In "
        "place of a bar: *1 of 3*, the seeds under which some d that was tried reached 90 % of full; *none*, under no "
        "seed; *?*, not measured. docs/results/dimension.md says when and how.",
    )


def draw_measured(lessons: Sequence[Study]) -> None:
    """Draw what else was measured before and is kept with the bundled model."""
    along, blocks = along_pretraining(), over_blocks()
    if not lessons:
        return
    with st.expander("Every search of one lesson", icon=":material/show_chart:"):
        names = {study.data: study for study in lessons}
        picked = st.selectbox("Lesson", names, format_func=data_words, key="kept-curves")
        show(draw_study(names.get(picked, lessons[0])), "kept-study", CURVE_WORDS)
    if along:
        settings = along[0].settings
        seeds = f"{settings.seeds} seeds, bars from least to most" if settings.seeds > 1 else "one seed"
        show(
            draw_progress(along),
            "pretraining",
            f"Checkpoints of the bundled model's pretraining, made again; {counted(settings.steps, 'step')} each "
            f"instead of the {lessons[0].settings.steps} above, since early ones learn slowly; {seeds}. Full "
            "fine-tuning is measured again at each; one at which it learns less than half is left out. Open "
            "triangles: under at least one seed no d that was tried suffices; ranked above all others if exact match "
            "still rose, not ranked if it fell again. Spearman's rho below 0: later checkpoints need fewer numbers.",
        )
    if blocks:
        seeds = min(study.settings.seeds for study in blocks)
        whole = [s.of_seeds(seeds) for s in lessons if s.data == blocks[0].data]
        show(
            draw_blocks([*(s.of_seeds(seeds) for s in blocks if s.data == blocks[0].data), *whole]),
            "blocks",
            "Where fewer blocks may move, all of their values together are the reference. "
            + (f"Medians over {seeds} seeds." if seeds > 1 else f"One seed each. {_two_numbers(lessons, whole)}"),
        )
    with st.expander("Published numbers beside ours", icon=":material/menu_book:"):
        show_table(published_table(lessons), "published")
        st.caption(
            "Aghajanyan et al. 2020 (arXiv 2012.13255) tuned other models, a hundred times as large, on other tasks: "
            "the numbers stand beside each other and cannot be compared."
        )


def _two_numbers(lessons: Sequence[Study], whole: Sequence[Study]) -> str:
    """Say why the whole model has another d_90 here than over all lessons, where it has."""
    told, seeds = [], 0
    for one in whole:
        over_all = next(study for study in lessons if study.data == one.data)
        seeds = over_all.settings.seeds
        told += [
            f"{method.upper()} {over_all.summary(method)}"
            for method in ASKED
            if over_all.d_90(method) != one.d_90(method)
        ]
    return f"Over all {seeds} seeds the whole model's is {' and '.join(told)}, as above." if told else ""
