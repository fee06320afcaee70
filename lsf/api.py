"""What a notebook uses: load or wrap a model, read data, analyse, recommend, tune, compare, sweep.

Every function does what the command of the same name does, by the same code, and raises the same sentences. A model
that was not asked to be changed is not changed; Ctrl-C in a cell ends long work and keeps what is there.
"""

import signal
import threading
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import fields, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np

from lsf.criteria import result as records
from lsf.criteria.result import AnalysisSettings
from lsf.data.contents import OPTIONS, DataOptions
from lsf.data.reading import read_data
from lsf.data.report import shared_prompts
from lsf.data.task import Task, with_general
from lsf.display import Analysis, Comparison, Run, Sweep, whole_budget
from lsf.errors import BadInputError, did_you_mean
from lsf.evidence import sweep as sweeps
from lsf.evidence.standing import recommended_here
from lsf.evidence.sweep import SweepSpec
from lsf.files import held_for_writing
from lsf.methods.catalogue import CATALOGUE, check_base
from lsf.plans.plan import Plan, check_plan
from lsf.plans.policies import RECOMMENDED, check_budget
from lsf.plans.tries import Tries
from lsf.progress import Stop, Unheard
from lsf.runs import comparison as tables
from lsf.runs import store
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs, load_run, new_run
from lsf.settings import DTYPES

if TYPE_CHECKING:
    from lsf.models.loading import LoadedModel, Model

Result = TypeVar("Result")


def load(name: str | Path, dtype: str = "auto", device: str = "auto") -> "Model":
    """Load a model by name and check that it is read rightly.

    Args:
        name: `bundled`, `smollm2`, a Hugging Face id, a local folder, or a GGUF file.
        dtype: auto, float32, bfloat16, nf4 or int8.
        device: auto, cuda, mps, cpu or map.

    Returns:
        `.model` is the transformers model itself, `.tokenizer` its tokenizer, `.info` what it is.

    Raises:
        ModelError, SelfCheckError, OutOfMemoryError, BadInputError: see `lsf.models.loading.load_model`.

    Example:
        >>> import lsf
        >>> lsf.load("bundled").info.n_blocks
        8
    """
    from lsf.models.loading import Model, load_model  # noqa: PLC0415 loads torch

    if dtype not in DTYPES:
        raise BadInputError(f"dtype is {dtype!r}; accepted are: {', '.join(DTYPES)}.")
    loaded = load_model(str(name), dtype, device)
    return Model(loaded.model, loaded)


def wrap(model: Any, tokenizer: Any, name: str = "in memory") -> "Model":
    """Take a transformers model that is in memory, on any device, in any dtype, with or without peft around it.

    Args:
        model: a causal LM of a supported family, on one device, or peft's wrapper of one; it is not changed.
        tokenizer: its tokenizer.
        name: what results call it.

    Returns:
        The same kind of object as `load` returns, with `.model` the one given. Of peft's wrapper the base with its
        active adapters is measured, as it answers now; `tune` then tunes blocks of that.

    Raises:
        ModelError: it is no causal LM; adapters that are no change of weights (prompt or prefix tuning) or lie over
            maps in 4 or 8 bits; it is spread over devices; the tokenizer does not belong to it.
        UnknownFamilyError: its architecture is not supported.
        SelfCheckError: our reading does not reproduce its logits.

    Example:
        >>> import lsf
        >>> bundled = lsf.load("bundled")
        >>> mine = lsf.wrap(bundled.model, bundled.tokenizer, "mine")
        >>> mine.model is bundled.model, mine.info.name
        (True, 'mine')
    """
    from lsf.models.loading import Model, wrap_model  # noqa: PLC0415 loads torch

    return Model(model, wrap_model(model, tokenizer, name))


