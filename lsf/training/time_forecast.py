"""How long a run will take, by phase: everything it computes, counted, at the speed measured on this machine."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from lsf.data.encode import EncodedExample
from lsf.lens.speed import speed_of
from lsf.models.loading import LoadedModel
from lsf.plans.cost import Load, Speed, backward_flops, forward_flops
from lsf.progress import Phase, Reporter
from lsf.runs.result import PHASES
from lsf.runs.spec import RunSpec
from lsf.training.search_budget import SearchBudget, planned_search
from lsf.training.splits import EncodedSplits
from lsf.training.workload import Workload, batch_load, step_flops, workload_of

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
    "generating": ("generating",),
    "latency": ("latency",),
}
"""Phases as a run goes through them, one after another -> what takes turns in each, by the keys of `PHASES`."""
ON_REQUEST = ("search", "generating", "latency")
"""Stretches of which only runs that ask for them are told."""
COUNTED = 4.0
"""Times the launches of a plain pass that one takes in which every operation's memory is counted."""
MADE = 2.0
"""Times the optimizer's step of a value that it takes to write one to new memory."""
WRITTEN_BYTES = 2e8
"""Bytes a disk takes a second."""


def step_seconds(work: Workload, speed: Speed) -> float:
    """Return the seconds of the mean optimizer step, by counting."""
    passes = 3 * work.step.passes  # backward launches about twice what forward does
    return speed.of(step_flops(work), passes) + speed.value_seconds * work.trainable


@dataclass(frozen=True)
class Trial:
    """What is done to learn what memory a run needs and how long a step takes; see `lsf.training.forecaster`."""

    counted: Load
    """Of the passes, forward and backward, in which the memory of every operation is counted."""
    plain: Load
    """Of the others."""
    made: int
    """Values written to new memory: what is tuned, and its gradients in every pass."""


def trial_seconds(trial: Trial, work: Workload, speed: Speed) -> float:
    """Return the seconds of a trial, by counting."""
    load, launches = trial.counted + trial.plain, COUNTED * trial.counted.passes + trial.plain.passes
    flops = forward_flops(work.sizes, load) + backward_flops(work.sizes, load, work.lowest, work.gradients)
    return speed.of(flops, 3 * launches) + MADE * speed.value_seconds * trial.made


def run_seconds(
    work: Workload,
    speed: Speed,
    step: float | None = None,
    search: SearchBudget | None = None,
    trial: Trial | None = None,
) -> dict[str, float]:
    """Return the wall seconds of a run by phase, keys of `lsf.runs.result.PHASES`.

    Args:
        work: what the run computes.
        speed: of this machine with this model.
        step: seconds of the mean optimizer step, where it was timed; None goes by counting.
        search: of its rate; None where none is made.
        trial: made before the first step; None where none is.
    """

    def forward(load: Load, end: int | None = None) -> float:
        return speed.of(forward_flops(work.sizes, load, end=end), load.passes)

    def above(load: Load) -> float:
        return speed.of(forward_flops(work.sizes, load, work.held), load.passes)

    def both_ways(load: Load) -> float:
        backward = backward_flops(work.sizes, load, work.lowest, work.gradients)
        return forward(load) + speed.of(backward, 2 * load.passes)

    def first(name: str) -> float:
        return above(getattr(work, name)) if name in work.states_left else forward(getattr(work, name))

    one = step_seconds(work, speed) if step is None else step
    return {
        "base": forward(work.written),
        "forecast": 0.0 if trial is None else trial_seconds(trial, work, speed),
        "search": 0.0 if search is None else search.expected_steps * one,
        "preparing": both_ways(work.prepared),
        "prefix": forward(work.fill, work.depth),
        "steps": work.steps * one,
        "validation": first("reading") + (work.n_readings - 1) * above(work.reading) if work.n_readings else 0.0,
        "saving": 4 * work.trainable / WRITTEN_BYTES,
        "test": first("test"),
        "forgetting": first("general"),
        "answers": forward(work.answers),
        "generating": forward(work.generated),
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
    search: SearchBudget | None = None
    """Of the search for its rate; None where none is made."""
    trial: Trial | None = None
    """Made before its first step; None where none is."""

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds by phase, keys of `PHASES`."""
        return run_seconds(self.work, self.speed, self.step, self.search, self.trial)

    def after_others(self, searched: bool = False) -> dict[str, float]:
        """Return the same of a run that follows others on the same data: the base model is on record.

        Args:
            searched: whether one of them has searched a rate for it.
        """
        work = replace(self.work, written=Load(), states_left=frozenset())
        return replace(self, work=work, search=None if searched else self.search).seconds

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
    loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, check: Callable[[], None], begun: int = 0
) -> Course:
    """Return what a run is expected to go through but for a trial, by counting and by the speed of this machine.

    Args:
        loaded: the base model.
        splits: rows of the run.
        spec: what is asked.
        check: called between short timed passes; may raise to end them.
        begun: steps done already, by the checkpoint it goes on from.

    Raises:
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
        PlanError: the plan does not fit the model.
    """
    search = None if begun else planned_search(loaded, splits, spec)
    return Course(workload_of(loaded, splits, spec, begun), speed_of(loaded, check), search=search)


def phases_of(seconds: Mapping[str, float], fill_share: float) -> tuple[Phase, ...]:
    """Return the phases of a run in their order, for a `Reporter`.

    Args:
        seconds: by key of `PHASES`; what is missing takes none.
        fill_share: share of the steps in which the prefix cache is filled.
    """
    found = []
    for key, parts in STRETCHES.items():
        total = sum(seconds.get(part, 0.0) for part in parts)
        if not total and key in ON_REQUEST:
            continue
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
