"""transformers' Trainer with our loss, order of data and checkpoints, watched after every step; the rest is its own."""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lsf.errors import BadInputError, RunError
from lsf.methods.optimization import OPTIMIZERS
from lsf.models.batches import IGNORED, OrderedRows, autocasting, collate_numbered, score_tokens
from lsf.progress import Stop
from lsf.runs.checkpoints import STATE, TUNED, CheckpointManager, Progress
from lsf.runs.result import phase, seconds_so_far
from lsf.training.prefix import Prefix
from lsf.training.processes import said_by_any
from lsf.training.reweighting import Reweighting
from lsf.wording import counted


class DivergedError(RunError):
    """The training loss or its gradient is no longer finite: after such a step the weights are not either."""


@dataclass(frozen=True)
class StepRow:
    """What is known after a logged step."""

    step: int
    """Steps done, from 1."""
    loss: float
    """Mean training loss since the row before, in nats per completion token."""
    learning_rate: float
    """Rate of this step."""
    tokens: int
    """Real tokens trained on so far."""
    seconds: float
    """Wall seconds of training so far; what the watcher does is not counted."""


class StepTimer(TrainerCallback):
    """Times the steps, hands rows to `watch`, says when to checkpoint, and stops the loop when asked or lost."""

    def __init__(
        self,
        tokens_after: np.ndarray,
        watch: Callable[[StepRow], None],
        stop: Callable[[], Stop | None],
        manager: CheckpointManager | None = None,
        start: Progress | None = None,
    ) -> None:
        """Start where a checkpoint left off, or at nothing.

        Args:
            tokens_after: real tokens seen after each step, cumulative.
            watch: called after each logged step.
            stop: asked after each step.
            manager: says when a checkpoint is due.
            start: of the checkpoint the loop goes on from.
        """
        self.step = 0 if start is None else start.step
        self.tokens = 0 if start is None else start.tokens
        self.seconds = 0.0 if start is None else start.seconds
        self.step_seconds = [] if start is None else list(start.step_seconds)
        self.stopped: Stop | None = None
        self._tokens_after, self._watch, self._stop, self._manager = tokens_after, watch, stop, manager
        self._mark, self._marked_step = 0.0, self.step

    def progress(self) -> Progress:
        """Return where the loop stands."""
        about = {} if self._manager is None else self._manager.about
        return Progress(self.step, self.tokens, self.seconds, tuple(self.step_seconds), about, seconds_so_far())

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; end the loop after it when asked to."""
        self.step = state.global_step
        self.tokens = int(self._tokens_after[self.step - 1])
        if self._asked_to_stop(state, control) or self.step == state.max_steps:
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Take the time, then let the watcher look; its own time is not counted."""
        state.log_history.clear()
        if not logs or "loss" not in logs:
            return
        elapsed = time.perf_counter() - self._mark
        self.seconds += elapsed
        self.step_seconds.append(elapsed / max(1, self.step - self._marked_step))
        for what, value in (("loss", logs["loss"]), ("gradient", logs["grad_norm"])):
            if not math.isfinite(value):
                raise DivergedError(
                    f"The {what} was no longer finite at step {self.step}; a smaller learning rate may help."
                )
        self._watch(StepRow(self.step, logs["loss"], logs["learning_rate"], self.tokens, self.seconds))
        self._mark, self._marked_step = time.perf_counter(), self.step
        stopping = self._asked_to_stop(state, control)
        if self.stopped in ("pause", "keep") and said_by_any(self._stop() == "enough"):  # found flat by this reading
            self.stopped = "enough"
        if self._manager is None or self.step == state.max_steps or self.stopped in ("discard", "enough"):
            return  # nothing is to go on from here
        control.should_save = stopping or said_by_any(self._manager.is_due(self.step))

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the time a checkpoint took out of the steps' time."""
        self._mark = time.perf_counter()

    def _asked_to_stop(self, state: Any, control: Any) -> bool:
        if self.step < state.max_steps and self.stopped is None:
            self.stopped = said_by_any(self._stop())
            control.should_training_stop |= self.stopped is not None
        return self.stopped is not None


def whole(value: torch.Tensor) -> torch.Tensor:
    """Return a parameter whole, whichever part of it this process holds; every process must ask for it."""
    parted: Any = value
    return parted.full_tensor() if hasattr(value, "full_tensor") else value


def is_sharded(model: Any) -> bool:
    """Say whether this process holds only parts of a model's parameters."""
    return any(hasattr(value, "full_tensor") for value in model.parameters())


