"""How long a run will take, by phase: FLOPs of everything it does, at the speed measured on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lsf.analysis.cost import Load, Speed, backward_flops, forward_flops
from lsf.data.encode import EncodedExample
from lsf.jobs.phases import PHASES
from lsf.jobs.spec import RunSpec
from lsf.measure.loading import LoadedModel
from lsf.measure.speed import speed_of
from lsf.reporting import Phase, Reporter
from lsf.training.material import Material
from lsf.training.workload import Workload, batch_load, workload_of

STRETCHES = {
    "reading": ("reading",),
    "base": ("base",),
    "search": ("search",),
    "forecast": ("forecast",),
    "steps": ("preparing", "prefix", "steps", "validation", "checkpoints"),
    "saving": ("proof", "saving"),
    "test": ("test",),
    "forgetting": ("forgetting",),
    "answers": ("answers",),
    "latency": ("latency",),
}
"""Phases as a run goes through them, one after another -> what takes turns in each, by the keys of `PHASES`."""
SEARCH_SHARE = 0.2
"""Of the seconds of a run's steps that a search for its rate takes."""
WRITTEN_BYTES = 2e8
"""Bytes a disk takes a second."""


def step_flops(work: Workload) -> float:
    """Return the FLOPs of the mean optimizer step: forward from the kept prefix, backward as far as it reaches."""
    once = forward_flops(work.sizes, work.step, work.depth)
    again = forward_flops(work.sizes, Load(0, work.step.tokens, work.step.attended), work.lowest)
    backward = backward_flops(work.sizes, work.step, work.lowest, work.gradients)
    return once + backward + (again if work.recomputed else 0.0)


def step_seconds(work: Workload, speed: Speed) -> float:
    """Return the seconds of the mean optimizer step, by counting."""
    passes = 3 * work.step.passes  # backward launches about twice what forward does
    return speed.of(step_flops(work), passes) + speed.value_seconds * work.trainable


def run_seconds(work: Workload, speed: Speed, step: float | None = None) -> dict[str, float]:
    """Return the wall seconds of a run by phase, keys of `lsf.jobs.phases.PHASES`.

    Args:
        work: what the run computes.
        speed: of this machine with this model.
        step: seconds of the mean optimizer step, where it was timed; None goes by counting.
    """

    def forward(load: Load, end: int | None = None) -> float:
        return speed.of(forward_flops(work.sizes, load, end=end), load.passes)

    def above(load: Load) -> float:
        return speed.of(forward_flops(work.sizes, load, work.held), load.passes)

    def both_ways(load: Load) -> float:
        backward = backward_flops(work.sizes, load, work.lowest, work.gradients)
        return forward(load) + speed.of(backward, 2 * load.passes)

    one = step_seconds(work, speed) if step is None else step
    return {
        "base": forward(work.written),
        "forecast": both_ways(work.tried),
        "search": SEARCH_SHARE * work.steps * one if work.searches else 0.0,
        "preparing": both_ways(work.prepared),
        "prefix": forward(work.fill, work.depth),
        "steps": work.steps * one,
        "validation": forward(work.reading) + (work.n_readings - 1) * above(work.reading) if work.n_readings else 0.0,
        "saving": 4 * work.trainable / WRITTEN_BYTES,
        "test": forward(work.test),
        "forgetting": forward(work.general),
        "answers": forward(work.answers),
        "latency": forward(work.timed),
    }


@dataclass(frozen=True)
class Course:
    """What a run is expected to go through."""

    work: Workload
    """What it computes."""
    speed: Speed
    """Of this machine with its model."""
    step: float | None = None
    """Seconds of the mean optimizer step, where a pass was timed; None goes by counting."""

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds by phase, keys of `PHASES`."""
        return run_seconds(self.work, self.speed, self.step)

    @property
    def after_the_first(self) -> dict[str, float]:
        """The same of a run that follows another on the same data: the base model is on record."""
        return run_seconds(replace(self.work, written=Load()), self.speed, self.step)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of the run in their order, for a `Reporter`."""
        return phases_of(self.seconds, self.work.fill_share)

    def timed(self, rows: Sequence[EncodedExample], seconds: float, dense: bool) -> "Course":
        """Return the course after a pass over some rows was timed, forward and backward, above the kept prefix.

        Args:
            rows: of one (micro-)batch.
            seconds: it took.
            dense: whether it computed gradients of whole planned matrices.
        """
        gradients = self.work.gradients if dense else self.work.trainable
        work = replace(self.work, gradients=gradients)
        passed = step_flops(replace(work, step=batch_load(rows)))
        return replace(
            self, work=work, step=seconds * step_flops(work) / passed + self.speed.value_seconds * work.trainable
        )


def course_of(
    loaded: LoadedModel, material: Material, spec: RunSpec, check: Callable[[], None], begun: int = 0
) -> Course:
    """Return what a run is expected to go through, by counting and by the speed of this machine.

    Args:
        loaded: the base model.
        material: rows of the run.
        spec: what is asked.
        check: called between short timed passes; may raise to end them.
        begun: steps done already, by the checkpoint it goes on from.

    Raises:
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
        PlanError: the plan does not fit the model.
    """
    return Course(workload_of(loaded, material, spec, begun), speed_of(loaded, check))


def phases_of(seconds: Mapping[str, float], fill_share: float) -> tuple[Phase, ...]:
    """Return the phases of a run in their order, for a `Reporter`.

    Args:
        seconds: by key of `PHASES`; what is missing takes none.
        fill_share: share of the steps in which the prefix cache is filled.
    """
    found = []
    for key, parts in STRETCHES.items():
        total = sum(seconds.get(part, 0.0) for part in parts)
        extra = seconds.get("prefix", 0.0) if key == "steps" else 0.0
        found.append(Phase(PHASES[key], total, extra, fill_share if extra else 1.0))
    return tuple(found)


def telling(report: Reporter) -> Callable[[str], None]:
    """Return what a run's stopwatch calls at every change of phase, so that the report goes on with it.

    A run's stretches come one after another; what takes turns within one, or looks back, changes nothing. Held-out rows
    of the base model fill the prefix cache long before the steps do.
    """
    order = {part: place for place, parts in enumerate(STRETCHES.values()) for part in parts}
    del order["proof"], order["prefix"]
    names, reached = [PHASES[key] for key in STRETCHES], -1

    def entered(key: str) -> None:
        nonlocal reached
        if (place := order.get(key, -1)) > reached:
            reached = place
            report.phase(names[place])

    return entered
