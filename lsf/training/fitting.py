"""The training loop: transformers' Trainer over the tuned parameters, watched after every step."""

import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback, ProgressCallback

from lsf.data.encode import EncodedExample
from lsf.errors import RunError
from lsf.reporting import Stop
from lsf.training.batches import IGNORED, OrderedRows, autocasting, collate, score_tokens, training_order

MAX_GRADIENT_NORM = 1.0
"""Gradients are clipped to this norm over all tuned parameters."""
LOGGED_STEPS = 2000
"""A longer run logs means over several steps, so that it has about this many rows."""
_ONE_AT_A_TIME = threading.Lock()


class DivergedError(RunError):
    """The training loss or its gradient is no longer finite: after such a step the weights are not either."""


@dataclass(frozen=True)
class FitSettings:
    """What the loop needs to know; nothing about plans or methods."""

    learning_rate: float
    """AdamW's peak rate."""
    steps: int
    """Optimizer steps."""
    batch_size: int
    """Examples per step."""
    warmup_steps: int
    """Steps of linear warm-up; then linear decay to zero."""
    weight_decay: float
    """AdamW's decoupled weight decay; none on biases and norms."""
    seed: int
    """Of the data order."""
    base_dtype: str
    """Of the base model; bfloat16 is trained under autocast over float32 copies."""


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


@dataclass(frozen=True)
class Fit:
    """What the loop did."""

    steps: int
    """Optimizer steps done."""
    tokens: int
    """Real tokens trained on."""
    seconds: float
    """Wall seconds of those steps."""
    step_seconds: tuple[float, ...]
    """Wall seconds per step, one value per logged row."""
    trainable_params: int
    """Parameters the optimizer held."""
    stopped: Stop | None
    """How it was asked to stop; None where it ran to its end."""


def fit(
    model: Any,
    rows: Sequence[EncodedExample],
    settings: FitSettings,
    folder: Path,
    watch: Callable[[StepRow], None],
    stop: Callable[[], Stop | None],
) -> Fit:
    """Tune the parameters of `model` that want gradients, in place, on completions only.

    The model stays in eval mode: no dropout, in the tuned part neither, so that what is compared is where a model is
    tuned and not how much noise each place gets. Data order depends on the seed alone. One loop runs at a time in a
    process, since Trainer's accelerator and the random generators it seeds are global; both are put back afterwards.

    Args:
        model: a prepared model of its own (lsf.training.methods).
        rows: training rows, end-of-text appended.
        settings: of the loop.
        folder: where Trainer may keep its files.
        watch: called after each logged step with what is known; it may raise to end the loop.
        stop: asked after each step.

    Raises:
        DivergedError: the loss or its gradient is not finite any more.
    """
    data = OrderedRows(rows, training_order(len(rows), settings.steps * settings.batch_size, settings.seed))
    watcher = _Watcher(data.tokens_after_batch(settings.batch_size), watch, stop)
    while not _ONE_AT_A_TIME.acquire(timeout=0.1):
        if stop() is not None:
            return Fit(0, 0, 0.0, (), 0, stop())
    try:
        device = model.get_input_embeddings().weight.device
        with kept_random_state(), kept_in_eval_mode(model), _on(device), torch.enable_grad():
            trainer = CompletionTrainer(model, settings, data, folder, device.type)
            trainer.add_callback(watcher)
            trainer.train()
            optimizer: Any = trainer.optimizer
            held = {id(value): value.numel() for group in optimizer.param_groups for value in group["params"]}
    finally:
        _ONE_AT_A_TIME.release()
    return Fit(
        watcher.step, watcher.tokens, watcher.seconds, tuple(watcher.step_seconds), sum(held.values()), watcher.stopped
    )


