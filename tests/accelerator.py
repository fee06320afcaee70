"""A pretend accelerator: a device type of its own over main memory, on which what real ones punish is an error.

Its tensors are true tensors of torch's PrivateUse1 device whose memory is a CPU tensor's, handed over by DLPack. Every
operation on them, from whatever thread, backward passes among them (they run on the device's own autograd thread),
comes to one Python kernel, which holds the rules, runs the CPU's operation on the same memory and returns the result.

The rules, each an error where it is broken, inside `watched` and, where it is said, always:

- *mixing* (always): an operation takes tensors of this device and of the CPU (single numbers apart), or `copy_` goes
  between devices: only `.to(device)` and `.cpu()` do.
- *float64* (always): no tensor of it exists, is made on the way of a copy, or leaves; `Rules.float64` names files that
  may.
- *pageable* (always): a copy from main memory that libraries do not make is not waited for, although what it is copied
  from may be freed or written meanwhile.
- *waiting*: the host waits for the device (`.item()`, `.cpu()`, `bool()`, `nonzero`, a mask as index, ...) more often
  than `Rules.waits`. "One a batch" means: work that runs n batches through the model, forward or forward and backward,
  may wait n times, and a number more, the same whatever n is, that its test states. Only waits that a line of LSF asks
  for count, and not copies of weights made in `WEIGHTS`; files of libraries that wait by themselves must stand in
  `LIBRARIES`.
- *logits*: a tensor whose last axis is the vocabulary has more than `Rules.most_logits` numbers.
- *states*: more than `Rules.states` vectors of a state's width come to the host; copies of weights, which have the same
  width, are made in the files of `WEIGHTS` alone.
"""

import ctypes
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

NAME = "pretend"
CPU, EXTERNAL = 1, 12
"""Device types of DLPack."""
ROOT = Path(__file__).parent.parent
WEIGHTS = {
    "lsf/models/loading.py": "a base's hash",
    "lsf/training/proof.py": "hashes before and after",
    "lsf/training/artefacts.py": "what a run saves",
    "lsf/training/trainer.py": "checkpoints",
    "lsf/methods/selective.py": "masks kept in the run folder",
    "lsf/methods/adapters.py": "a matrix, whose decomposition gives the same start on every device",
    "lsf/lens/semantics.py": "the head, for its Gram matrix and its bases in float64",
    "lsf/lens/kernels.py": "matrices, for their singular values",
}
"""Files that bring weights to the host -> what for."""
LIBRARIES = {
    "transformers/masking_utils.py": "asks whether a mask masks anything",
    "transformers/generation": "asks after every token whether all texts have ended",
    "transformers/trainer.py": "reads loss and gradient norm of a logged step; writes optimizer and random state",
    "transformers/modeling_utils.py": "looks for padding once",
    "transformers/integrations": "sorts tokens by expert",
    "transformers/models": "experts, rotary tables",
    "transformers/tokenization": "decodes ids",
    "accelerate": "moves batches, clips gradients",
    "safetensors": "writes files",
    "peft": "writes and merges its own files",
}
"""Libraries that wait by themselves -> why."""
WAITING = (
    "_local_scalar_dense nonzero nonzero_static masked_select equal is_nonzero _unique2 unique_dim unique_consecutive "
    "bincount repeat_interleave.Tensor linalg_cholesky cholesky linalg_eigh linalg_svd _linalg_svd multinomial"
).split()
"""Operations, by name or name and overload, that an accelerator answers on the host or by a size it must tell."""


COPY = "a copy to the host"
PLAIN = frozenset({int, float, bool, str, type(None), torch.dtype, torch.layout, torch.memory_format})
"""Types of arguments that are the same on every device."""
WIDE = (torch.float64, torch.complex128)


class DeviceError(AssertionError):
    """A rule of the device was broken."""


class MixedDevicesError(DeviceError):
    """Tensors of two devices met without anybody asking for a copy."""


