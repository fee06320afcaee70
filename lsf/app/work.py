"""What the worker is asked to do for the pages; runs in its thread and never touches Streamlit."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lsf.app.runtime import AppRuntime
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, AnalysisSettings, Trajectories
from lsf.data.contents import DEFAULTS, DataOptions, options_in
from lsf.data.lessons import data_words
from lsf.data.task import Task
from lsf.errors import BadInputError, LsfError
from lsf.files import made_once
from lsf.jobs.job import Report
from lsf.models.info import model_label
from lsf.progress import Forwarding
from lsf.runs.answers import Answer, AnswerSettings, Voice
from lsf.runs.controls import CONTROLS, control_spec
from lsf.runs.graft import Graft
from lsf.runs.lock import MERGED
from lsf.runs.memory_forecast import Forecast
from lsf.runs.spec import METHODS_OWN, RunSpec

WITHOUT_EFFECT = (
    "role", "weight_decay", "warmup_steps", "checkpoint_steps", "checkpoint_seconds", "report_to", "seed",
    "reweight_tau", "proof",
)  # fmt: skip
"""Settings that change nothing about what a run needs."""


@dataclass(frozen=True)
class Source:
    """A model and data, as they were asked for."""

    model: str = "bundled"
    """`bundled`, `smollm2`, a local folder, a GGUF file, or a Hugging Face id."""
    data: str = "lesson:facts"
    """`lesson:NAME`, a local file, or `hub:NAME`."""
    prompt_template: str | None = None
    """Prompt from any columns; None for the column `prompt`."""
    completion_template: str | None = None
    """Completion from any columns; None for the column `completion`."""
    dtype: str = "auto"
    """Of the weights in memory."""
    device: str = "auto"
    """Where the model is put."""
    options: DataOptions = DEFAULTS
    """What the rows are, and how they are handed to the model."""
    general: str | None = field(default=None, compare=False)
    """General data that a run mixes into training, named as data is; no other source for an analysis."""

    @property
    def title(self) -> str:
        """A short name for queues and headings, as people name model and data."""
        return f"{model_label(self.model)} on {data_words(self.data)}"

    def load_task(self) -> Task:
        """Read the data.

        Raises:
            DataError: one sentence on what cannot be used.
        """
        from lsf.data.sources import load_task  # noqa: PLC0415 - lessons are generated on first use

        templates = self.prompt_template, self.completion_template
        return load_task(self.data, *templates, options=self.options, general=self.general)


def source_of(spec: RunSpec) -> Source:
    """Return the model and data a run was asked to use."""
    templates = spec.prompt_template, spec.completion_template
    return Source(spec.model, spec.data, *templates, spec.dtype, spec.device, options_in(spec), spec.general)


@dataclass(frozen=True)
class Request:
    """An analysis as it was asked for."""

    source: Source = field(default_factory=Source)
    """The model and the data."""
    settings: AnalysisSettings = field(default_factory=AnalysisSettings)
    """What is measured."""

    @property
    def title(self) -> str:
        """A short name for queues."""
        return self.source.title


@dataclass(frozen=True)
class Analysed:
    """An analysis, finished or partial, and what was asked for."""

    request: Request
    """What was asked for."""
    analysis: Analysis
    """What was measured."""


@dataclass(frozen=True)
class Asked:
    """Prompts, who answers them, and the answers as far as they are written."""

    voices: tuple[Voice, ...]
    """Who answers; the base model first."""
    prompts: tuple[str, ...]
    """What was asked."""
    settings: AnswerSettings
    """How tokens are chosen."""
    answers: tuple[Answer, ...] = ()
    """In the order in which they are written."""

    def answer(self, voice: Voice, prompt: int) -> Answer | None:
        """Return an answer as far as it is written; None where it has not begun."""
        return next((one for one in self.answers if (one.voice, one.prompt) == (voice, prompt)), None)


@dataclass(frozen=True)
class Foreseen:
    """What a run was found to need, or why that could not be told."""

    spec: RunSpec
    """What was asked."""
    choice: Forecast | None = None
    """What it needs; None where it was refused or something went wrong."""
    full: Forecast | None = None
    """What full fine-tuning of the same would need; None where the run is that itself."""
    refusal: str | None = None
    """Why a run like this cannot be, in one sentence."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Role of a control that may run beside it -> wall seconds it is expected to take."""
    failure: str | None = None
    """What went wrong in finding out, in one sentence; the run itself may still work."""


def without_effect(spec: RunSpec) -> RunSpec:
    """Return a spec without what changes nothing about what the run needs, so that changing that asks nothing anew."""
    defaults: dict[str, Any] = {
        item.name: item.default
        for item in fields(RunSpec)
        if item.name in WITHOUT_EFFECT and item.default is not MISSING
    }
    rate = None if spec.learning_rate is None else METHODS_OWN  # whether one is searched counts, which it is does not
    return replace(spec, **defaults, learning_rate=rate)


class _Labelled(Forwarding):
    """A reporter that hands on partial analyses together with their request."""

    def __init__(self, report: Report, request: Request) -> None:
        super().__init__(report)
        self._request = request

    def partial(self, value: Any) -> None:
        self.report.partial(Analysed(self._request, value))


def _load(runtime: AppRuntime, source: Source, report: Report) -> tuple[Task, Any]:
    """Return the data and the model that are asked for, and say which of them is being loaded."""
    report.progress(0, None, "reading the data")
    task = source.load_task()
    report.progress(0, None, f"loading {source.model}")
    return task, runtime.model_cache().load(source.model, source.dtype, source.device)


