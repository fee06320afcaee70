"""What a number was made with: versions and machine."""

import platform
from importlib.metadata import version

import lsf


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