def put_together(sharded: Any, fresh: Any) -> Any:
    """Fill a freshly prepared model with what a sharded one learned.

    Args:
        sharded: the model as FSDP left it after training.
        fresh: prepared by the same method for the same plan; its tuned parameters are overwritten.

    Returns:
        `fresh`, which shares its frozen tensors with the base.

    Raises:
        RunError: a frozen tensor of the sharded model is no longer that of the base (it is named).
    """
    own = dict(fresh.named_parameters())
    with torch.no_grad():
        for name, value in sharded.named_parameters():
            learned = whole(value).to(own[name].device)
            if own[name].requires_grad:
                own[name].copy_(learned)
            elif not torch.equal(own[name], learned):
                raise RunError(f"The frozen tensor {name} changed while it was spread over the processes.")
    return fresh


MAX_GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm over all tuned parameters."""
LOGGED_STEPS = 2000
"""A longer run logs means over several steps, so that it has about this many rows."""


def logging_interval(steps: int) -> int:
    """Return the steps between two rows of a run of so many steps; after the last step there is one in any case."""
    return max(1, math.ceil(steps / LOGGED_STEPS))


@dataclass(frozen=True)
class FitSettings:
    """What the loop needs to know; nothing about plans or methods."""

    learning_rate: float
    """The optimizer's peak rate."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Examples per step, over all processes and micro-batches."""
    warmup_steps: int
    """Steps of linear warm-up; then linear decay to zero."""
    weight_decay: float
    """Decoupled weight decay; none on biases and norms."""
    seed: int
    """Of the data order."""
    base_dtype: str
    """Of the base model; bfloat16 is trained under autocast over float32 copies."""
    micro_batch: int | None = None
    """Examples per forward pass; gradients add up to the batch. None: the whole batch at once."""
    optimizer: str = "adamw"
    """Key in OPTIMIZERS."""
    report_to: str = "none"
    """Where transformers' own integrations send the metrics."""
    n_general: int = 0
    """How many of the rows, the last ones, are general data."""
    general_share: float = 0.0
    """Of the rows trained on that come from those."""
    logged_every: int | None = None
    """Steps between two rows, after which the loop can be ended by what they say; None: `logging_interval`."""

    @property
    def accumulation(self) -> int:
        """Forward passes per optimizer step."""
        return self.batch_size // (self.micro_batch or self.batch_size)


