"""What a number was made with: versions, machine, processes."""

import gc
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version

import lsf

THREADING = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1)), "OMP_WAIT_POLICY": "PASSIVE"}
"""Read by torch when it is imported, unless the user has set them: one core stays free, idle threads sleep.

Measured on 2 busy cores with two threads that spin: an analysis of 0.8 s took 15 s, a tune of 9 s took 270 s.
"""
EAGER = {} if sys.platform == "darwin" else {"TORCHDYNAMO_DISABLE": "1"}
"""Read by torch, too: nothing is compiled, but on a Mac, for whose GPU bitsandbytes has no kernels.

Elsewhere bitsandbytes would load torch's compiler when it is imported, a second or two of every start, to compile on
CPUs what 8-bit optimizers do with their smallest tensors: with numbers that depend on the machine's C++ compiler.
"""


def settle_torch() -> None:
    """Set how torch uses the CPU, the same in the app and on the command line, so that both give the same numbers.

    Must be called before torch is imported; what the user's environment says stays.
    """
    for name, value in (THREADING | EAGER).items():
        os.environ.setdefault(name, value)
    # On CPUs with bfloat16 it warns of a kernel for 4 bits that it does not find, whatever it is imported for.
    logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect no garbage until `spare_imports`, or the end: looking for some takes a quarter of the time of imports."""
    collected = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collected:
            gc.enable()


def spare_imports() -> None:
    """Leave what exists by now out of every later garbage collection; for processes of our own, once all is imported.

    Every run collects garbage several times. The million objects that imports leave make each collection 0.25 s long
    in place of 0.01 s, a fifth of a short run, and nothing else runs in the process meanwhile.
    """
    gc.collect()
    gc.freeze()
    gc.enable()


LAUNCHED = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What a launcher of several processes sets, all of it; a part of it is what something else left behind."""
LEFT_BEHIND = (
    *LAUNCHED,
    "LOCAL_WORLD_SIZE",
    "PMI_RANK",
    "PMI_SIZE",
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "MV2_COMM_WORLD_RANK",
    "MV2_COMM_WORLD_SIZE",
    "ACCELERATE_USE_FSDP",
    "ACCELERATE_USE_DEEPSPEED",
    "ACCELERATE_USE_MEGATRON_LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG",
)
"""By which accelerate would take a process that is alone for one of several."""
PRECISION = "ACCELERATE_MIXED_PRECISION"
"""Set by `accelerate launch` by its own default file too, which need not know of this run."""
ACCELERATES_OWN = (
    PRECISION,
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS",
    "ACCELERATE_USE_CPU",
    "ACCELERATE_TORCH_DEVICE",
    "ACCELERATE_DYNAMO_BACKEND",
    "ACCELERATE_DYNAMO_MODE",
)
"""What accelerate takes from the environment and a run's spec says: precision, micro-batches, device."""


def launched_processes() -> int:
    """Return how many processes one `accelerate launch` started for this work; 1 where it was none."""
    found = {name: os.environ.get(name, "") for name in LAUNCHED}
    whole = all(found.values()) and all(found[name].isdecimal() for name in LAUNCHED[:3])
    return max(1, int(found["WORLD_SIZE"])) if whole else 1


def launched_rank() -> int:
    """Return this process's number among those that one `accelerate launch` started; 0 where there is one."""
    return int(os.environ["RANK"]) if launched_processes() > 1 else 0


def foreign_precision() -> str | None:
    """Return the mixed precision that the environment asks accelerate for, which a run does not take; else None."""
    asked = os.environ.get(PRECISION, "no").lower()
    return None if asked in ("no", "") else asked


@contextmanager
def own_environment() -> Iterator[None]:
    """Let the environment say nothing to accelerate that a run's spec says, nor that a lone process is one of several.

    It is put back afterwards.
    """
    hidden = ACCELERATES_OWN if launched_processes() > 1 else (*ACCELERATES_OWN, *LEFT_BEHIND)
    kept = {name: os.environ.pop(name) for name in hidden if name in os.environ}
    try:
        yield
    finally:
        for name in hidden:
            os.environ.pop(name, None)
        os.environ.update(kept)


@cache
def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers hang on; looked up once, since that takes 10 ms each."""
    return {name: version(name) for name in ("torch", "transformers")}


def environment(gpu: str | None = None) -> dict[str, str | None]:
    """Return versions and platform for a result file.

    Args:
        gpu: name of the GPU used; None on the CPU.
    """
    return {
        "lsf": lsf.__version__,
        **library_versions(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": gpu,
    }
