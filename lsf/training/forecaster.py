"""What a run will need before it starts: memory by part, and a trial of its longest batch without a step."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields, replace
from itertools import cycle, islice
from typing import Any
from weakref import WeakKeyDictionary

import torch

from lsf.data.encode import EncodedExample
from lsf.methods.catalogue import CATALOGUE, options_of
from lsf.methods.context import MethodContext
from lsf.methods.optimization import EMBEDDING_BYTES, OPTIMIZERS, Optimizer
from lsf.methods.registry import METHODS
from lsf.models.devices import is_out_of_memory
from lsf.models.loading import LoadedModel
from lsf.models.quantised import n_values
from lsf.plans.cost import Load, share_of_full
from lsf.plans.plan import Plan
from lsf.runs.memory_forecast import RUN_SHARE, Forecast, Parts, verdict
from lsf.runs.spec import RunSpec
from lsf.training.attempts import free_memory
from lsf.training.caching import blocks_of, decide, expected_bytes, recomputed
from lsf.training.measured_pass import checking, peak_of_pass, time_pass
from lsf.training.splits import EncodedSplits
from lsf.training.time_forecast import Course, Trial, course_of, step_seconds
from lsf.training.workload import activation_bytes, batch_load, lowest_block

_KEPT: WeakKeyDictionary[Any, dict[object, "_Passes"]] = WeakKeyDictionary()
"""Base model -> what was tried -> what it told: a run and the forecast shown before it tell the same numbers."""
KEPT_PASSES = 32
"""Of one model at most; the oldest are dropped first."""
AMPLE = 0.25
"""Share of the free memory below which a run is not tried further than one example: it fits in any case."""
QUICK = 0.5
"""Seconds of a step, by counting, below which a batch is passed all the same, so that its memory is known."""


@dataclass(frozen=True)
class _Passes:
    """What the dry passes told; None where they were not made."""

    own: int | None = None
    """Bytes of tensors the prepared model does not share."""
    optimizer: int | None = None
    """Bytes the optimizer keeps between steps."""
    activations: int | None = None
    """Peak bytes of a pass over the longest micro-batch, gradients left out, or of the optimizer's step."""
    seconds: float | None = None
    """Of a forward and backward pass over it, above the kept prefix."""
    dense: bool = True
    """Whether whole weight gradients are computed."""