class CompletionTrainer(Trainer):
    """One fit: the mean loss per target token, no dropout, nothing printed."""

    def __init__(
        self,
        model: Any,
        settings: FitSettings,
        data: OrderedRows,
        folder: Path,
        device: torch.device,
        manager: CheckpointManager | None,
        prefix: Prefix | None,
        timer: StepTimer,
        reweighting: Reweighting | None,
    ) -> None:
        """Set it up; see `lsf.training.fitting.fit`."""
        self._base_dtype, self._manager, self._prefix, self._timer = settings.base_dtype, manager, prefix, timer
        self._reweighting = reweighting
        arguments = training_arguments(settings, folder, device)
        arguments.per_device_train_batch_size = share_of_process(
            settings.micro_batch or settings.batch_size, arguments.world_size
        )
        if getattr(model, "is_quantized", False):
            model.is_quantized = False  # a view; Trainer takes nothing but peft's wrapper for values beside packed ones
        super().__init__(model=model, args=arguments, train_dataset=data, data_collator=collate_numbered)
        self.model_accepts_loss_kwargs = True  # our loss takes the number of targets of the whole optimizer step
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)
        self.add_callback(timer)
        if reweighting is not None:
            self.add_callback(reweighting)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss per target token of the optimizer step, in nats; weighted where rows have weights.

        Under several processes it is scaled by their number, since gradients are averaged over them.
        """
        serving = nullcontext() if self._prefix is None else self._prefix.serving(inputs)
        with serving, autocasting(self.model, self._base_dtype):
            scores = score_tokens(self.model, inputs, model)
        count = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        nll = scores.nll
        if self._reweighting is not None:
            nll = nll * self._reweighting.of(inputs["numbers"], nll)[:, None]
        loss = nll.sum() / count
        if num_items_in_batch is not None:
            loss = loss * self.accelerator.num_processes
        return (loss, scores) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: Trainer's own count walks the whole model every step and knows nothing of frozen blocks."""
        return 0

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Write a checkpoint of the tuned values only, through the run's checkpoint manager."""
        if self._manager is None:
            return
        begun = time.perf_counter()
        with phase("checkpoints"):
            self._keep(self._manager, model)
        self._manager.took(time.perf_counter() - begun)

    def _keep(self, manager: CheckpointManager, model: Any) -> None:
        progress = self._timer.progress()
        unfinished = manager.unfinished(progress.step)
        tuned = self._tuned_values(model)
        if self.args.world_size > 1:  # every process has files of its own in it, and the first one closes it
            unfinished.mkdir(parents=True, exist_ok=True)
            self._save_optimizer_and_scheduler(str(unfinished))
            self._save_rng_state(str(unfinished))
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            pausing = self._timer.stopped == "pause"
            manager.keep(progress, lambda place: self._write(place, tuned), needed=pausing)
        self.accelerator.wait_for_everyone()

    def _write(self, place: Path, tuned: dict[str, torch.Tensor]) -> None:
        if self.args.world_size == 1:
            self._save_optimizer_and_scheduler(str(place))
            self._save_rng_state(str(place))
        self.state.save_to_json(str(place / STATE))
        save_file(tuned, place / TUNED)
        if self._reweighting is not None:
            self._reweighting.save(place)

    def _tuned_values(self, model: Any) -> dict[str, torch.Tensor]:
        bare = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        wanted = ((name, value) for name, value in bare.named_parameters() if value.requires_grad)
        return {name: whole(value).detach().contiguous().cpu() for name, value in wanted}

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Put a checkpoint's tuned values into the model.

        Raises:
            RunError: they are not those of this model, plan and method.
        """
        values = load_file(Path(resume_from_checkpoint) / TUNED)
        bare = self.accelerator.unwrap_model(self.model if model is None else model, keep_torch_compile=False)
        own = {name: value for name, value in bare.named_parameters() if value.requires_grad}
        if {n: v.shape for n, v in values.items()} != {n: v.shape for n, v in own.items()}:
            raise RunError(f"The checkpoint {resume_from_checkpoint} holds other tensors than this run tunes.")
        with torch.no_grad():
            for name, value in own.items():
                _fill(value, values[name])
        if self._reweighting is not None:
            self._reweighting.load(Path(resume_from_checkpoint))


def _fill(parameter: Any, value: torch.Tensor) -> None:
    value = value.to(parameter.device)
    if hasattr(parameter, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor  # noqa: PLC0415 only under FSDP

        value = distribute_tensor(value, parameter.device_mesh, parameter.placements)
    parameter.copy_(value)


def share_of_process(batch: int, processes: int) -> int:
    """Return the examples one process takes of a (micro-)batch.

    Raises:
        BadInputError: they cannot be shared out evenly.
    """
    if batch % processes:
        raise BadInputError(
            f"A batch of {counted(batch, 'example')} cannot be shared evenly by {counted(processes, 'process')}."
        )
    return batch // processes


@dataclass
class PlacedArguments(TrainingArguments):
    """Trainer's own settings with the device of the model: theirs is the first GPU, wherever the model is."""

    model_device: str = "cpu"
    """As torch calls it; processes that a launcher started have the GPU of their own number instead."""

    @cached_property
    def _setup_devices(self) -> torch.device:
        found = super()._setup_devices  # makes accelerate's state of this process anew
        state: Any = self.distributed_state
        if state.distributed_type != DistributedType.NO:
            return found
        device = torch.device(self.model_device)
        state.device = device  # where the accelerator puts model and batches
        self._n_gpu = min(self._n_gpu, 1)  # one device per worker: no DataParallel over the others
        if device.type == "cuda":
            torch.cuda.set_device(device)  # it was set to the first one
        return device


def training_arguments(settings: FitSettings, folder: Path, device: torch.device) -> PlacedArguments:
    """Return Trainer's own settings for a fit of a model on a device."""
    return PlacedArguments(
        output_dir=str(folder),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.micro_batch or settings.batch_size,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=settings.warmup_steps,
        lr_scheduler_type="linear",
        optim=OPTIMIZERS[settings.optimizer].optim,
        max_grad_norm=MAX_GRADIENT_NORM,
        train_sampling_strategy="sequential",
        logging_steps=settings.logged_every or logging_interval(settings.steps),
        logging_nan_inf_filter=False,
        save_strategy="no",
        seed=settings.seed,
        use_cpu=device.type == "cpu",
        model_device=str(device),
        dataloader_pin_memory=device.type == "cuda",
        remove_unused_columns=False,
        report_to=settings.report_to,
        run_name=folder.name,
        disable_tqdm=True,
        ddp_find_unused_parameters=False,
    )
