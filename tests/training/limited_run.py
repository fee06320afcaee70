"""A process that tunes with little memory left: 60 MB beyond what it holds with its model loaded, then nothing.

At the second run what is free within it is taken too, but for `LEFT`.
"""

import resource
import sys
from pathlib import Path

import torch

from lsf.data.task import Example, split_examples
from lsf.environment import spare_imports
from lsf.errors import LsfError
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.run import tune

PIECE, LEFT = 1 << 14, 8
"""float32 numbers of a piece of memory, and the pieces left free where nothing else is."""


def take_what_is_free() -> list[torch.Tensor]:
    """Return all memory that can still be had, but for a little."""
    taken: list[torch.Tensor] = []
    try:
        while True:
            taken.append(torch.empty(PIECE))
    except RuntimeError:
        del taken[-LEFT:]
        return taken


def limit_to(megabytes: int) -> None:
    """Let the address space grow by no more."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (megabytes << 20), resource.RLIM_INFINITY))


if __name__ == "__main__":
    torch.set_num_threads(1)
    model, runs = sys.argv[1], Path(sys.argv[2])
    long = " the cat is red , the dog is blue ," * 8
    task = split_examples(
        "toy", [Example(f"{long} the {word} is", " red .") for word in ("cat", "dog", "sun", "sky") * 20]
    )
    spec = RunSpec(model, "toy", Plan("tiny", 4, (2, 3)), steps=2, batch_size=256, learning_rate=1e-3, cache="off")
    warm = RunSpec(model, "toy", Plan("tiny", 4, (2, 3)), steps=1, batch_size=1, learning_rate=1e-3, cache="off")
    loaded = load_model(model, "float32", "cpu")
    tune(loaded, task, warm, create_run(runs / "warm", warm))  # so that no library is loaded under the limit
    spare_imports()  # as the command does: a run collects at every attempt
    limit_to(60)
    tune(loaded, task, spec, create_run(runs / "little", spec))
    folder = create_run(runs / "none", spec)
    limit_to(0)
    taken = take_what_is_free()
    try:
        tune(loaded, task, spec, folder)
    except LsfError as error:
        sys.exit(f"{type(error).__name__}: {error}")
