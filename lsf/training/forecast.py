"""What a run will need before it starts: memory by part, seconds of a step, and what would fit instead."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from lsf.analysis.plan import Predicted
from lsf.data.encode import context_length
from lsf.data.task import Task
from lsf.errors import RunError
from lsf.jobs.smaller import smaller_spec
from lsf.jobs.spec import RunSpec
from lsf.measure.devices import free_bytes
from lsf.measure.exhaustion import is_out_of_memory
from lsf.measure.loading import LoadedModel
from lsf.training.duration import Course, course_of
from lsf.training.evaluation import do_nothing
from lsf.training.fitting import kept_random_state
from lsf.training.footprint import Forecast, Offer
from lsf.training.material import Material, read_material
from lsf.training.memory import free_memory
from lsf.training.processes import n_processes
from lsf.training.threads import computing_on
from lsf.training.trial import Trial


def forecast(
    loaded: LoadedModel,
    task: Task,
    spec: RunSpec,
    free_bytes: int | None = None,
    check: Callable[[], None] = do_nothing,
    offering: bool = True,
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

    Raises:
        DataError: the data cannot be used.
        PlanError: the plan does not fit the model.
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
    """
    free_memory()
    free = _free_now(loaded) if free_bytes is None else free_bytes
    material = read_material(loaded, task, spec)
    with kept_random_state(), computing_on(spec.threads):
        found = Trial(loaded, material, spec, free, check).forecast()
        if found.fits is not False or not offering:
            return found
        return replace(found, offer=_offer(loaded, task, spec, material, free, check))


def _offer(
    loaded: LoadedModel, task: Task, spec: RunSpec, material: Material, free: int | None, check: Callable[[], None]
) -> Offer | None:
    """Return the first smaller version that fits, with all that was made smaller; None where there is none."""
    words: list[str] = []
    longest = context_length(loaded.context, spec.max_length)
    while (smaller := smaller_spec(spec, longest)) is not None:
        if smaller[0].max_length != spec.max_length:
            material = read_material(loaded, task, smaller[0])
        spec = smaller[0]
        words = [*(word for word in words if word.partition(" ")[0] != smaller[1].partition(" ")[0]), smaller[1]]
        found = Trial(loaded, material, spec, free, check).forecast()
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
    material = read_material(loaded, task, found.spec)
    with computing_on(found.spec.threads):
        own = sum(course_of(loaded, material, found.spec, check).seconds.values())
        scale = sum(found.phases.values()) / own
        return tuple(scale * sum(course_of(loaded, material, spec, check).after_the_first.values()) for spec in specs)


def expected(
    loaded: LoadedModel, material: Material, spec: RunSpec, course: Course, check: Callable[[], None]
) -> Predicted:
    """Return what a run is expected to cost, for its result: by counting where no trial can be made.

    One example is passed; the whole batch only where memory may not suffice for it, so seconds are mostly unknown.

    Args:
        loaded: the model the spec names.
        material: rows of the run.
        spec: what is asked.
        course: of the run, by counting.
        check: raises where the run is asked to end.
    """
    counted = replace(spec.plan.predicted, memory_bytes=None, phases=course.seconds)
    if n_processes() > 1:
        return counted
    try:
        with kept_random_state():
            return Trial(loaded, material, spec, _free_now(loaded), check, course).forecast(whole=False).predicted
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RunError) or not is_out_of_memory(error):
            raise
        return counted


def _free_now(loaded: LoadedModel) -> int:
    """Return the bytes the model's device has free."""
    return free_bytes(loaded.device)
