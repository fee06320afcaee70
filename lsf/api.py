"""What a notebook uses: load or wrap a model, read data, analyse, recommend, tune, compare, sweep.

Every function does what the command of the same name does, by the same code, and raises the same sentences. A model
that was not asked to be changed is not changed; Ctrl-C in a cell ends long work and keeps what is there.
"""

import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsf.criteria import result as records
from lsf.criteria.result import AnalysisSettings
from lsf.data.reading import read_data
from lsf.errors import BadInputError
from lsf.evidence.sweep import Sweep, SweepSpec, load_sweep
from lsf.figures.criteria import draw_criteria
from lsf.figures.deviation import draw_deviation
from lsf.figures.report import analysis_page
from lsf.plans.plan import Plan
from lsf.plans.policies import known_scores, make_plan
from lsf.plans.recommend import RECOMMENDED, recommended_plan
from lsf.progress import Stop, Unheard
from lsf.runs import comparison as tables
from lsf.runs.formats import to_frame
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, create_run, list_runs, load_run


@dataclass(frozen=True)
class Analysis(records.Analysis):
    """One analysis, with what a notebook does with it: L+1 states, L blocks, scores per block.

    Fields and units are those of `lsf.criteria.result.Analysis`, which is also analysis.json.
    """

    def recommend(self, blocks: int, criterion: str | None = None, policy: str = "window") -> Plan:
        """Return a plan for so many blocks; `plan.reasons` says why each was chosen.

        Args:
            blocks: how many, 1 to L.
            criterion: one that was scored; None takes what the study of evidence recommends.
            policy: from scores to blocks, where a criterion is given: top_k, window or suffix.

        Raises:
            PlanError: so many blocks there are not, or the criterion was not measured.

        Example:
            >>> import lsf
            >>> plan = lsf.analyze(lsf.load("bundled"), "lesson:facts", limit=8).recommend(blocks=2)
            >>> plan.n_blocks, len(plan.blocks), sorted(plan.reasons) == [str(block) for block in plan.blocks]
            (8, 2, True)
        """
        return recommended_plan(self, blocks) if criterion is None else make_plan(self, criterion, policy, blocks)

    def show(self, plan: Plan | None = None) -> None:
        """Draw the deviation of every state and the scores of every block, in Jupyter or a browser tab."""
        draw_deviation(self).figure.show()
        if self.criteria:
            scores = {name: known_scores(self, name) for name in self.criteria}
            draw_criteria(scores, None if plan is None else plan.criterion).figure.show()

    def _repr_html_(self) -> str:
        return _framed(analysis_page(self))


@dataclass(frozen=True)
class Comparison(tables.Comparison):
    """Runs side by side: a row each, with ratios to the full run, and what makes them less comparable."""

    def _repr_html_(self) -> str:
        said = "".join(f"<p>{_escaped(words)}</p>" for words in self.warnings)
        return to_frame(self).to_html(index=False, na_rep="") + said


def load(name: str, dtype: str = "auto", device: str = "auto") -> Any:
    """Load a model by name and check that it is read rightly.

    Args:
        name: `bundled`, `smollm2`, a Hugging Face id, a local folder, or a GGUF file.
        dtype: auto, float32, bfloat16, nf4 or int8.
        device: auto, cuda, mps, cpu or map.

    Returns:
        A `LoadedModel`: `.model` is the transformers model itself, `.tokenizer`, `.info` what it is.

    Raises:
        ModelError, SelfCheckError, OutOfMemoryError, BadInputError: see `lsf.models.loading.load_model`.

    Example:
        >>> import lsf
        >>> lsf.load("bundled").info.n_blocks
        8
    """
    from lsf.models.loading import load_model  # noqa: PLC0415 loads torch

    return load_model(name, dtype, device)


