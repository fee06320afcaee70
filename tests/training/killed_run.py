"""A process that tunes until it is killed, which it waits for after a step; started by test_resume.py."""

import signal
import sys
from pathlib import Path
from typing import Any

import torch

from lsf.data.task import Example, Task
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.run import tune


class Waiting(Silent):
    """Waits for its end once a step is logged."""

    def __init__(self, step: int) -> None:
        self.step = step

    def partial(self, value: Any) -> None:
        if value["step"] == self.step:
            signal.pause()


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, runs = sys.argv[1:3]
    steps, checkpoint_steps, last = map(int, sys.argv[3:6])
    examples = tuple(Example(f"the {word} is", " red .") for word in ("cat", "dog", "sun"))
    spec = RunSpec(model, "toy", Plan("tiny", 4, (2,)), steps=steps, batch_size=2, checkpoint_steps=checkpoint_steps)
    loaded, task = load_model(model, "float32", "cpu"), Task("toy", examples, (), ())
    tune(loaded, task, spec, create_run(Path(runs), spec), Waiting(last))
