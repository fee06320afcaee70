"""What a run came to: the frozen records behind result.json (schema_version 1, unknown is null), and its phases."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, ClassVar, Literal

from lsf.data.report import Floor
from lsf.errors import BadInputError, RunError
from lsf.plans.plan import Predicted
from lsf.schema import JsonRecord

PHASES: Mapping[str, str] = {
    "reading": "reading the data",
    "base": "measuring the base model",
    "forecast": "trying the longest batch",
    "search": "searching the learning rate",
    "preparing": "preparing the model",
    "prefix": "computing the frozen prefix",
    "steps": "training",
    "validation": "validating",
    "checkpoints": "writing a checkpoint",
    "saving": "saving the weights",
    "proof": "proving what moved",
    "test": "testing",
    "forgetting": "measuring forgetting",
    "answers": "writing answers",
    "generating": "generating test answers",
    "latency": "timing a forward pass",
    "other": "everything else",
}
"""Key -> what a person reads. `prefix` fills the cache of frozen states, also for held-out rows; `steps` are forward,
backward and optimizer; `base` holds what is read of the base model because it is not on record."""
WORK = ("steps", "prefix")
"""Phases that are the tuning itself; all others watch it."""


class Stopwatch:
    """Seconds by phase, each moment in one phase only: what an inner phase takes is not the outer one's."""

    def __init__(
        self,
        entered: Callable[[str], None] | None = None,
        clock: Callable[[], float] = time.perf_counter,
        before: Mapping[str, float] | None = None,
    ) -> None:
        """Start in `other`.

        Args:
            entered: told the phase at every change, from the thread that works.
            clock: returns seconds.
            before: seconds of phases that count too: of what was done before a pause.
        """
        self._seconds: defaultdict[str, float] = defaultdict(float, before or {})
        self._phase, self._since, self._entered, self._clock = "other", clock(), entered, clock

    @property
    def seconds(self) -> dict[str, float]:
        """Wall seconds of every phase entered so far, in the order of `PHASES`; together all since the start."""
        now = {**self._seconds, self._phase: self._seconds[self._phase] + self._clock() - self._since}
        return {name: now[name] for name in PHASES if name in now}

    def switch(self, name: str) -> str:
        """Go on in a phase, a key of `PHASES`, and return the one before."""
        assert name in PHASES, name
        now, before = self._clock(), self._phase
        self._seconds[before] += now - self._since
        self._phase, self._since = name, now
        if self._entered is not None:
            self._entered(name)
        return before

    @contextmanager
    def running(self) -> Iterator["Stopwatch"]:
        """Let `phase` count on this stopwatch, in this thread, inside the `with`."""
        token = _CURRENT.set(self)
        try:
            yield self
        finally:
            _CURRENT.reset(token)


_CURRENT: ContextVar[Stopwatch | None] = ContextVar("stopwatch", default=None)


def seconds_so_far() -> dict[str, float]:
    """Return the seconds by phase of the stopwatch that runs in this thread; nothing where none does."""
    stopwatch = _CURRENT.get()
    return {} if stopwatch is None else stopwatch.seconds


@contextmanager
def phase(name: str, whole: bool = False) -> Iterator[None]:
    """Count the time inside the `with` as this phase's, where a stopwatch runs in this thread; else change nothing.

    Args:
        name: key in `PHASES`.
        whole: whether phases inside count as this one too: the steps of a search are the search's.
    """
    stopwatch = _CURRENT.get()
    before = None if stopwatch is None else stopwatch.switch(name)
    token = _CURRENT.set(None if whole else stopwatch)
    try:
        yield
    finally:
        _CURRENT.reset(token)
        if stopwatch is not None and before is not None:
            stopwatch.switch(before)


def phases_together(one: Mapping[str, float], other: Mapping[str, float]) -> dict[str, float]:
    """Return seconds by phase of both together."""
    return {name: one.get(name, 0.0) + other.get(name, 0.0) for name in {**one, **other}}


