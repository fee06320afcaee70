"""What was tuned, as a file: the tuned tensors alone."""

from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file

from lsf import __version__
from lsf.errors import RunError
from lsf.jobs.holding import WEIGHTS
from lsf.jobs.spec import RunSpec

TUNED = "tuned.safetensors"


def save_weights(model: Any, loaded: Any, spec: RunSpec, folder: Path) -> int:
    """Write the tuned tensors to weights/tuned.safetensors, whole or not at all, with what they belong to as metadata.

    They are written as they were trained: float32, also over a bfloat16 base.

    Returns:
        Bytes on disk.

    Raises:
        RunError: the folder was removed, or the disk does not take them.
    """
    tensors = {n: p.detach().contiguous().cpu() for n, p in model.named_parameters() if p.requires_grad}
    plan = spec.plan
    about = {"format": "pt", "lsf": __version__, "model": spec.model, "method": spec.method, "plan": plan.label}
    place = folder / WEIGHTS / TUNED
    unfinished = place.with_suffix(".tmp")
    try:
        place.parent.mkdir(exist_ok=True)
        save_file(tensors, unfinished, metadata=about)
        unfinished.replace(place)
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():
            raise RunError(f"The run folder {folder} was removed while the run was going on.") from None
        raise RunError(f"Cannot write the weights of {folder.name}: {error}.") from error
    return place.stat().st_size