def wrap(model: Any, tokenizer: Any, name: str = "in memory") -> Any:
    """Take a transformers model that is in memory, on any device, in any dtype, with or without peft around it.

    Args:
        model: a causal LM of a supported family, on one device; it is not changed. peft's adapters are merged into
            copies of the maps they change, so that the model is measured as it answers now.
        tokenizer: its tokenizer.
        name: what results call it.

    Returns:
        A `LoadedModel` over the same memory, with a module tree of its own.

    Raises:
        ModelError, UnknownFamilyError, SelfCheckError: see `lsf.models.loading.wrap_model`.

    Example:
        >>> import lsf
        >>> bundled = lsf.load("bundled")
        >>> lsf.wrap(bundled.model, bundled.tokenizer, "mine").info.name
        'mine'
    """
    from lsf.models.loading import wrap_model  # noqa: PLC0415 loads torch

    return wrap_model(model, tokenizer, name)


def analyze(
    model: Any, data: Any, prompt: str | None = None, completion: str | None = None, **settings: Any
) -> Analysis:
    """Measure which blocks of a model matter for a task: deviations per state, scores per block.

    Args:
        model: of `load` or `wrap`; it is not changed.
        data: anything `read_data` takes.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        **settings: fields of `AnalysisSettings`: limit (examples), criteria (names), positions, batch_size, seed, ...

    Returns:
        L+1 states and L blocks. Where Ctrl-C ended it early, of the examples read by then, with a warning.

    Raises:
        DataError, BadInputError: see `lsf.lens.analyze.analyze`.
        StoppedError: Ctrl-C before the first batch was read.

    Example:
        >>> import lsf
        >>> found = lsf.analyze(lsf.load("bundled"), "lesson:facts", limit=8, criteria=("deviation", "alignment"))
        >>> len(found.states), len(found.scores("alignment"))
        (9, 8)
    """
    from lsf.lens.analyze import analyze as measure  # noqa: PLC0415 loads torch
    from lsf.training.short_runs import probe_blocks  # noqa: PLC0415 loads torch

    task = read_data(data, prompt, completion)
    if "criteria" in settings:
        settings["criteria"] = tuple(settings["criteria"])
    with _interruptible("The analysis") as report:
        found = measure(model, task, AnalysisSettings(**settings), report, probe_blocks)
    return Analysis(**vars(found))


def recommend(analysis: records.Analysis, blocks: int) -> Plan:
    """Return the plan that the study of evidence recommends for so many blocks; `plan.reasons` says why.

    Raises:
        PlanError: so many blocks there are not, or what the recommendation needs was not measured.

    Example:
        >>> import lsf
        >>> found = lsf.analyze(lsf.load("bundled"), "lesson:facts", limit=8, criteria=lsf.RECOMMENDED)
        >>> len(lsf.recommend(found, 3).blocks)
        3
    """
    return recommended_plan(analysis, blocks)


def tune(
    model: Any, data: Any, plan: Plan, prompt: str | None = None, completion: str | None = None,
    runs: str | Path = "runs", **settings: Any,
) -> Run:  # fmt: skip
    """Fine-tune what a plan names, test before and after, and prove what moved.

    Args:
        model: of `load` or `wrap`; it is not changed: the run owns copies of what it tunes.
        data: anything `read_data` takes.
        plan: which blocks.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        runs: folder in which the run's own folder is made.
        **settings: fields of `RunSpec`: method, options, steps, batch_size, learning_rate, seed, ...

    Returns:
        The run: `.folder`, `.spec`, and `.result` with losses in nats per completion token, shares of exact matches,
        costs and the proof. Ctrl-C ends after the step it is in and keeps what was learned.

    Raises:
        RunError, PlanError, DataError, BadInputError: see `lsf.training.run.tune`.

    Example:
        >>> import lsf, tempfile
        >>> plan = lsf.Plan("bundled", 8, (5, 6))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     run = lsf.tune(lsf.load("bundled"), "lesson:facts", plan, runs=folder, steps=2)
        >>> str(run.state), run.result.steps, run.result.proof.frozen_identical
        ('succeeded', 2, True)
    """
    from lsf.training.run import measure_kept  # noqa: PLC0415 loads torch
    from lsf.training.run import tune as carry_out  # noqa: PLC0415

    task = read_data(data, prompt, completion)
    spec = RunSpec(
        model.info.name, task.name, plan, prompt_template=prompt, completion_template=completion,
        **{"device": "auto", **settings},
    )  # fmt: skip
    Path(runs).mkdir(parents=True, exist_ok=True)
    folder = create_run(Path(runs), spec)
    with _interruptible("The run") as report:
        result = carry_out(model, task, spec, folder, report)
    if result.unmeasured:
        measure_kept(model, task, folder, Unstopped())
    return load_run(folder)