class Float64Error(DeviceError):
    """A float64 tensor on the device."""


class WaitError(DeviceError):
    """The host waited for the device once too often."""


class LogitsError(DeviceError):
    """Too many logits at once."""


class PageableError(DeviceError):
    """A copy from main memory was not waited for."""


class StateError(DeviceError):
    """States came to the host that should not."""


@dataclass(frozen=True)
class Rules:
    """What a stretch of work on the device may do."""

    waits: int | None = None
    """Times LSF may wait for it; None does not count."""
    vocabulary: int | None = None
    """Logits per token; None watches none."""
    most_logits: int = 2**26
    """Logits in one tensor."""
    width: int | None = None
    """Of a state; None watches none."""
    states: int = 0
    """Vectors of that width that may come to the host."""
    float64: frozenset[str] = frozenset()
    """Files of LSF that may hold float64 on the device: one that has it."""


@dataclass
class Seen:
    """What happened on the device."""

    waits: Counter[str] = field(default_factory=Counter)
    """File and line of LSF -> times it waited."""
    weights: Counter[str] = field(default_factory=Counter)
    """The same for copies of weights, in files of `WEIGHTS`."""
    by_libraries: Counter[str] = field(default_factory=Counter)
    """The same for waits that libraries made by themselves."""
    states: int = 0
    """Vectors of a state's width that came to the host, weights apart."""
    logits: int = 0
    """Numbers of the largest tensor of logits."""
    clocks: int = 0
    """Times all that was under way was waited for, as a clock must; they are no `waits`."""
    operations: int = 0
    """Kernels run."""
    threads: set[str] = field(default_factory=set)
    """Names of the threads they came from."""


class _DLDevice(ctypes.Structure):
    _fields_ = (("type", ctypes.c_int32), ("id", ctypes.c_int32))


class _DLTensor(ctypes.Structure):
    _fields_ = (("data", ctypes.c_void_p), ("device", _DLDevice))


_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_pointer.restype, _pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]


def _handed_over(value: Tensor, kind: int) -> Tensor:
    """Return a tensor of another device type over the same memory."""
    capsule: Any = torch._C._to_dlpack(value)  # type: ignore[attr-defined]
    place = _DLTensor.from_address(_pointer(capsule, b"dltensor"))
    place.device.type, place.device.id = kind, 0
    return torch._C._from_dlpack(capsule)  # type: ignore[attr-defined]