class CompletionTrainer(Trainer):
    """transformers' Trainer with our loss, our order of data, no dropout, and nothing printed."""

    def __init__(self, model: Any, settings: FitSettings, data: OrderedRows, folder: Path, device_type: str) -> None:
        """Set it up; see `fit`."""
        self._base_dtype = settings.base_dtype
        arguments = TrainingArguments(
            output_dir=str(folder),
            max_steps=settings.steps,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            weight_decay=settings.weight_decay,
            warmup_steps=settings.warmup_steps,
            lr_scheduler_type="linear",
            optim="adamw_torch_fused",
            max_grad_norm=MAX_GRADIENT_NORM,
            train_sampling_strategy="sequential",
            logging_steps=max(1, math.ceil(settings.steps / LOGGED_STEPS)),
            logging_nan_inf_filter=False,
            save_strategy="no",
            seed=settings.seed,
            use_cpu=device_type == "cpu",
            dataloader_pin_memory=device_type == "cuda",
            remove_unused_columns=False,
            report_to="none",
            disable_tqdm=True,
        )
        arguments._n_gpu = min(arguments.n_gpu, 1)  # one device per worker: no DataParallel over the others
        super().__init__(model=model, args=arguments, train_dataset=data, data_collator=collate)
        self.model_accepts_loss_kwargs = True  # our loss takes the number of targets of the whole optimizer step
        self.remove_callback(PrinterCallback)
        self.remove_callback(ProgressCallback)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """Return the mean loss per target token of the optimizer step, in nats."""
        with autocasting(model, self._base_dtype):
            scores = score_tokens(model, inputs)
        count = (inputs["labels"] != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        loss = scores.nll.sum() / count
        return (loss, scores) if return_outputs else loss

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Return 0: Trainer's own count walks the whole model every step and knows nothing of frozen blocks."""
        return 0


class _Watcher(TrainerCallback):
    """Times the steps, hands rows to `watch`, and stops the loop when asked or when the loss is lost."""

    def __init__(
        self, tokens_after: np.ndarray, watch: Callable[[StepRow], None], stop: Callable[[], Stop | None]
    ) -> None:
        self.step, self.tokens, self.seconds = 0, 0, 0.0
        self.step_seconds: list[float] = []
        self.stopped: Stop | None = None
        self._tokens_after, self._watch, self._stop = tokens_after, watch, stop
        self._mark, self._marked_step = 0.0, 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Start the clock."""
        self._mark = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Count the step; end the loop after it when asked to."""
        self.step = state.global_step
        self.tokens = int(self._tokens_after[self.step - 1])
        if self._asked_to_stop(state, control):
            control.should_log = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Take the time, then let the watcher look; its own time is not counted."""
        state.log_history.clear()
        if not logs or "loss" not in logs:
            return
        elapsed = time.perf_counter() - self._mark
        self.seconds += elapsed
        self.step_seconds.append(elapsed / (self.step - self._marked_step))
        for what, value in (("loss", logs["loss"]), ("gradient", logs["grad_norm"])):
            if not math.isfinite(value):
                raise DivergedError(
                    f"The {what} was no longer finite at step {self.step}; a smaller learning rate may help."
                )
        self._watch(StepRow(self.step, logs["loss"], logs["learning_rate"], self.tokens, self.seconds))
        self._mark, self._marked_step = time.perf_counter(), self.step
        self._asked_to_stop(state, control)

    def _asked_to_stop(self, state: Any, control: Any) -> bool:
        if self.step < state.max_steps and self.stopped is None and (asked := self._stop()) is not None:
            self.stopped = asked
            control.should_training_stop = True
        return self.stopped is not None


@contextmanager
def kept_in_eval_mode(model: Any) -> Iterator[None]:
    """Let nobody switch a model to training mode: Trainer does before each step, walking every module."""
    model.train = lambda mode=True: model
    try:
        yield
    finally:
        del model.train


@contextmanager
def kept_random_state() -> Iterator[None]:
    """Put Python's, numpy's and torch's global generators back as they were: Trainer seeds all of them."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002 what Trainer seeds is this one
    try:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _on(device: torch.device) -> AbstractContextManager[Any]:
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()
