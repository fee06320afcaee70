"""What runs will need before they start, in memory and in time: one alone, several in turn, and what fits instead."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lsf.data.encode import context_length
from lsf.data.task import Task
from lsf.errors import RunError
from lsf.models.devices import free_bytes, is_out_of_memory
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Predicted
from lsf.progress import do_nothing
from lsf.runs.memory_forecast import Forecast, Offer, smaller_spec
from lsf.runs.spec import RunSpec
from lsf.training.attempts import free_memory
from lsf.training.fitting import kept_random_state
from lsf.training.forecaster import Forecaster, is_quick
from lsf.training.processes import computing_on, n_processes
from lsf.training.splits import EncodedSplits, encode_splits, refuse_long_warmup
from lsf.training.time_forecast import Course, course_of


def forecast(
    loaded: LoadedModel,
    task: Task,
    spec: RunSpec,
    free_bytes: int | None = None,
    check: Callable[[], None] = do_nothing,
    offering: bool = True,
    here: bool = True,
) -> Forecast:
    """Say what a run will need, from passes over its longest examples that change nothing.

    Weights, gradients and optimizer follow from counting. What does not fit by counting alone is not tried. Then the
    single longest example is passed forward and backward; where a batch of its like would fit, the batch of the longest
    examples is too, and is timed. No optimizer step is made; the loaded model is not changed, and all is freed.

    Args:
        loaded: the model the spec names.
        task: the data the spec names.
        spec: what is asked.
        free_bytes: memory to plan with; None takes what the device has free now.
        check: raises where nobody waits for the answer any more.
        offering: whether to look for something smaller where it does not fit.
        here: whether the run will be made in this process, which then needs no trial of its own.

    Raises:
        DataError: the data cannot be used.
        PlanError: the plan does not fit the model.
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
    """
    free_memory()
    free = _free_now(loaded) if free_bytes is None else free_bytes
    splits = encode_splits(loaded, task, spec)
    refuse_long_warmup(spec, splits)
    with kept_random_state(), computing_on(spec.threads):
        found = Forecaster(loaded, splits, spec, free, check).forecast(again=not here)
        if found.fits is not False or not offering:
            return found
        return replace(found, offer=_offer(loaded, task, spec, splits, free, check))


def _offer(
    loaded: LoadedModel, task: Task, spec: RunSpec, splits: EncodedSplits, free: int | None, check: Callable[[], None]
) -> Offer | None:
    """Return the first smaller version that fits, with all that was made smaller; None where there is none."""
    words: list[str] = []
    longest = context_length(loaded.context, spec.max_length)
    while (smaller := smaller_spec(spec, longest)) is not None:
        if smaller[0].max_length != spec.max_length:
            splits = encode_splits(loaded, task, smaller[0])
        spec = smaller[0]
        words = [*(word for word in words if word.partition(" ")[0] != smaller[1].partition(" ")[0]), smaller[1]]
        found = Forecaster(loaded, splits, spec, free, check).forecast(again=False)
        if found.fits:
            return Offer(spec, ", ".join(words), found)
    return None


def seconds_beside(
    loaded: LoadedModel, task: Task, found: Forecast, specs: Sequence[RunSpec], check: Callable[[], None] = do_nothing
) -> tuple[float, ...]:
    """Return the wall seconds of runs that follow a forecast one on the same data, by counting beside it.

    Args:
        loaded: the model they name.
        task: the data they name.
        found: forecast of the first run, which reads the base model for all of them.
        specs: of the others; their plans, methods and seeds may differ.
        check: raises where nobody waits for the answer any more.
    """
    splits, free = encode_splits(loaded, task, found.spec), _free_now(loaded)
    with computing_on(found.spec.threads):
        makers = [Forecaster(loaded, splits, spec, free, check) for spec in (found.spec, *specs)]
        own, *others = (replace(one.course, trial=None) if one.is_known(True) else one.course for one in makers)
        scale = sum(found.phases.values()) / sum(replace(own, trial=None).seconds.values())
        searched = [_group(spec) == _group(found.spec) for spec in specs]
        seconds = [course.after_others(known) for course, known in zip(others, searched, strict=True)]
        return tuple(scale * sum(one.values()) for one in seconds)


def seconds_in_turn(loaded: LoadedModel, task: Task, specs: Sequence[RunSpec]) -> tuple[float, ...]:
    """Return the wall seconds of runs that follow one another on the same data, by counting alone.

    Args:
        loaded: the model they name.
        task: the data they name.
        specs: of the runs, which differ in plan, method and seed. The first one reads the base model for all of them,
            of those that tune as many blocks by the same method the first searches a rate for all, and of those that
            differ in seed alone the first tries the longest batch.

    Raises:
        DataError: the data cannot be used.
        PlanError: a plan does not fit the model.
        BadInputError: a method cannot do what its plan asks, or a cache was asked for that has no room.
    """
    splits, free = encode_splits(loaded, task, specs[0]), _free_now(loaded)
    found, searched, tried = list[float](), set[object](), set[object]()
    for spec in specs:
        with computing_on(spec.threads):
            maker = Forecaster(loaded, splits, spec, free, do_nothing)
            known = maker.pass_key in tried or maker.is_known(is_quick(maker.course))
            tried.add(maker.pass_key)
        course = replace(maker.course, trial=None) if known else maker.course
        found.append(sum((course.after_others(_group(spec) in searched) if found else course.seconds).values()))
        searched.add(_group(spec))
    return tuple(found)


def _group(spec: RunSpec) -> object:
    """Return what tells runs on the same data apart that search a rate of their own."""
    return spec.method, len(spec.plan.blocks), spec.plan.beside


def course_of_run(
    loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, check: Callable[[], None], begun: int = 0
) -> Course:
    """Return what a run is expected to go through, by counting: with the trial of `expected`, where it makes one.

    Args:
        loaded: the model the spec names.
        splits: rows of the run.
        spec: what is asked.
        check: called between short timed passes; may raise to end them.
        begun: steps done already, by the checkpoint it goes on from.

    Raises:
        BadInputError, PlanError: as `lsf.training.time_forecast.course_of`.
    """
    course = course_of(loaded, splits, spec, check, begun)
    maker, whole = Forecaster(loaded, splits, spec, _free_now(loaded), check, course), is_quick(course)
    made = n_processes() == 1 and not maker.is_known(whole)
    return replace(course, trial=maker.foresee_trial(whole) if made else None)


def expected(
    loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, course: Course, check: Callable[[], None]
) -> Predicted:
    """Return what a run is expected to cost, for its result: by counting where no trial can be made.

    One example is passed; the whole batch only where that is quick, or memory may not suffice for it: of others the
    memory is that of so many examples one by one, at most, and the seconds are unknown.

    Args:
        loaded: the model the spec names.
        splits: rows of the run.
        spec: what is asked.
        course: of the run, by counting.
        check: raises where the run is asked to end.
    """
    counted = replace(spec.plan.predicted, memory_bytes=None, phases=course.seconds)
    if n_processes() > 1:
        return counted
    try:
        with kept_random_state():
            maker = Forecaster(loaded, splits, spec, _free_now(loaded), check, course)
            return maker.forecast(is_quick(course)).predicted
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        return counted


def _free_now(loaded: LoadedModel) -> int:
    """Return the bytes the model's device has free."""
    return free_bytes(loaded.device)
