"""What is seen of the loop from outside: rows after logged steps, the clock, and the ways to end it early."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from transformers import TrainerCallback

from lsf.errors import RunError
from lsf.jobs.checkpoints import Keeper, Progress
from lsf.reporting import Stop


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


class Watcher(TrainerCallback):
    """Times the steps, hands rows to `watch`, says when to checkpoint, and stops the loop when asked or lost."""

    def __init__(
        self,
        tokens_after: np.ndarray,
        watch: Callable[[StepRow], None],
        stop: Callable[[], Stop | None],
        keeper: Keeper | None = None,
        start: Progress | None = None,
    ) -> None:
        """Start where a checkpoint left off, or at nothing.

        Args:
            tokens_after: real tokens seen after each step, cumulative.
            watch: called after each logged step.
            stop: asked after each step.
            keeper: says when a checkpoint is due.
            start: of the checkpoint the loop goes on from.
        """
        self.step = 0 if start is None else start.step
        self.tokens = 0 if start is None else start.tokens
        self.seconds = 0.0 if start is None else start.seconds
        self.step_seconds = [] if start is None else list(start.step_seconds)
        self.stopped: Stop | None = None
        self._tokens_after, self._watch, self._stop, self._keeper = tokens_after, watch, stop, keeper
        self._mark, self._marked_step = 0.0, self.step

    def progress(self) -> Progress:
        """Return where the loop stands."""
        about = {} if self._keeper is None else self._keeper.about
        return Progress(self.step, self.tokens, self.seconds, tuple(self.step_seconds), about)

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
        self.step_seconds.append(elapsed / max(1, self.step - self._marked_step))
        for what, value in (("loss", logs["loss"]), ("gradient", logs["grad_norm"])):
            if not math.isfinite(value):
                raise DivergedError(
                    f"The {what} was no longer finite at step {self.step}; a smaller learning rate may help."
                )
        self._watch(StepRow(self.step, logs["loss"], logs["learning_rate"], self.tokens, self.seconds))
        self._mark, self._marked_step = time.perf_counter(), self.step
        stopping = self._asked_to_stop(state, control) and self.stopped not in ("discard", "enough")
        if self._keeper is not None and self.step < state.max_steps and (stopping or self._keeper.is_due(self.step)):
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the time a checkpoint took out of the steps' time."""
        self._mark = time.perf_counter()

    def _asked_to_stop(self, state: Any, control: Any) -> bool:
        if self.step < state.max_steps and self.stopped is None and (asked := self._stop()) is not None:
            self.stopped = asked
            control.should_training_stop = True
        return self.stopped is not None