def analyze(
    model: "Model | LoadedModel", data: Any, prompt: str | None = None, completion: str | None = None, **settings: Any
) -> Analysis:
    """Measure which blocks of a model matter for a task: deviations per state, scores per block.

    Args:
        model: of `load` or `wrap`; it is not changed.
        data: anything `read_data` takes.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        **settings: fields of `AnalysisSettings` (limit, criteria, positions, ...) and `DataOptions` (pairs, ...).

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

    given = {name: settings.pop(name) for name in OPTIONS if name in settings}
    loaded, task = _measured(model), _read(data, prompt, completion, DataOptions(**given))
    if (names := settings.get("criteria")) is not None:
        settings["criteria"] = (names,) if isinstance(names, str) else tuple(names)
    asked = _settings(AnalysisSettings, settings)
    found = _interruptible("The analysis", lambda report: measure(loaded, task, asked, report, probe_blocks))
    return Analysis(**vars(found))


def recommend(analysis: records.Analysis, blocks: int) -> Plan:
    """Return the plan that the study, and sweeps of your own, recommend for so many blocks; `plan.reasons` says why.

    On a model that neither holds, several blocks are evenly spaced where that lost least on real models.

    Raises:
        PlanError: so many blocks there are not, or what the recommendation needs was not measured.

    Example:
        >>> import lsf
        >>> found = lsf.analyze(lsf.load("bundled"), "lesson:facts", limit=8, criteria=lsf.RECOMMENDED)
        >>> len(lsf.recommend(found, 3).blocks)
        3
    """
    return recommended_here(analysis, whole_budget(blocks, analysis.model.n_blocks))


def try_depths(
    model: "Model | LoadedModel", data: Any, blocks: int, prompt: str | None = None, completion: str | None = None,
    **settings: Any,
) -> Tries:  # fmt: skip
    """Tune neighbours at five depths, from the first blocks to the last, then the best at two other rates.

    Each for the first half of a run. Where a rate is given, no other one is tried.

    Args:
        model: of `load` or `wrap`; it is not changed.
        data: anything `read_data` takes; its validation examples judge.
        blocks: how many neighbours, 1 .. L.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        **settings: fields of `RunSpec`, of the run that is to be made: method, steps, batch_size, learning_rate, ...

    Returns:
        `.tries` and `.rates` with their validation losses in nats per completion token, and `.plan` of the least, for
        `tune`, which takes its rate with it; None where every one diverged.

    Raises:
        PlanError, DataError, BadInputError: see `lsf.training.depth_search.try_depths`.
        StoppedError: Ctrl-C before the last one was done.

    Example:
        >>> import lsf
        >>> tried = lsf.try_depths(lsf.load("bundled"), "lesson:facts", blocks=2, steps=2)
        >>> [one.blocks for one in tried.tries]
        [(0, 1), (2, 3), (3, 4), (5, 6), (6, 7)]
    """
    from lsf.training.depth_search import try_depths as search  # noqa: PLC0415 loads torch

    options = _options(settings)
    loaded, task = _tunable(model, settings.get("method", "full")), _read(data, prompt, completion, options)
    n_blocks = loaded.info.n_blocks
    check_budget(whole_budget(blocks, n_blocks), n_blocks)
    plan = Plan(loaded.info.name, n_blocks, tuple(range(blocks)))
    given = {**_where(loaded), **settings, **_read_by(data, prompt, completion), "plan": plan}
    spec = _settings(RunSpec, {"model": loaded.info.name, "data": task.name, **given})
    return _interruptible("Trying depths", lambda report: search(loaded, task, spec, report))


def tune(
    model: "Model | LoadedModel", data: Any, plan: Plan, prompt: str | None = None, completion: str | None = None,
    runs: str | Path = "runs", general: Any = None, **settings: Any,
) -> Run:  # fmt: skip
    """Fine-tune what a plan names, test before and after, and prove what moved.

    Args:
        model: of `load` or `wrap`; it is not changed: the run owns copies of what it tunes.
        data: anything `read_data` takes.
        plan: which blocks.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        runs: folder in which the run's own folder is made.
        general: general data, mixed in by `general_share` of each step's rows (0.2); anything `read_data` takes.
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
    from lsf.methods.context import planned_names  # noqa: PLC0415 loads torch
    from lsf.training import measuring  # noqa: PLC0415 loads torch
    from lsf.training import run as running  # noqa: PLC0415

    options = _options(settings)
    check_plan(plan)
    loaded, task = _tunable(model, settings.get("method", "full")), _read(data, prompt, completion, options)
    if general is not None:
        by = task.options if isinstance(data, Task) and not isinstance(general, Task) else options
        task = with_general(task, more := read_data(general, options=replace(by, format="auto")))
        settings["general"] = more.name
    given = {**_where(loaded), **settings, **_read_by(data, prompt, completion), "plan": plan}
    spec = _settings(RunSpec, {"model": loaded.info.name, "data": task.name, **given})
    planned_names(loaded, plan)  # a plan for another model is refused before there is a folder
    with new_run(Path(runs).expanduser(), spec) as folder:
        result = _interruptible("The run", lambda report: running.tune(loaded, task, spec, folder, report))
    if result.unmeasured:
        _interruptible("Its test", lambda report: measuring.measure_kept(loaded, task, folder, report))
    return Run(**vars(load_run(folder)))


