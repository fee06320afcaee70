"""Devices: which there are, what they can compute, what is free on them; and models spread over several.

An exhausted device is told from every other failure, and work goes on with less at a time.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import psutil
import torch
from accelerate.utils import align_module_device
from safetensors import SafetensorError
from torch import Tensor, nn

from lsf.environment import launched_processes
from lsf.errors import BadInputError, LsfError, ModelError
from lsf.models.quantised import float_weight, is_packed
from lsf.wording import counted

FLOAT64 = frozenset({"cpu", "cuda"})
"""Device types that have float64; on others (mps) it is an error, so what needs it is brought to the CPU."""


def has_float64(device: torch.device) -> bool:
    """Say whether a device knows float64."""
    return device.type in FLOAT64


def exact(value: Tensor) -> Tensor:
    """Return a tensor in the type of its sums: float64 on the CPU; float32 elsewhere, where that is absent or slow."""
    return value.to(torch.float64 if value.device.type == "cpu" else torch.float32)


def fetched(*values: Tensor) -> list[np.ndarray]:
    """Return tensors as arrays, brought over in one copy: a device is waited for once, whatever their number.

    Args:
        values: on one device, none of them a single number, of types that numpy has.
    """
    if all(value.device.type == "cpu" for value in values):
        return [value.numpy() for value in values]
    order = sorted(range(len(values)), key=lambda index: -values[index].element_size())  # each begins where it may
    parts = [values[index].contiguous().view(torch.uint8).reshape(-1) for index in order]
    whole, found, start = torch.cat(parts).cpu(), {}, 0
    for index, part in zip(order, parts, strict=True):
        like = values[index]
        found[index] = whole[start : start + len(part)].view(like.dtype).reshape(like.shape).numpy()
        start += len(part)
    return [found[index] for index in range(len(values))]


@dataclass(frozen=True)
class Device:
    """One place a model can be put."""

    name: str
    """As torch calls it: `cuda:0`, `mps`, `cpu`."""
    label: str
    """As a person calls it."""
    free_bytes: int | None
    """Memory free now; None where the system does not tell."""
    total_bytes: int | None
    """Memory in all; None where the system does not tell."""

    @property
    def memory(self) -> str:
        """Free memory in words, such as `12.3 of 24.0 GB free`."""
        if self.free_bytes is None or self.total_bytes is None:
            return "free memory unknown"
        return f"{self.free_bytes / 1e9:.1f} of {self.total_bytes / 1e9:.1f} GB free"


def list_devices() -> tuple[Device, ...]:
    """Return every usable device: CUDA GPUs by free memory, then Apple's mps, then the CPU."""
    gpus = []
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        gpus.append(Device(f"cuda:{index}", torch.cuda.get_device_name(index), free, total))
    devices = sorted(gpus, key=lambda gpu: -(gpu.free_bytes or 0))
    memory = psutil.virtual_memory()
    if torch.backends.mps.is_available():
        devices.append(Device("mps", "Apple GPU (memory shared with the CPU)", memory.available, memory.total))
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count() or 1
    devices.append(Device("cpu", f"CPU, {counted(cores, 'core')}", memory.available, memory.total))
    return tuple(devices)


def free_bytes(device: torch.device) -> int:
    """Return the bytes that new tensors on a device can take; on any but CUDA those of main memory."""
    if device.type != "cuda":
        return psutil.virtual_memory().available
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def wait(device: torch.device) -> None:
    """Wait until a device has done all that it was given, before a clock is read; a CPU is never behind."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def give_back_cached() -> None:
    """Give the system back what the allocators of the GPUs here keep for tensors to come."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


_EXHAUSTED = (
    "can't allocate memory", "cannot allocate memory", "not enough memory", "out of memory", "std::bad_alloc",
    "status_alloc_failed",
)  # fmt: skip
"""What is said where memory did not suffice; the last one is CUBLAS_STATUS_ALLOC_FAILED and its like."""

Item = TypeVar("Item")
Found = TypeVar("Found")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory did not suffice.

    It may be Python's, the allocator's of a device (Apple's is known by its words alone) or of the CPU, that of a
    library of CUDA's, or the system's where a file is mapped.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    told = str(error).lower()
    return isinstance(error, RuntimeError | OSError | SafetensorError) and any(words in told for words in _EXHAUSTED)


def in_halves(items: Sequence[Item], work: Callable[[Sequence[Item]], Found], fewest: int = 1) -> list[Found]:
    """Return what work on all items gives; where memory does not suffice, what work on each half gives, and so on.

    Args:
        items: at least one.
        work: called with some of them, in their order.
        fewest: so many are not halved any more.

    Raises:
        RuntimeError, MemoryError: so few do not fit.
    """
    try:
        return [work(items)]
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, LsfError) or not is_out_of_memory(error) or len(items) <= fewest:
            raise
    give_back_cached()  # now that no frame of the failed call holds a tensor any more
    half = len(items) // 2
    return [*in_halves(items[:half], work, fewest), *in_halves(items[half:], work, fewest)]


def choose_device(wish: str = "auto") -> Device:
    """Return the device for a wish: `auto` is the best one, `cuda` the freest GPU.

    Under a launcher of several processes each takes the GPU of its own number (LOCAL_RANK).

    Raises:
        BadInputError: no such device here; the sentence lists those there are.
    """
    devices = list_devices()
    own = f"cuda:{os.environ.get('LOCAL_RANK')}"
    if wish in ("auto", "cuda") and launched_processes() > 1:
        devices = tuple(sorted(devices, key=lambda device: device.name != own))
    for device in devices:
        if wish in ("auto", device.name, device.name.partition(":")[0]):
            return device
    raise BadInputError(f"There is no device {wish!r} here; available are: auto, {', '.join(d.name for d in devices)}.")


def places_of(model: Any) -> tuple[str, ...]:
    """Return where a spread model's modules lie, such as `cuda:0`, `cpu`, `disk`; nothing for one on one device."""
    spread = getattr(model, "hf_device_map", None) or {}
    names = {f"cuda:{place}" if isinstance(place, int) else str(place) for place in spread.values()}
    return tuple(sorted(names)) if len(names) > 1 or "disk" in names else ()


def input_device(model: Any) -> torch.device:
    """Return where token ids go: where the model's parameters are, or where a spread model runs its embedding."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return next(model.parameters()).device if device is None else torch.device(device)


def weight_of(module: nn.Module) -> Tensor:
    """Return a module's weight, fetched from main memory or disk where it is offloaded."""
    with align_module_device(module):
        weight: Any = module.weight
        return weight.detach()


def tensors_of(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every parameter of a module by its dotted name, fetched one submodule at a time where it is offloaded.

    A weight packed in 4 or 8 bits is dequantised in its turn.

    Args:
        module: any module, the whole model included; it is not changed.
        prefix: put before the names.
    """
    for name, part in module.named_modules():
        if not any(True for _ in part.parameters(recurse=False)):
            continue
        with align_module_device(part):
            for own, parameter in part.named_parameters(recurse=False):
                yield (
                    f"{prefix}{name}.{own}" if name else f"{prefix}{own}",
                    float_weight(part) if is_packed(parameter) else parameter.detach(),
                )


def refuse_spread(model: Any, what: str) -> None:
    """Refuse what needs every weight at hand.

    Args:
        model: the loaded model.
        what: what was asked for, as a phrase such as `tuning`.

    Raises:
        ModelError: the model is spread.
    """
    if places := places_of(model):
        raise ModelError(
            f"The model is spread over {', '.join(places)}, where it can be analysed but {what} needs it whole on one "
            "device; take a smaller model, bfloat16 or a larger device."
        )
