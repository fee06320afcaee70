"""Blocks of a tuned model grafted into its base, and the base's back into the tuned one: which of them did it."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from jaxtyping import Float, Int
from torch import nn

from lsf.criteria.transitions import CONFIDENCE, mean_interval
from lsf.data.encode import EncodedExample
from lsf.data.report import Floor
from lsf.data.task import Task
from lsf.errors import BadInputError, DataError, RunError, RunStateError
from lsf.methods.intrinsic import NAME as COORDINATES
from lsf.methods.parametrization import Parametrization
from lsf.models.batches import by_length
from lsf.models.loading import LoadedModel
from lsf.models.sharing import share_model
from lsf.progress import Reporter, do_nothing
from lsf.runs.graft import GRAFT, WAYS, Difference, Effect, Graft, Mixture, Part, Reading, Way
from lsf.runs.spec import RunSpec
from lsf.runs.store import load_run, tuned_run
from lsf.training.artefacts import load_tuned
from lsf.training.attempts import explained_memory, free_memory
from lsf.training.caching import MEMORY_SHARE, blocks_of, expected_bytes
from lsf.training.evaluation import scored
from lsf.training.prefix import Prefix, States
from lsf.training.processes import computing_on
from lsf.training.splits import read_test_rows


class Grafts:
    """A base model and what a run made of it, of which every mixture by blocks can be had; neither is changed.

    A block is exchanged as a whole module, so that it does not matter how it was tuned: by its own weights, by
    low-rank maps or adapters in it, or by what its tensors are read through.
    """

    def __init__(self, loaded: LoadedModel, tuned: Any) -> None:
        """Take both.

        Args:
            loaded: the base.
            tuned: of `load_tuned`; it is this object's own from now on.
        """
        self.loaded, self._base, self._tuned = loaded, share_model(loaded.model).eval(), tuned
        self._blocks = blocks_of(self._base, loaded), blocks_of(tuned, loaded)
        self.blocks = tuple(place for place, block in enumerate(self._blocks[1]) if _is_tuned(block))
        """Blocks that the run tuned, ascending."""
        self.outside = _is_tuned_outside(tuned, loaded.layout.block_names)
        """Whether it tuned anything outside of blocks."""

    @property
    def parts(self) -> tuple[int | None, ...]:
        """What can be grafted: tuned blocks, and None for all that is tuned outside of blocks."""
        return (*self.blocks, *([None] if self.outside else []))

    @contextmanager
    def model(self, parts: Collection[int | None]) -> Iterator[Any]:
        """Inside the `with`, have the base model with these parts from the tuned one: all of them is the tuned model.

        Args:
            parts: blocks, and None for what lies outside of blocks.

        Raises:
            BadInputError: one that the run did not tune.
        """
        self._check(parts)
        outer = self._tuned if None in parts else self._base
        held: Any = outer.get_submodule(self.loaded.layout.family.blocks)
        before = list(held)
        try:
            for block in self.blocks:
                held[block] = self._blocks[block in parts][block]
            yield outer
        finally:
            for block in self.blocks:
                held[block] = before[block]

    def parts_of(self, parts: Collection[int | None], way: Way) -> tuple[int | None, ...]:
        """Return what is taken from the tuned model where parts are grafted one way: they alone, or all but they.

        Raises:
            BadInputError: one that the run did not tune.
        """
        self._check(parts)
        return tuple(part for part in self.parts if (part in parts) == (way == "alone"))

    def _check(self, parts: Collection[int | None]) -> None:
        if odd := [part for part in parts if part not in self.parts]:
            named = ", ".join("outside of blocks" if part is None else f"block {part}" for part in self.parts)
            what = "anything outside of blocks" if odd[0] is None else f"block {odd[0]}"
            raise BadInputError(f"The run did not tune {what}; it tuned: {named}.")


def _is_tuned(module: nn.Module) -> bool:
    tuned = any(value.requires_grad for value in module.parameters())
    return tuned or any(isinstance(part, Parametrization) for part in module.modules())


def _is_tuned_outside(model: Any, block_names: Sequence[str]) -> bool:
    """Say whether anything is tuned that lies in no block; shared coordinates act through the tensors they move."""
    inside = (*(f"{name}." for name in block_names), f"{COORDINATES}.")
    names = [name for name, value in model.named_parameters() if value.requires_grad]
    names += [name for name, part in model.named_modules() if isinstance(part, Parametrization)]
    return any(not name.startswith(inside) for name in names)


@dataclass(frozen=True)
class _Scores:
    """One model on the test rows, in the order in which `scored` reads them: the same for every model."""

    nll: Float[np.ndarray, " tokens"]
    """Nats of every completion token, row after row."""
    exact: Float[np.ndarray, " rows"]
    """1 where every token of the row is the arg-max."""
    rows: Int[np.ndarray, " tokens"]
    """Row of each token."""

    @property
    def reading(self) -> Reading:
        """Its means."""
        loss = float(self.nll.mean())
        return Reading(loss if np.isfinite(loss) else None, float(self.exact.mean()))


class _Rows:
    """Test rows, and how they are read by one mixture after another."""

    def __init__(
        self,
        grafts: Grafts,
        rows: Sequence[EncodedExample],
        spec: RunSpec,
        report: Reporter,
        check: Callable[[], None],
        mixtures: Collection[int | None],
    ) -> None:
        """Take them, and the lowest exchanged block of each mixture that will be read; None: all of it is passed."""
        self.grafts, self.rows, self.spec, self.report, self.check = grafts, rows, spec, report, check
        loaded = grafts.loaded
        self._groups = list(by_length(rows, spec.batch_size, loaded.model.config.get_text_config().vocab_size))
        self._lengths = [len(row.ids) for row in rows]
        room = MEMORY_SHARE * psutil.virtual_memory().available
        self._keeps = spec.cache != "off" and 4 * expected_bytes(rows, loaded) <= room  # two depths, both ways
        n_blocks = loaded.info.n_blocks
        passes = sum(n_blocks - (part or 0) for part in mixtures)
        self._done, self._total = 0, passes * len(self._groups)

    def read(self, parts: Collection[int | None], message: str, depth: int = 0, below: States | None = None) -> "_Read":
        """Read them with a mixture.

        Args:
            parts: what it has of the tuned model.
            message: what is done, for a reader.
            depth: blocks whose states are computed once, for this mixture and those after it; 0: none.
            below: such states of a smaller depth, which this mixture has too; None where there are none.
        """
        loaded, dtype = self.grafts.loaded, self.grafts.loaded.info.dtype

        def check() -> None:
            self.check()
            self.report.progress(self._done, self._total, message)
            self._done += loaded.info.n_blocks - depth

        with self.grafts.model(parts) as model:
            states = prefix = None
            if depth and self._keeps:
                states = States(depth, self._lengths)
                prefix = Prefix(model, blocks_of(model, loaded), self.rows, dtype, states, below, self._groups)
            found = list(scored(model, self.rows, self.spec.batch_size, dtype, check, prefix))
        counts = torch.cat([one.counted.sum(dim=1) for one in found]).numpy()
        nll = torch.cat([one.nll[one.counted] for one in found]).double().numpy()
        exact = torch.cat([(one.hit | ~one.counted).all(dim=1) for one in found]).double().numpy()
        return _Read(_Scores(nll, exact, np.repeat(np.arange(len(counts)), counts)), states or below)


@dataclass(frozen=True)
class _Read:
    scores: _Scores
    states: States | None
    """The deepest that are known of what lies below."""


def _difference(
    one: np.ndarray, other: np.ndarray, rows: Int[np.ndarray, " values"], confidence: float = CONFIDENCE
) -> Difference | None:
    """Return the mean of one minus the other, paired, with its interval over rows; None where it is not finite."""
    values = one - other
    if not np.isfinite(values).all():
        return None
    found = mean_interval(values[:, None], rows, confidence)
    if found.low is None or found.high is None:
        return Difference(float(found.mean[0]), None, None)
    return Difference(float(found.mean[0]), float(found.low[0]), float(found.high[0]))


def _exact(one: _Scores, other: _Scores) -> Difference:
    found = _difference(one.exact, other.exact, np.arange(len(one.exact)))
    assert found is not None
    return found


def _nats(better: _Scores, worse: _Scores, confidence: float = CONFIDENCE) -> Difference | None:
    """Return by how many nats per token one model's loss is below another's."""
    return _difference(worse.nll, better.nll, better.rows, confidence)


@torch.no_grad()
def read_grafts(
    grafts: Grafts,
    rows: Sequence[EncodedExample],
    spec: RunSpec,
    report: Reporter,
    check: Callable[[], None] = do_nothing,
    floor: Floor | None = None,
) -> Graft:
    """Read test rows with every part alone in the base and with every part taken out of the tuned model.

    A mixture is read from its lowest exchanged block up: states below are the base's, or the tuned model's, and were
    computed for the part before.

    Args:
        grafts: the mixtures.
        rows: at least one, encoded without end-of-text.
        spec: of the run: batch size, cache.
        report: gets progress, and the graft as far as it is known after each part.
        check: called before each batch; may raise to end the reading.
        floor: of the run, on the same rows; None: the base model's readings.
    """
    read = _Rows(grafts, rows, spec, report, check, 2 * (None, *grafts.parts))
    base = read.read((), "reading the base model").scores
    tuned = read.read(grafts.parts, "reading the tuned model").scores
    against = _floor_scores(base, floor)
    known: dict[Way, dict[int | None, _Scores]] = {way: {} for way in WAYS}
    below: dict[Way, States | None] = dict.fromkeys(WAYS)
    for part in grafts.parts:
        name = "what is outside the blocks" if part is None else f"block {part}"
        for way in WAYS:
            found = read.read(grafts.parts_of([part], way), f"grafting {name}", part or 0, below[way])
            known[way][part], below[way] = found.scores, found.states
        report.partial(_graft(base, tuned, against, known))
    return _graft(base, tuned, against, known)


def _floor_scores(base: _Scores, floor: Floor | None) -> _Scores:
    """Return what counts as no gain, loss and exact match each for itself: the base model row by row, or the prior.

    The prior's spread over rows is left out: its means are taken as they are.
    """
    if floor is None:
        return base
    prior = floor.prior
    nll = base.nll if base.nll.mean() <= prior.loss else np.full_like(base.nll, prior.loss)
    exact = base.exact if base.exact.mean() >= prior.exact_match else np.full_like(base.exact, prior.exact_match)
    return _Scores(nll, exact, base.rows)


def _graft(base: _Scores, tuned: _Scores, floor: _Scores, known: dict[Way, dict[int | None, _Scores]]) -> Graft:
    effects = {way: _effects(way, scores, floor, tuned) for way, scores in known.items()}
    parts = tuple(Part(part, effects["alone"][part], effects["without"][part]) for part in known["without"])
    readings = floor.reading, base.reading, tuned.reading
    return Graft(len(base.exact), *readings, _nats(tuned, floor), _exact(tuned, floor), parts)


def _effects(way: Way, known: dict[int | None, _Scores], floor: _Scores, tuned: _Scores) -> dict[int | None, Effect]:
    """Return what every part does one way, and how far it is behind the one that does most."""

    def ends(scores: _Scores) -> tuple[_Scores, _Scores]:
        return (scores, floor) if way == "alone" else (tuned, scores)

    worth = {part: _nats(*ends(scores)) for part, scores in known.items()}
    finite = [part for part in known if worth[part] is not None]
    first = max(finite, key=lambda part: _mean(worth[part])) if finite else None
    pairs = max(1, len(known) * (len(known) - 1) // 2)
    effects = {}
    for part, scores in known.items():
        behind = None
        if finite and part != first:
            most = known[first]
            better, worse = (most, scores) if way == "alone" else (scores, most)
            behind = _nats(better, worse, 1 - (1 - CONFIDENCE) / pairs)
        effects[part] = Effect(scores.reading, worth[part], _exact(*ends(scores)), behind)
    return effects


def _mean(found: Difference | None) -> float:
    return float("-inf") if found is None else found.mean


class _LeftEarly(RunError):
    """It was asked to end; nothing is kept."""


def measure_graft(loaded: LoadedModel, task: Task, folder: Path, report: Reporter) -> Graft:
    """Measure the graft of a run and keep it in the run's folder.

    Args:
        loaded: the model the run's spec names.
        task: the data it names.
        folder: of the run.
        report: gets progress and partial results; any wish to stop ends it, and nothing is kept.

    Raises:
        RunError: the run has not ended, its data changed, or it was resumed meanwhile; or the reading was stopped.
        DataError: the data has no test rows.
        BadInputError: there are no weights, or they were tuned on another base.
        OutOfMemoryError: it does not fit the device.
    """
    run, spec = tuned_run(folder)
    if run.result is None or run.result.data_fingerprint != task.fingerprint:
        raise RunStateError(
            f"The data of {run.id} ({spec.data}) has changed since the run; its graft cannot be measured."
        )
    floor = run.result.floor
    with _grafted(loaded, task, folder, spec, report) as (grafts, rows, check):
        found = read_grafts(grafts, rows, spec, report, check, floor)
    if load_run(folder).result != run.result:
        raise RunError(f"The run {run.id} went on while its graft was measured; measure it again.")
    found.save(folder / GRAFT)
    return found


def measure_mixture(
    loaded: LoadedModel, task: Task, folder: Path, blocks: Sequence[int], source: Literal["base", "tuned"],
    report: Reporter,
) -> Mixture:  # fmt: skip
    """Read test rows with blocks of one model in the other, beside both.

    Args:
        loaded: the model the run's spec names.
        task: whose test rows are read, the run's own data or any other.
        folder: of the run.
        blocks: exchanged; the run must have tuned each.
        source: `tuned` puts the tuned blocks into the base model, `base` the base's into the tuned one.
        report: gets progress; any wish to stop ends it.

    Raises:
        RunError: the run has not ended, or the reading was stopped.
        DataError: the data has no test rows.
        BadInputError: there are no weights, they were tuned on another base, or the run did not tune a block.
        OutOfMemoryError: it does not fit the device.
    """
    _, spec = tuned_run(folder)
    with _grafted(loaded, task, folder, spec, report) as (grafts, rows, check):
        parts = grafts.parts_of(blocks, "alone" if source == "tuned" else "without")
        read = _Rows(grafts, rows, spec, report, check, (None, None, None))
        base = read.read((), "reading the base model").scores
        tuned = read.read(grafts.parts, "reading the tuned model").scores
        mixed = read.read(parts, "reading the mixture").scores
    return Mixture(
        task.name, len(rows), tuple(sorted(blocks)), source, base.reading, tuned.reading, mixed.reading,
        _nats(mixed, base), _exact(mixed, base), _nats(tuned, mixed), _exact(tuned, mixed),
    )  # fmt: skip


@contextmanager
def _grafted(
    loaded: LoadedModel, task: Task, folder: Path, spec: RunSpec, report: Reporter
) -> Iterator[tuple[Grafts, Sequence[EncodedExample], Callable[[], None]]]:
    """Yield mixtures of a run, the test rows they are read on, and what ends that where a stop is asked for."""

    def check() -> None:
        if report.stop is not None:
            raise _LeftEarly("The graft was stopped; nothing is kept of it.")

    rows = read_test_rows(loaded, task, spec)
    if not rows:
        raise DataError(f"The graft is measured on test examples, and {task.name} has none.")
    try:
        with explained_memory(loaded, spec, "grafting"), computing_on(spec.threads), torch.no_grad():
            yield Grafts(loaded, load_tuned(folder, loaded)), rows, check
    finally:
        free_memory()