def _here(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device.type == NAME


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """Return a value with everything in its lists, tuples and dicts changed."""
    kind = type(value)
    if kind in PLAIN:
        return value
    if kind is tuple or kind is list or issubclass(kind, list | tuple):
        return kind([_mapped(change, part) for part in value])
    if kind is dict:
        return {name: _mapped(change, part) for name, part in value.items()}
    return change(value)


def _tensors(values: Any) -> Iterator[Tensor]:
    for value in values:
        if type(value) in PLAIN:
            continue
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from _tensors(value)


def _as_cpu(value: Tensor) -> Tensor:
    return _handed_over(value, CPU)


def _as_pretend(value: Tensor) -> Tensor:
    return _handed_over(value.resolve_conj().resolve_neg(), EXTERNAL)


class Accelerator:
    """The device: its kernel, its rules, and what it has seen."""

    def __init__(self) -> None:
        self._rules, self._seen = Rules(), Seen()
        self._packed: dict[int, int] = {}
        self._lock = threading.Lock()
        self._broken: DeviceError | None = None

    @contextmanager
    def watched(self, **rules: Any) -> Iterator[Seen]:
        """Hold these rules inside the `with`, in every thread."""
        before = self._rules, self._seen
        self._rules, self._seen = replace(Rules(), **rules), Seen()
        try:
            yield self._seen
            self._raise_broken()
        finally:
            self._rules, self._seen = before
            self._broken = None

    def kernel(self, operation: Any, *args: Any, **kwargs: Any) -> Any:
        """Run any operation that has no kernel of its own here."""
        self._raise_broken()
        name = operation.__name__  # such as add.Tensor
        self._meets_only_its_own(name, args, kwargs)
        if _waits(name) or _masks(name, args):
            self.wait(name)
        originals: dict[int, tuple[Tensor, Tensor]] = {}

        def lower(value: Any) -> Any:
            if not _here(value):
                return torch.device("cpu") if isinstance(value, torch.device) else value
            self._knows(name, value)
            twin = _as_cpu(value) if value.numel() else torch.empty(value.shape, dtype=value.dtype)
            originals[id(twin)] = twin, value
            return twin

        def lift(value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            if id(value) in originals:
                twin, original = originals[id(value)]
                if twin.shape != original.shape:  # given empty, to be filled
                    original.data = _as_pretend(twin)
                    self._knows(name, original)
                return original
            found = _as_pretend(value)
            self._knows(name, found)
            logits = value.dim() > 1 and value.shape[-1] == self._rules.vocabulary
            if logits and all(value.data_ptr() != twin.data_ptr() for twin, _ in originals.values()):
                self._sized(name, found)
            return found

        args = _numbers_as_tensors(operation, args)
        self._seen.operations += 1
        self._seen.threads.add(threading.current_thread().name)
        with torch._C._DisableAutocast():  # type: ignore[attr-defined]
            lowered, named = _mapped(lower, args), _mapped(lower, kwargs)
            if operation is torch.ops.aten.histc.default and not lowered[0].is_floating_point():
                # a GPU counts whole numbers, a CPU does not
                return _mapped(lift, operation(lowered[0].float(), *lowered[1:], **named).to(lowered[0].dtype))
            return _mapped(lift, operation(*lowered, **named))

    def to_copy(
        self, value: Tensor, *, dtype: Any = None, device: Any = None, non_blocking: bool = False, **rest: Any
    ) -> Tensor:
        """Copy where a copy is asked for: `.to`, `.cpu`."""
        target = value.device if device is None else torch.device(device)
        if non_blocking and not _here(value) and (setting := _site())[0] != "library":
            self._breaks(PageableError, f"a copy from {value.device} that is not waited for, {setting[1]}")
        if torch.float64 in (dtype, value.dtype):
            self._refuse_float64(f"a copy from {value.device} to {target}")
        memory_format = rest.get("memory_format") or torch.preserve_format
        source = _as_cpu(value) if _here(value) else value
        if target.type != NAME:
            self.wait(COPY)
            self._leaves(value)
        made = source.to(dtype=dtype or value.dtype, copy=True, memory_format=memory_format)
        return _as_pretend(made) if target.type == NAME else made

    def copy_(self, target: Tensor, source: Tensor, non_blocking: bool = False) -> Tensor:
        """Copy values within the device; from elsewhere only single numbers."""
        if _here(target) != _here(source) and (source.dim() or _here(source)):
            self._breaks(
                MixedDevicesError, f"copy_ goes from {source.device} to {target.device} by itself, {_site()[1]}"
            )
        for value in (target, source):
            self._knows("copy_", value)
        own = _as_cpu(source) if _here(source) else source
        (_as_cpu(target) if _here(target) else target).copy_(own)
        return target

    def as_type(self, value: Tensor, dtype: torch.dtype) -> Tensor:
        """Read the same bytes as another type, and remember what they are: packed for one copy they remain states."""
        found = _as_pretend(_as_cpu(value).view(dtype))
        if vectors := _vectors(value, self._rules.width):
            self._packed[found.data_ptr()] = vectors
        return found

    def cat(self, parts: list[Tensor], dim: int = 0) -> Tensor:
        """Join tensors; what packed bytes are goes along."""
        joined = self.kernel(torch.ops.aten.cat.default, parts, dim)
        if vectors := sum(self._packed.pop(part.data_ptr(), 0) for part in parts if part.dtype == torch.uint8):
            self._packed[joined.data_ptr()] = vectors
        return joined

    def _breaks(self, kind: type[DeviceError], message: str) -> None:
        """Raise; on the device's autograd thread, which no exception leaves alive, note it until the next operation."""
        if isinstance(threading.current_thread(), threading._DummyThread):
            self._broken = self._broken or kind(f"{message}, in a backward pass")
        else:
            raise kind(message)

    def _raise_broken(self) -> None:
        if self._broken is not None and not isinstance(threading.current_thread(), threading._DummyThread):
            broken, self._broken = self._broken, None
            raise broken

    def wait(self, what: str) -> None:
        """Count a wait of the host for the device."""
        owner, where = _site()
        with self._lock:
            if owner == "lsf" and what == COPY and where.rpartition(":")[0] in WEIGHTS:
                self._seen.weights[where] += 1
            elif owner == "lsf":
                self._seen.waits[where] += 1
                limit = self._rules.waits
                if limit is not None and self._seen.waits.total() > limit:
                    self._breaks(WaitError, f"{what}, {where}: the {limit + 1}th wait where {limit} are allowed")
            elif owner == "library":
                self._seen.by_libraries[where] += 1
                if self._rules.waits is not None and not any(known in where for known in LIBRARIES):
                    self._breaks(WaitError, f"{what}: {where} waits by itself, and is not among LIBRARIES")

    def synchronize(self, device: torch.device) -> None:
        """Note that somebody waits for all that is under way."""
        assert torch.device(device).type == NAME
        self._seen.clocks += 1

    def _meets_only_its_own(self, name: str, args: Any, kwargs: Any) -> None:
        for value in _tensors((*args, *kwargs.values()) if kwargs else args):
            if value.device.type != NAME and value.dim():
                self._breaks(
                    MixedDevicesError, f"{name} is given a tensor of {value.device} {tuple(value.shape)}, {_site()[1]}"
                )

    def _knows(self, name: str, value: Tensor) -> None:
        if value.dtype in WIDE and _here(value):
            self._refuse_float64(name)

    def _sized(self, name: str, made: Tensor) -> None:
        """Look at a tensor that an operation made, views left out: whether it holds logits, and how many."""
        if not made.is_floating_point():
            return
        self._seen.logits = max(self._seen.logits, made.numel())
        if made.numel() > self._rules.most_logits:
            allowed = self._rules.most_logits
            self._breaks(LogitsError, f"{name} holds {made.numel()} logits where {allowed} are allowed, {_site()[1]}")

    def _refuse_float64(self, what: str) -> None:
        where = _site()[1]
        if not any(where.startswith(f"{file}:") for file in self._rules.float64):
            self._breaks(Float64Error, f"{what} makes or takes float64, {where}")

    def _leaves(self, value: Tensor) -> None:
        """Count the vectors of a state's width among what goes to the host."""
        owner, where = _site()
        width = self._rules.width
        if width is None or owner != "lsf" or where.rpartition(":")[0] in WEIGHTS:
            return
        self._seen.states += _vectors(value, width) + self._packed.pop(value.data_ptr(), 0)
        if self._seen.states > self._rules.states:
            self._breaks(StateError, f"{self._seen.states} states of width {width} came to the host, {where}")


def _vectors(value: Tensor, width: int | None) -> int:
    """Return how many vectors of a width a tensor holds."""
    return value.numel() // value.shape[-1] if value.is_floating_point() and value.shape[-1:] == (width,) else 0


@cache
def _tensor_places(operation: Any) -> tuple[int, ...]:
    """Return which arguments of an operation are tensors."""
    known = enumerate(operation._schema.arguments)
    return tuple(place for place, one in known if isinstance(one.type, torch.TensorType))


def _numbers_as_tensors(operation: Any, args: Any) -> Any:
    """Return arguments in which numbers that stand for tensors are tensors again."""
    for place in _tensor_places(operation):
        if place < len(args) and isinstance(args[place], int | float):
            args = (*args[:place], torch.tensor(args[place]), *args[place + 1 :])
    return args


@cache
def _waits(name: str) -> bool:
    return name.partition(".")[0] in WAITING or name in WAITING


def _masks(name: str, args: Any) -> bool:
    """Say whether an operation is indexing by a mask, for which the size must be known."""
    if not name.startswith(("index.Tensor", "index_put", "_index_put_impl_", "_unsafe_index.Tensor")):
        return False
    return any(_here(index) and index.dtype in (torch.bool, torch.uint8) for index in args[1])


def _site() -> tuple[str, str]:
    """Return who asked (lsf, library or test) and where: the innermost frame that is neither torch's nor ours."""
    frame = sys._getframe(1)
    here, torch_root = __file__, str(Path(str(torch.__file__)).parent)
    while frame is not None:
        file = frame.f_code.co_filename
        passed_on = frame.f_code.co_name == "__torch_dispatch__"  # of a mode that counts memory
        if file != here and not file.startswith((torch_root, "<")) and not passed_on:
            return _owner(file), f"{_short(file)}:{frame.f_lineno}"
        frame = frame.f_back
    return "library", "a thread of torch's own"


def _owner(file: str) -> str:
    if file.startswith(str(ROOT / "lsf")):
        return "lsf"
    return "library" if "site-packages" in file else "test"


def _short(file: str) -> str:
    if file.startswith(str(ROOT)):
        return str(Path(file).relative_to(ROOT))
    return file.rpartition("site-packages/")[2]


class _Module:
    """What `torch.pretend` is."""

    def is_available(self) -> bool:
        return True

    def is_initialized(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def manual_seed_all(self, seed: int) -> None:
        pass

    def get_rng_state(self, device: int = 0) -> Tensor:
        return torch.zeros(0, dtype=torch.uint8)

    def set_rng_state(self, state: Tensor, device: int = 0) -> None:
        pass

    def _is_in_bad_fork(self) -> bool:
        return False

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def _stored_on_the_host(storage: torch.UntypedStorage) -> torch.UntypedStorage:
    """Return the bytes of a storage on the CPU, as `torch.save` asks for them: one wait, and its asker's."""
    if storage.device.type != NAME:
        return _storage_to_cpu(storage)
    ACCELERATOR.wait(COPY)
    found = torch.UntypedStorage(storage.nbytes())
    ctypes.memmove(found.data_ptr(), storage.data_ptr(), storage.nbytes())
    return found


ACCELERATOR = Accelerator()
_storage_to_cpu = torch.UntypedStorage.cpu
_LIBRARIES: list[torch.library.Library] = []


def register() -> Accelerator:
    """Make the device known to torch, once per process and before its first backward pass."""
    if not _LIBRARIES:
        _setup_privateuseone_for_python_backend(NAME, backend_module=_Module())
        rest, aten = (
            torch.library.Library("_", "IMPL", "PrivateUse1"),
            torch.library.Library("aten", "IMPL", "PrivateUse1"),
        )
        rest.fallback(ACCELERATOR.kernel)
        own: dict[str, Callable[..., Any]] = {
            "_to_copy": ACCELERATOR.to_copy,
            "copy_": ACCELERATOR.copy_,
            "view.dtype": ACCELERATOR.as_type,
            "cat": ACCELERATOR.cat,
        }
        for name, kernel in own.items():
            aten.impl(name, kernel, "PrivateUse1")
        _LIBRARIES.extend((rest, aten))
        torch.UntypedStorage.cpu = _stored_on_the_host  # type: ignore[method-assign]
        torch.accelerator.synchronize = ACCELERATOR.synchronize  # torch knows none of a Python device
    return ACCELERATOR
