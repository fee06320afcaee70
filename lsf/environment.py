"""What a number was made with: versions, machine, processes."""

import gc
import os
import platform
from importlib.metadata import version

import lsf

THREADING = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 2) - 1)), "OMP_WAIT_POLICY": "PASSIVE"}
"""Read by torch when it is imported, unless the user has set them: one core stays free, idle threads sleep.

Measured on 2 busy cores with two threads that spin: an analysis of 0.8 s took 15 s, a tune of 9 s took 270 s.
"""


def settle_threads() -> None:
    """Set how torch uses the CPU, the same in the app and on the command line, so that both give the same numbers.

    Must be called before torch is imported; what the user's environment says stays.
    """
    for name, value in THREADING.items():
        os.environ.setdefault(name, value)


def spare_imports() -> None:
    """Leave what exists by now out of every later garbage collection; for processes of our own, once all is imported.

    Every run collects garbage several times. The million objects that imports leave make each collection 0.25 s long
    in place of 0.01 s, a fifth of a short run, and nothing else runs in the process meanwhile.
    """
    gc.collect()
    gc.freeze()


def launched_rank() -> int:
    """Return this process's number among those that one `accelerate launch` started; 0 where there is one."""
    return int(os.environ.get("RANK", "0"))


def environment(gpu: str | None = None) -> dict[str, str | None]:
    """Return versions and platform for a result file.

    Args:
        gpu: name of the GPU used; None on the CPU.
    """
    return {
        "lsf": lsf.__version__,
        "torch": version("torch"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpu": gpu,
    }