def analysis_work(runtime: AppRuntime, request: Request) -> Callable[[Report], Analysed]:
    """Return the job that loads what is asked for and analyses it, streaming."""

    def work(report: Report) -> Analysed:
        from lsf.lens.analyze import analyze  # noqa: PLC0415 - imports torch

        task, loaded = _load(runtime, request.source, report)
        probe = _short_runs(request.settings)
        return Analysed(request, analyze(loaded, task, request.settings, _Labelled(report, request), probe))

    return work


def paths_work(runtime: AppRuntime, found: Analysed, folder: Path) -> Callable[[Report], Trajectories]:
    """Return the job that reads the kept examples of an analysis through what a run tuned; refused on other rows."""

    def work(report: Report) -> Trajectories:
        from lsf.lens.analyze import paths_after  # noqa: PLC0415 - imports torch
        from lsf.training.artefacts import load_tuned  # noqa: PLC0415

        task, loaded = _load(runtime, found.request.source, report)
        if task.fingerprint != found.analysis.data.fingerprint:
            raise BadInputError(f"{task.name} has changed since it was analysed; analyse it again.")
        tuned, n_examples = load_tuned(folder, loaded), found.analysis.data.n_examples
        return paths_after(loaded, tuned, task, found.request.settings, n_examples, report)

    return work


def forecast_work(runtime: AppRuntime, source: Source, spec: RunSpec) -> Callable[[Report], Foreseen]:
    """Return the job that finds out what a run needs, and full fine-tuning beside it."""

    def work(report: Report) -> Foreseen:
        from lsf.training.forecast import forecast, seconds_beside  # noqa: PLC0415 - imports the trainer

        def check() -> None:
            if report.stop is not None:
                raise BadInputError("The page that asked for this was closed; open it again.")

        try:
            task, loaded = _load(runtime, source, report)
            report.progress(0, None, "passing the longest examples through")
            choice = forecast(loaded, task, spec, check=check)
            controls = [control_spec(spec, role) for role in CONTROLS]
            others = seconds_beside(loaded, task, choice, controls, check)
            seconds: dict[str, float] = dict(zip(CONTROLS, others, strict=True))
            beside = control_spec(spec, "full")
            if beside.plan.label == spec.plan.label and beside.how == spec.how:
                return Foreseen(spec, choice, seconds=seconds)
            return Foreseen(spec, choice, forecast(loaded, task, beside, check=check, offering=False), seconds=seconds)
        except LsfError as error:
            check()
            return Foreseen(spec, refusal=str(error))

    return work


class _EnoughError(LsfError):
    """Somebody stopped the writing."""


def ask_work(runtime: AppRuntime, source: Source, asked: Asked) -> Callable[[Report], Asked]:
    """Return the job that lets models answer prompts, streaming; stopped, it keeps what was written."""

    def work(report: Report) -> Asked:
        from lsf.training.asking import ask  # noqa: PLC0415 - imports torch

        known: dict[tuple[Voice, int], Answer] = {}

        def tell(answer: Answer) -> None:
            known[answer.voice, answer.prompt] = answer
            report.partial(replace(asked, answers=tuple(known.values())))

        def check() -> None:
            if report.stop is not None:
                raise _EnoughError

        report.partial(asked)
        report.progress(0, None, f"loading {source.model}")
        loaded = runtime.model_cache().load(source.model, source.dtype, source.device)
        report.progress(0, None, "writing answers")
        with suppress(_EnoughError):
            ask(loaded, asked.voices, asked.prompts, asked.settings, tell, check)
        return replace(asked, answers=tuple(known.values()))

    return work


def graft_work(runtime: AppRuntime, source: Source, folder: Path) -> Callable[[Report], Graft]:
    """Return the job that measures the graft of a run and keeps it in the run's folder."""

    def work(report: Report) -> Graft:
        from lsf.training.graft import measure_graft  # noqa: PLC0415 - imports torch

        task, loaded = _load(runtime, source, report)
        return measure_graft(loaded, task, folder, report)

    return work


def merge_work(runtime: AppRuntime, source: Source, folder: Path) -> Callable[[Report], str]:
    """Return the job that writes a run's whole model, merged, into the run's folder, and says what merging changed."""

    def work(report: Report) -> str:
        from lsf.training.artefacts import save_merged  # noqa: PLC0415 - imports torch

        said = ""

        def write(place: Path) -> None:
            nonlocal said
            said = save_merged(folder, loaded, place).words

        report.progress(0, None, f"loading {source.model}")
        loaded = runtime.model_cache().load(source.model, source.dtype, source.device)
        report.progress(0, None, "merging, comparing logits and writing")
        made_once(folder / MERGED, write)
        return said

    return work


def _short_runs(settings: AnalysisSettings) -> Any:
    """Return what the criterion `probe` needs, imported only where it was asked for."""
    if not any(CRITERIA[name].needs == "runs" for name in settings.criteria):
        return None
    from lsf.training.short_runs import probe_blocks  # noqa: PLC0415 - imports the trainer

    return probe_blocks


def load_work(runtime: AppRuntime, source: Source) -> Callable[[Report], str]:
    """Return the job that puts a model in the model cache, fetching it first where it is on the hub."""

    def work(report: Report) -> str:
        from lsf.models.supported import at_hand, find_model  # noqa: PLC0415 - imports torch

        if not at_hand(source.model):
            report.progress(0, None, f"fetching {source.model}")
            find_model(source.model)
        if report.stop is not None:
            raise BadInputError("Loading was stopped.")
        report.progress(0, None, f"loading {source.model}")
        return runtime.model_cache().load(source.model, source.dtype, source.device).info.name

    return work


def unload_work(runtime: AppRuntime) -> Callable[[Report], int | None]:
    """Return the job that empties the model cache and tells how many bytes came back."""

    def work(report: Report) -> int | None:
        report.progress(0, None, "unloading the model")
        return runtime.model_cache().unload()

    return work