class Forecaster:
    """One forecast in the making: counting first, then passes as far as there is room for them."""

    def __init__(
        self,
        loaded: LoadedModel,
        splits: EncodedSplits,
        spec: RunSpec,
        free: int | None,
        check: Callable[[], None],
        course: Course | None = None,
    ) -> None:
        """Count what can be counted.

        Args:
            loaded: the base model; it is not changed.
            splits: rows of the run.
            spec: what is asked.
            free: bytes to plan with; None where they are not known.
            check: raises where nobody waits for the answer any more; called often.
            course: what the run goes through by counting; None counts it where it is asked for.

        Raises:
            BadInputError: the method cannot do what the plan asks, or the cache asked for has no room.
            PlanError: the plan does not fit the model.
        """
        self.loaded, self.splits, self.spec, self.free, self.check = loaded, splits, spec, free, check
        self.micro = spec.micro_batch or spec.batch_size
        self.options = options_of(spec.method, spec.options)
        self.trainable = METHODS[spec.method].count(loaded, spec.plan, self.options)
        self.dense: int | None = None
        self.search = METHODS[spec.method].search
        if self.search is not None:  # such a method tunes blocks alone, and needs most while it searches
            blocks = Plan(spec.plan.model, spec.plan.n_blocks, spec.plan.blocks)
            self.dense = METHODS["full"].count(loaded, blocks, None)
        visits = splits.steps * spec.batch_size
        self.cache, _, self.depth = decide(loaded, spec.plan, splits.train, spec.cache, visits)
        self._course = course

    @property
    def course(self) -> Course:
        """What the run goes through by counting; counted here, the trial that the run makes is part of it."""
        if self._course is None:
            course = course_of(self.loaded, self.splits, self.spec, self.check)
            self._course = replace(course, trial=self.foresee_trial(is_quick(course)))
        return self._course

    def foresee_trial(self, whole: bool) -> Trial | None:
        """Return what `forecast` is going to do, as far as counting tells; None where it does nothing.

        Args:
            whole: as it is given to `forecast`.
        """
        parts, rows = self._parts(_Passes()), self._longest()
        if not self._has_room_for(parts.known):
            return None
        gradients = parts.gradients if self.micro == self.spec.batch_size else 0  # others are there before
        one, plain = batch_load(rows[:1]), Load()
        info, plan = self.loaded.info, self.spec.plan
        twice = info.tied_head and (plan.embedding or plan.head)  # two gradients, there beside their sum
        summands = 8 * info.vocab_size * info.width if twice else 0
        activations = activation_bytes(self.loaded, one, self.spec)
        peak = len(rows) * max(activations, gradients + summands) - gradients
        counted = one
        if self._goes_on(replace(parts, activations=peak).known, whole):
            plain = batch_load(rows)
            counted = one + plain if len(rows) > 1 else one
        if self.loaded.device.type == "cuda":  # whose allocator counts
            counted, plain = Load(), counted + plain
        passes = counted.passes + plain.passes
        return Trial(counted, plain, (parts.own_weights + passes * parts.gradients) // 4)

    def forecast(self, whole: bool = True, again: bool = True) -> Forecast:
        """Try it as far as there is room; all that was taken is given back.

        Args:
            whole: whether to time a batch of the longest examples even where one of them shows that memory is ample.
            again: whether the run makes its trial; not where it is made in this process, which keeps what was told.
        """
        passes, unfit = _Passes(), not self._has_room_for(self._parts(_Passes()).known)
        if not unfit:
            try:
                passes = self._passes_or_kept(whole)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                unfit = True
            finally:
                free_memory()
        parts = self._parts(passes)
        device = str(self.loaded.device)
        fits, sentence = verdict(parts, self.free, device)
        if unfit and fits is not False:  # the device said so itself
            fits, sentence = False, f"{device} ran out of memory in a trial pass over the longest examples."
        course = self.course if again or unfit else replace(self.course, trial=None)
        if passes.seconds is not None:
            course = course.timed(self._longest(), passes.seconds, passes.dense)
        return Forecast(
            self.spec, device, self.trainable, self._flops_ratio(passes.dense), parts, course.step, course.seconds,
            self.free, fits, sentence,
        )  # fmt: skip

    def counted(self) -> Parts:
        """Return the parts by one pass over the longest batch, whatever room there is; weights are not needed."""
        loaded, spec = self.loaded, self.spec
        model = METHODS[self._stand_in].prepare(loaded, spec.plan, self._context())
        kept, stepping = optimizer_bytes(model, OPTIMIZERS[spec.optimizer], loaded.device.type)
        with recomputed(model, loaded, spec.plan, spec.activation_checkpointing):
            peak = self._activations(model, self._longest())
        return self._parts(_Passes(_own_bytes(model, loaded), kept, max(stepping, peak)))

    def _longest(self) -> list[EncodedExample]:
        """Return the longest micro-batch: batches are full, also where the data is smaller than one."""
        longest = sorted(self.splits.train, key=lambda row: -len(row.ids))
        return list(islice(cycle(longest), self.micro))

    def _parts(self, passes: _Passes) -> Parts:
        cached = self.cache == "memory" and self.loaded.device.type != "cuda"  # kept in main memory
        count = self.trainable if self.dense is None else self.dense
        kept = OPTIMIZERS[self.spec.optimizer].least * count if passes.optimizer is None else passes.optimizer
        own = 4 * count if passes.own is None else passes.own
        return Parts(
            own_weights=own if self.dense is None else max(own, 4 * count),
            gradients=4 * count,
            optimizer=kept if self.search is None else self.search.bytes_per_value * count,
            activations=passes.activations,
            cache=expected_bytes(self.splits.train, self.loaded) if cached else 0,
        )

    def _has_room_for(self, count: int) -> bool:
        return self.free is None or count <= RUN_SHARE * self.free

    def _goes_on(self, needed: int, whole: bool) -> bool:
        """Say whether a whole batch is passed after one example told what is needed."""
        ample = self.free is not None and needed <= AMPLE * self.free
        return self._has_room_for(needed) and (whole or not ample)

    def _passes_or_kept(self, whole: bool) -> _Passes:
        """Return what the passes tell, or told when the same was tried before."""
        self.check()
        kept, key = _KEPT.setdefault(self.loaded.model, {}), self.pass_key
        if not self.is_known(whole):
            kept[key] = self._passes(whole)
            for old in list(kept)[:-KEPT_PASSES]:
                del kept[old]
        return kept[key]

    def is_known(self, whole: bool) -> bool:
        """Say whether the passes were made before, so that `forecast` makes none."""
        kept = _KEPT.get(self.loaded.model, {}).get(self.pass_key)
        return kept is not None and not (whole and kept.seconds is None)

    @property
    def pass_key(self) -> object:
        """All that the passes depend on beside the base model; equal means the same passes."""
        spec, plan = self.spec, self.spec.plan
        tuned = plan.blocks, plan.embedding, plan.final_norm, plan.head, plan.modules
        how = (
            spec.method,
            repr(self.options),
            spec.optimizer,
            spec.activation_checkpointing,
            self.micro < spec.batch_size,
        )
        rows = tuple(row.ids for row in self._longest()), tuple((row.n_prompt, row.spans) for row in self._longest())
        return tuned, how, rows, self.depth, torch.get_num_threads()

    def _passes(self, whole: bool) -> _Passes:
        loaded, spec, rows = self.loaded, self.spec, self._longest()
        self.check()
        model = METHODS[self._stand_in].prepare(loaded, spec.plan, self._context())
        own, dense = _own_bytes(model, loaded), _whole_gradients(model, loaded, spec)
        kept, stepping = optimizer_bytes(model, OPTIMIZERS[spec.optimizer], loaded.device.type)
        with recomputed(model, loaded, spec.plan, spec.activation_checkpointing), checking(model, loaded, self.check):
            one = self._activations(model, rows[:1], alike=len(rows))
            scaled = _Passes(own, kept, max(stepping, one), None, dense)
            self.check()
            if not self._goes_on(self._parts(scaled).known, whole):
                return scaled
            at_once = self._activations(model, rows) if len(rows) > 1 else one
            self.check()
            timed = time_pass(model, loaded, rows, self.depth)
        return _Passes(own, kept, max(stepping, at_once), timed.seconds - timed.prefix_seconds, dense)

    def _activations(self, model: Any, rows: Any, alike: int = 1) -> int:
        """Return the peak of a pass above weights and gradients: the gradients of earlier micro-batches stay.

        Args:
            model: as its method begins with it.
            rows: passed at once.
            alike: how many times as many rows the answer is for. A small pass may peak where its gradients are, a large
                one does where its activations are, so the whole of the peak is scaled.
        """
        wanted = [value for value in model.parameters() if value.requires_grad]
        for value in wanted:
            value.grad = torch.zeros_like(value) if self.micro < self.spec.batch_size else None
        there = sum(0 if value.grad is None else value.grad.nbytes for value in wanted)
        peak = peak_of_pass(model, self.loaded, rows)
        gradients = sum(value.grad.nbytes for value in wanted if value.grad is not None)
        return max(0, alike * peak + there - gradients)

    @property
    def _stand_in(self) -> str:
        """The method that the passes are made by: the own one, or the one that stands in for its search."""
        return self.spec.method if self.search is None else self.search.stand_in

    def _context(self) -> MethodContext:
        options = self.options
        if self.search is not None:
            known, asked = fields(CATALOGUE[self._stand_in].options), asdict(self.options)
            options = options_of(self._stand_in, {one.name: asked[one.name] for one in known if one.name in asked})
        return MethodContext(options, self.splits.own, self.spec.seed, self.spec.batch_size, self.loaded.info.dtype)

    def _flops_ratio(self, dense: bool) -> float:
        info, plan = self.loaded.info, self.spec.plan
        rows = self.splits.train
        tokens, targets = (sum(counts) for counts in zip(*((len(row.ids), row.n_targets) for row in rows), strict=True))
        return share_of_full(
            [
                sum(n_values(value) for value in block.parameters())
                for block in blocks_of(self.loaded.model, self.loaded)
            ],
            head=2.0 * info.width * info.vocab_size * targets / tokens,
            attention=2.0 * info.width * sum(len(row.ids) ** 2 for row in rows) / tokens,
            lowest=lowest_block(plan, info),
            gradients=2.0 * self.trainable if not dense else None,
            tuned=plan.blocks,
            tuned_head=plan.head,
        )


def is_quick(course: Course) -> bool:
    """Say whether a step is so short, by counting, that a run tries its whole longest batch in any case."""
    return step_seconds(course.work, course.speed) <= QUICK


def optimizer_bytes(model: torch.nn.Module, optimizer: Optimizer, device_type: str) -> tuple[int, int]:
    """Return the bytes an optimizer keeps for what a prepared model tunes, and those it takes while it steps.

    Args:
        model: as a method's `prepare` made it, or on the meta device.
        optimizer: what steps.
        device_type: where it steps.
    """
    tuned = {id(value): value for value in model.parameters() if value.requires_grad}
    wide = {id(part.weight) for part in model.modules() if isinstance(part, torch.nn.Embedding)}
    wide = wide if optimizer.wide_embeddings else set()
    kept = sum(
        (EMBEDDING_BYTES if key in wide else optimizer.state_bytes)(tuple(value.shape)) for key, value in tuned.items()
    )
    copies = optimizer.step_copies_cpu if device_type == "cpu" else optimizer.step_copies
    return kept, copies * max((4 * value.numel() for value in tuned.values()), default=0)


def _own_bytes(model: Any, loaded: LoadedModel) -> int:
    """Return the bytes of the tensors a prepared model does not share with the loaded one."""
    base, own = _storages(loaded.model), _storages(model)
    return sum(count for storage, count in own.items() if storage not in base)


def _storages(model: Any) -> dict[int, int]:
    """Return the bytes of every storage under a model's tensors, by what tells storages apart, also without memory."""
    found = (value.untyped_storage() for value in (*model.parameters(), *model.buffers()))
    return {storage._cdata: storage.nbytes() for storage in found}


def _whole_gradients(model: Any, loaded: LoadedModel, spec: RunSpec) -> bool:
    """Say whether the backward pass computes gradients of whole matrices of the planned blocks: of the base's own."""
    own, base = blocks_of(model, loaded), blocks_of(loaded.model, loaded)
    matrices: list[Any] = [
        own[block].get_submodule(name)
        for block in spec.plan.blocks
        for name, module in base[block].named_modules()
        if isinstance(weight := getattr(module, "weight", None), torch.Tensor) and weight.ndim > 1
    ]
    with torch.enable_grad():  # the weight of a parametrized module is computed from what is tuned
        return any(module.weight.requires_grad for module in matrices)
