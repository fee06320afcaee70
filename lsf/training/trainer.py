"""transformers' Trainer with our loss, our order of data and our checkpoints; everything else is its own."""

import math
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from transformers import Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lsf.errors import BadInputError, RunError
from lsf.jobs.checkpoints import TUNED, Keeper
from lsf.jobs.phases import phase
from lsf.training.batches import IGNORED, OrderedRows, autocasting, collate_numbered, score_tokens
from lsf.training.optimizers import OPTIMIZERS
from lsf.training.prefix import Prefix
from lsf.training.reweighting import Reweighting
from lsf.training.sharding import whole
from lsf.training.watching import Watcher

MAX_GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm over all tuned parameters."""
LOGGED_STEPS = 2000
"""A longer run logs means over several steps, so that it has about this many rows."""


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
        keeper: Keeper | None,
        prefix: Prefix | None,
        watcher: Watcher,
        reweighting: Reweighting | None,
    ) -> None:
        """Set it up; see `lsf.training.fitting.fit`."""
        self._base_dtype, self._keeper, self._prefix, self._watcher = settings.base_dtype, keeper, prefix, watcher
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
        self.add_callback(watcher)
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
        """Write a checkpoint of the tuned values only, through the run's keeper."""
        if self._keeper is None:
            return
        begun = time.perf_counter()
        with phase("checkpoints"):
            self._keep(self._keeper, model)
        self._keeper.took(time.perf_counter() - begun)

    def _keep(self, keeper: Keeper, model: Any) -> None:
        progress = self._watcher.progress()
        unfinished = keeper.unfinished(progress.step)
        tuned = self._tuned_values(model)
        if self.args.world_size > 1:  # every process has files of its own in it, and the first one closes it
            unfinished.mkdir(parents=True, exist_ok=True)
            self._save_optimizer_and_scheduler(str(unfinished))
            self._save_rng_state(str(unfinished))
            self.accelerator.wait_for_everyone()
        if self.args.should_save:
            pausing = self._watcher.stopped == "pause"
            keeper.keep(progress, lambda place: self._write(place, tuned), needed=pausing)
        self.accelerator.wait_for_everyone()

    def _write(self, place: Path, tuned: dict[str, torch.Tensor]) -> None:
        if self.args.world_size == 1:
            self._save_optimizer_and_scheduler(str(place))
            self._save_rng_state(str(place))
        self.state.save_to_json(str(place / "trainer_state.json"))
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
        raise BadInputError(f"A batch of {batch} examples cannot be shared evenly by {processes} processes.")
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
        logging_steps=max(1, math.ceil(settings.steps / LOGGED_STEPS)),
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
