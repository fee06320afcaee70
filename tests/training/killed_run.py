"""A process that tunes until it is killed; started by test_resume.py."""

import sys
from pathlib import Path

import torch

from lsf.data.task import Example, Task
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.run import tune

if __name__ == "__main__":
    torch.set_num_threads(1)
    model, runs = sys.argv[1:3]
    steps, checkpoint_steps = map(int, sys.argv[3:5])
    examples = tuple(Example(f"the {word} is", " red .") for word in ("cat", "dog", "sun"))
    spec = RunSpec(model, "toy", Plan("tiny", 4, (2,)), steps=steps, batch_size=2, checkpoint_steps=checkpoint_steps)
    tune(load_model(model, "float32", "cpu"), Task("toy", examples, (), ()), spec, create_run(Path(runs), spec))