class RunState(StrEnum):
    """Where a run stands; the first two are held by a living process, `interrupted` is not and has no result."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    INTERRUPTED = "interrupted"


ENDED = (RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED)
"""The states a result.json can have."""


@dataclass(frozen=True)
class Metrics:
    """How well a model does on held-out examples; None where it could not be read."""

    loss: float | None = None
    """Mean negative log-likelihood per completion token in nats, end-of-text not counted."""
    perplexity: float | None = None
    """exp(loss)."""
    accuracy: float | None = None
    """Share of completion tokens that are the arg-max under teacher forcing, in [0, 1]."""
    exact_match: float | None = None
    """Share of examples whose every completion token is: greedy decoding would write the completion. In [0, 1]."""
    general_loss: float | None = None
    """Loss in nats per token on text the base model wrote itself; what it gains in tuning is forgetting."""
    n_examples: int = 0
    """Examples read."""
    byte_perplexity: float | None = None
    """exp(nats per byte of UTF-8) of plain text, which models of different tokenizers share; None for all else."""
    generated_match: float | None = None
    """Share of test rows whose answer, found by the spec's pattern in what the model writes greedily, equals the one
    in the completion, in [0, 1]; None where it was not asked for."""
    n_generated: int = 0
    """Rows that were written to."""
    n_unended: int = 0
    """Of those, how many texts were still going on at the most tokens they could have."""


@dataclass(frozen=True)
class Proof:
    """What the run changed and what it did not, checked on the tensors themselves."""

    frozen_tensors: int
    """Tensors the plan leaves alone: parameters and persistent buffers."""
    frozen_hash: str | None
    """SHA-256 over the names and bytes of the frozen tensors before the run; None where proved by identity."""
    frozen_identical: bool
    """True where the same hash, or the same unwritten storages, were found after the run."""
    tuned_tensors: int
    """Tensors the plan tunes."""
    tuned_moved: int
    """How many of them differ from their start."""
    tuned_unmoved: tuple[str, ...]
    """Names of those that do not."""
    trainable_params: int
    """Parameters the optimizer held."""
    planned_params: int
    """Parameters of the planned blocks and modules."""
    level: str = "hash"
    """`identity`: storages and version counters compared, the optimizer held none of them; `hash`: all bytes."""

    @property
    def holds(self) -> bool:
        """True where nothing frozen moved, everything tuned did, and the counts agree."""
        return self.frozen_identical and not self.tuned_unmoved and self.trainable_params == self.planned_params


@dataclass(frozen=True)
class GeneralData:
    """General data that was mixed into training."""

    fingerprint: str | None
    """SHA-256 over the texts of its file, rows with a held-out prompt left out: equal means the same data."""
    n_rows: int
    """Different rows that training drew from."""
    n_dropped: int
    """Rows left out because their completion does not fit, of those that were looked at."""
    n_trained: int
    """Rows trained on, each as often as it was."""
    tokens: int
    """Their real tokens."""
    token_share: float | None
    """Of all tokens trained on, in [0, 1]."""


@dataclass(frozen=True)
class SearchTrial:
    """One short run of the learning-rate search."""

    learning_rate: float
    """Peak rate tried."""
    validation_loss: float | None
    """Loss on the validation split after it, in nats per token, the mean over the rows that judge (a run's own readings
    are means over tokens); None where the loss became infinite."""
    steps: int
    """Optimizer steps it took."""
    general_loss: float | None = None
    """Loss on the base model's own text after it; None where the loss became infinite, or in results before
    2026-11-28."""


@dataclass(frozen=True)
class Sample:
    """One held-out example, and what the model wrote for it."""

    prompt: str
    """What the model was given."""
    target: str
    """The completion that was wanted."""
    before: str
    """Greedy answer of the base model."""
    after: str | None
    """Greedy answer of the tuned model; None where the run did not get that far."""


@dataclass(frozen=True)
class RunResult(JsonRecord):
    """How a run ended and what was measured; written last, so that its existence means the run ended."""

    noun: ClassVar = "run's result"
    refusal: ClassVar = RunError
    state: RunState
    """succeeded, failed or cancelled."""
    reason: str | None = None
    """One sentence on why it failed or was cancelled; None where it succeeded."""
    warnings: tuple[str, ...] = ()
    """What went wrong beside the run and did not end it, a sentence each: a checkpoint that could not be written."""
    failure: str | None = None
    """What kind of failure it was, by the name of its error: OutOfMemoryError, DivergedError, RunError; else None."""
    before: Metrics | None = None
    """Test split and general text, base model."""
    after: Metrics | None = None
    """The same examples, tuned model."""
    trainable_params: int | None = None
    """Parameters the optimizer held."""
    steps: int = 0
    """Optimizer steps done."""
    trained: bool | None = None
    """Whether the training came to its end, so that at most the test is missing; None in results of before."""
    tokens: int = 0
    """Real tokens trained on, padding not counted."""
    seconds: float | None = None
    """Wall seconds of those steps; evaluations, search and loading not counted."""
    prepare_seconds: float | None = None
    """Wall seconds in which the method looked for what it tunes (FISH's information, the lottery ticket's first tuning)
    and made the model; not among `seconds`, `steps` and `tokens`."""
    total_seconds: float | None = None
    """Wall seconds of everything the run did."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds of each phase (lsf.runs.result.PHASES), adding up to `total_seconds`; empty in results of before."""
    step_seconds_median: float | None = None
    """Median wall seconds of an optimizer step."""
    peak_memory_bytes: int | None = None
    """Peak memory of the run above what was there before it."""
    peak_memory_source: str | None = None
    """`cuda`: the allocator's peak; `rss`: growth of the process, sampled."""
    stored_bytes: int | None = None
    """Bytes of what the run saved: the least its method needs to be loaded onto the base again."""
    latency_ratio: float | None = None
    """Seconds of a forward pass of the saved model, merged where it can be, over the base's: median, timed in turn."""
    latency_low: float | None = None
    """Lower end of that median's 95 % interval."""
    latency_high: float | None = None
    """Upper end."""
    predicted: Predicted = field(default_factory=Predicted)
    """What the plan expected."""
    proof: Proof | None = None
    """What moved; None where the run did not get that far."""
    learning_rate: float | None = None
    """Peak rate used, asked for or found."""
    rate_from: str | None = None
    """given, tried, default, search, `search of RUN`, or why the default was taken instead of a search."""
    default_rate: float | None = None
    """What the default is for this model, method and plan, whatever was used."""
    search: tuple[SearchTrial, ...] = ()
    """Trials of the learning-rate search, the group's where another run made it; empty without one."""
    searched_on: str | None = None
    """Label of the plan that the trials tuned, another run's where that made them; None without a search, or where it
    was not noted (before 2026-12-01)."""
    search_steps: int = 0
    """Optimizer steps of the trials this run made."""
    search_seconds: float | None = None
    """Wall seconds of the trials this run made; None where it made none."""
    search_share: float | None = None
    """Predicted FLOPs of those trials and their readings over the run's; None where it made none."""
    floor: Floor | None = None
    """On the test examples, what counts as no gain; None where there are none."""
    kept_step: int | None = None
    """Step whose values were kept: the last one, or that of the best validation reading."""
    samples: tuple[Sample, ...] = ()
    """A few test examples with the answers before and after."""
    seed: int | None = None
    """Of the data order and every other random choice."""
    data_fingerprint: str | None = None
    """SHA-256 over the task's texts: equal means the same data."""
    weights: str | None = None
    """SHA-256 over the base model's weights: equal means the same model, whatever its folder is called."""
    origin: str | None = None
    """What those weights are, where that is not plain from the model's name: published or rounded, and from where."""
    n_train: int | None = None
    """Training examples that fit, general data not counted."""
    general: GeneralData | None = None
    """What of `tokens` was general data; None where there was none."""
    n_dropped: int | None = None
    """Training examples left out because their completion does not fit."""
    n_straddling: int | None = None
    """Training, validation and test examples in which a token straddles the border of prompt and completion."""
    n_cut: int | None = None
    """Training rows that lost tokens at their beginning, so that their target fits; None in results of before."""
    rendering: str | None = None
    """How the texts were made: raw, chat and by which template, plain text, ...; None in results of before."""
    texts: str | None = None
    """SHA-256 of the token ids and targets of the rows it reads; None in results of before."""
    general_text: str | None = None
    """Short hash of the base model's own text, on which `general_loss` was read: equal means the same text; None where
    it was not read, and in results before 2026-12-01."""
    n_held_out_dropped: int | None = None
    """Validation and test examples left out for the same reason, of those that the reading limits take."""
    cache: Mapping[str, Any] | None = None
    """How the frozen prefix was served: kind, reason, depth, bytes, examples served, computed and found there."""
    distance_fell: float | None = None
    """Share of training examples that came nearer to their targets, in [0, 1]; None without re-weighting."""
    micro_batch: int | None = None
    """Examples per forward pass; smaller than the batch where memory did not suffice for it."""
    resumed_at: int | None = None
    """Step of the checkpoint it went on from; None where it ran through."""
    threads: int | None = None
    """CPU threads that computed; numbers may differ in their last bits with others."""
    environment: Mapping[str, str | None] = field(default_factory=dict)
    """Versions, platform, GPU and device."""
    schema_version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse a state that is not an end."""
        if self.state not in ENDED:
            raise BadInputError(f"A result's state is {self.state!r}; accepted are: {', '.join(ENDED)}.")

    @property
    def kept(self) -> bool:
        """True where the run left something to go on from or to use."""
        return self.state is not RunState.CANCELLED or self.after is not None or self.stored_bytes is not None

    @property
    def unmeasured(self) -> bool:
        """True where the run was stopped and kept, and its test is still to come (lsf.training.run)."""
        return self.state is RunState.CANCELLED and self.stored_bytes is not None and self.after is None

    @property
    def test_left(self) -> bool:
        """True where the run was paused in its test: its training is whole, and the test alone is still to come."""
        return self.unmeasured and bool(self.trained)

    @property
    def measured_on(self) -> tuple[str | None, ...]:
        """Weights, data, device and dtype: numbers of runs that differ in them are not put beside each other."""
        place = self.environment.get("device"), self.environment.get("dtype")
        return self.weights, self.data_fingerprint, *place

    @property
    def measured(self) -> Predicted:
        """What the run really cost, in the terms of the plan's prediction."""
        return Predicted(
            trainable_params=self.trainable_params,
            memory_bytes=self.peak_memory_bytes,
            step_seconds=self.step_seconds_median,
            phases=self.phases,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as plain JSON values: schema_version first, metrics and costs side by side."""
        plain = asdict(self)
        metrics = {"before": plain.pop("before"), "after": plain.pop("after")}
        head = {"schema_version": plain.pop("schema_version"), "state": str(self.state), "reason": self.reason}
        cost = {"predicted": plain.pop("predicted"), "measured": asdict(self.measured)}
        return {**head, "metrics": metrics, **cost, **{key: plain[key] for key in plain if key not in head}}

    @classmethod
    def arranged(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return what a file holds with its metrics as fields, and without what is said of the costs a second time."""
        if not isinstance(value.get("metrics"), dict):
            return value
        return {key: value[key] for key in value if key not in ("metrics", "measured")} | value["metrics"]