def compare(*runs: store.Run | str | Path | list[Any]) -> Comparison:
    """Put runs side by side.

    Args:
        *runs: of `tune`, folders of runs, or folders that hold several; also as a list.

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
    found: list[store.Run] = []
    for run in chain.from_iterable(one if isinstance(one, list) else [one] for one in runs):
        if isinstance(run, store.Run):
            found.append(run)
            continue
        folder = Path(run).expanduser()
        found += list_runs(folder)[::-1] or [load_run(folder)]
    if not found:
        raise BadInputError("There is no run to compare; give runs, or a folder that holds some.")
    each = {run.folder.resolve(): run for run in found}  # one that is named twice was not run twice
    return Comparison(**vars(tables.compare(list(each.values()))))


def sweep(
    model: "Model | LoadedModel", data: Any, prompt: str | None = None, completion: str | None = None,
    json: str | Path | None = None, **settings: Any,
) -> Sweep:  # fmt: skip
    """Measure the truth: tune every plan of a family for the same steps under several seeds, and test each.

    Args:
        model: of `load` or `wrap`; it is not changed.
        data: anything `read_data` takes.
        prompt: template over the data's columns; see `read_data`.
        completion: the same for the completion.
        json: file that holds the sweep after every run; one that was begun there goes on. None keeps it in memory.
        **settings: fields of `SweepSpec`: over (single, suffix, window:K, random:K:N, ...), seeds, steps, ...

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

    options = _options(settings)
    loaded, task = _tunable(model, "full"), _read(data, prompt, completion, options)
    named = {"model": loaded.info.name, "data": task.name}
    spec = _settings(SweepSpec, {**named, **settings, **_read_by(data, prompt, completion)})
    place = None if json is None else Path(json).expanduser()

    def keep(known: sweeps.Sweep) -> None:
        if place is not None:
            known.save(place)

    with nullcontext() if place is None else held_for_writing(place):
        earlier = sweeps.Sweep.load(place) if place is not None and place.exists() else None
        begun = start_sweep(loaded, task, spec, earlier)
        found = _interruptible("The sweep", lambda report: carry_out_sweep(loaded, task, begun, report, keep))
    return Sweep(**vars(found))


def _options(settings: dict[str, Any]) -> DataOptions:
    """Return how data is to be read, of the settings given.

    Raises:
        BadInputError: a template is among them, which has an argument of its own.
    """
    for name in ("prompt", "completion"):
        if f"{name}_template" in settings:
            raise BadInputError(f"There is no setting '{name}_template'; the template is given as {name}=.")
    return DataOptions(**{name: settings[name] for name in OPTIONS if name in settings})