def compare(*runs: Run | str | Path) -> Comparison:
    """Put runs side by side.

    Args:
        *runs: of `tune`, folders of runs, or folders that hold several.

    Returns:
        A row per run: quality, costs, and their ratios to the run of the whole model of the same data and seed.

    Raises:
        BadInputError: no run, or a folder that holds none.

    Example:
        >>> import lsf, tempfile
        >>> model, folder = lsf.load("bundled"), tempfile.TemporaryDirectory()
        >>> for blocks in ((5,), (6,)):
        ...     _ = lsf.tune(model, "lesson:facts", lsf.Plan("bundled", 8, blocks), runs=folder.name, steps=2)
        >>> [row.blocks for row in lsf.compare(folder.name).rows]
        ['5', '6']
    """
    found: list[Run] = []
    for run in runs:
        found += [run] if isinstance(run, Run) else list_runs(Path(run))[::-1] or [load_run(Path(run))]
    if not found:
        raise BadInputError("There is no run to compare; give runs, or a folder that holds some.")
    return Comparison(**vars(tables.compare(found)))


def sweep(
    model: Any, data: Any, prompt: str | None = None, completion: str | None = None,
    json: str | Path | None = None, **settings: Any,
) -> Sweep:  # fmt: skip
    """Measure the truth: tune every plan of a family for the same steps under several seeds, and test each.

    Args:
        model: of `load` or `wrap`; it is not changed.
        data: anything `read_data` takes.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        json: file that holds the sweep after every run; one that was begun there goes on. None keeps it in memory.
        **settings: fields of `SweepSpec`: over (single, suffix, prefix, window:K, ends:K), seeds, steps, ...

    Returns:
        The sweep; where Ctrl-C ended it early, with the cells measured by then.

    Raises:
        BadInputError, DataError, RunError: see `lsf.evidence.sweeping`.

    Example:
        >>> import lsf
        >>> found = lsf.sweep(lsf.load("bundled"), "lesson:facts", seeds=1, steps=1, learning_rate=1e-3)
        >>> len(found.cells), len(found.missing)  # base, whole model, and each of the 8 blocks
        (10, 0)
    """
    from lsf.evidence.sweeping import carry_out_sweep, start_sweep  # noqa: PLC0415 loads torch

    task = read_data(data, prompt, completion)
    spec = SweepSpec(
        model.info.name, task.name, prompt_template=prompt, completion_template=completion, **settings
    )  # fmt: skip
    place = None if json is None else Path(json)
    earlier = load_sweep(place) if place is not None and place.exists() else None
    with _interruptible("The sweep") as report:
        begun = start_sweep(model, task, spec, earlier)
        return carry_out_sweep(model, task, begun, report, lambda known: None if place is None else known.save(place))


class Unstopped(Unheard):
    """A reporter that asks for a stop once it was told to."""

    stop: Stop | None = None


@contextmanager
def _interruptible(what: str) -> Iterator[Unstopped]:
    """Let the first Ctrl-C end work early and keep what is there, and the second one interrupt it at once.

    Python's own handler is put back afterwards; outside the main thread, where none can be set, Ctrl-C is as ever.
    """
    report = Unstopped()
    if threading.current_thread() is not threading.main_thread():
        yield report
        return
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, frame: Any) -> None:
        if report.stop is not None and callable(before):
            before(number, frame)
        report.stop = "keep"

    signal.signal(signal.SIGINT, ask)
    try:
        yield report
    finally:
        signal.signal(signal.SIGINT, before)
    if report.stop is not None:
        warnings.warn(f"{what} was interrupted; what is returned is what was known by then.", stacklevel=3)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")


def _framed(page: str) -> str:
    """Return a page that stands alone as part of another one: its script and style stay inside."""
    return f'<iframe srcdoc="{_escaped(page)}" width="100%" height="720" style="border:0"></iframe>'


__all__ = ["RECOMMENDED", "Analysis", "Comparison", "Plan", "Run", "Sweep", "analyze", "compare", "load", "read_data",
           "recommend", "sweep", "tune", "wrap"]  # fmt: skip