def _read(data: Any, prompt: str | None, completion: str | None, options: DataOptions) -> Task:
    """Return data as a task, and warn of what was found in it, as the commands tell it; not of what is a task."""
    task = read_data(data, prompt, completion, options=options)
    if not isinstance(data, Task):
        for note in (*task.seen.notes, *shared_prompts(task)):
            warnings.warn(note, stacklevel=3)
    return task


def _read_by(data: Any, prompt: str | None, completion: str | None) -> dict[str, Any]:
    """Return what specs record of how data was read beside the options given: of a task, all of that."""
    if not isinstance(data, Task):
        return {"prompt_template": prompt, "completion_template": completion}
    prompt, completion = data.templates
    return {"prompt_template": prompt, "completion_template": completion, **vars(data.options)}


def _measured(model: Any) -> "LoadedModel":
    """Return a model as everything that measures takes it.

    Raises:
        BadInputError: it is none of `load` or `wrap`.
    """
    from lsf.models.loading import LoadedModel, Model  # noqa: PLC0415 loads torch

    if isinstance(model, Model):
        return model.measured()
    if isinstance(model, LoadedModel):
        return model
    make = f"lsf.load({model!r})" if isinstance(model, str) else "lsf.wrap(model, tokenizer)"
    raise BadInputError(f"A {type(model).__name__} was given as the model; make one of it first: {make}.")


def _where(loaded: "LoadedModel") -> dict[str, str]:
    """Return what specs record of where a model is, and in which format."""
    dtype = loaded.info.dtype
    return {"dtype": dtype if dtype in DTYPES else "auto", "device": loaded.info.device.partition(":")[0]}


def _tunable(model: Any, method: str) -> "LoadedModel":
    """Return a model as `_measured` does, refused where the method does not tune it in its dtype."""
    loaded = _measured(model)
    check_base(method, loaded.info.dtype)
    return loaded


def _settings(record: type[Result], given: dict[str, Any]) -> Result:
    """Return a record of settings.

    Raises:
        BadInputError: one that it does not have, or a value out of range.
    """
    known = [item.name for item in fields(cast(Any, record))]
    if unknown := next((name for name in given if name not in known), None):
        told = f"There is no setting {unknown!r}; known are: {', '.join(known)}."
        method = given.get("method", "full")
        if record is RunSpec and method in CATALOGUE and unknown in vars(CATALOGUE[method].options()):
            raise BadInputError(f"{unknown} is an option of the method {method}; write options={{{unknown!r}: ...}}.")
        raise BadInputError(told + did_you_mean(unknown, known))
    return record(**{name: value.item() if isinstance(value, np.generic) else value for name, value in given.items()})


class Unstopped(Unheard):
    """A reporter that asks for a stop once it was told to, and keeps the latest partial result."""

    stop: Stop | None = None
    latest: Any = None

    def partial(self, value: Any) -> None:
        """Keep it."""
        self.latest = value


def _interruptible(what: str, work: Callable[[Unstopped], Result]) -> Result:
    """Let the first Ctrl-C end work early and keep what is there, and the second one interrupt it at once.

    Interrupted at once, what work last handed over as a result of its own kind is returned, where there is any.
    Python's own handler is put back afterwards; outside the main thread, where none can be set, it stays.
    """
    report, before = Unstopped(), signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()

    def ask(number: int, frame: Any) -> None:
        if report.stop is not None and callable(before):
            before(number, frame)
        report.stop = "keep"

    if main:
        signal.signal(signal.SIGINT, ask)
    try:
        found = work(report)
    except KeyboardInterrupt:
        if not isinstance(report.latest, records.Analysis | sweeps.Sweep):
            raise
        found, report.stop = cast(Result, report.latest), "keep"
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
    if report.stop is not None:
        warnings.warn(f"{what} was interrupted; what is returned is what was known by then.", stacklevel=3)
    return found


__all__ = ["RECOMMENDED", "Analysis", "Comparison", "Plan", "Run", "Sweep", "Tries", "analyze", "compare", "load",
           "read_data", "recommend", "sweep", "try_depths", "tune", "wrap"]  # fmt: skip
