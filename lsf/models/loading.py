"""Loading a model: safetensors only, checked against itself before any number is shown; the hash of its weights."""

import copy
import ctypes
import hashlib
import json
import math
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html import escape
from typing import Any
from weakref import WeakKeyDictionary

import torch
from safetensors import SafetensorError
from torch import nn

from lsf.data.encode import EncodedExample
from lsf.errors import DataError, ModelError, OutOfMemoryError, first_line
from lsf.models.devices import Device, choose_device, input_device, is_out_of_memory, places_of, tensors_of
from lsf.models.families import family_of
from lsf.models.info import ModelInfo
from lsf.models.layout import ModelLayout, resolve, self_check
from lsf.models.quantised import check_quantising, is_packed, n_values, packed_dtype, quantising, scales
from lsf.models.sharing import foreign_hooks, share_model, stamp_of
from lsf.models.supported import ModelSource, find_model, stored_tensors
from lsf.models.weights import context_of, load_config, load_tokenizer, load_weights
from lsf.settings import QUANTISED
from lsf.wording import counted

TRIM_THRESHOLD = -1
"""glibc's M_TRIM_THRESHOLD: free bytes at the heap's end above which they are given back to the system."""
MMAP_THRESHOLD = -3
"""glibc's M_MMAP_THRESHOLD: a request of this size or more gets a mapping of its own, given back when freed."""
KEPT_BYTES = 256 * 2**20
"""Free memory kept."""
MAPPED_BYTES = 32 * 2**20
"""Size from which a tensor gets its own mapping; the largest that glibc accepts."""


def keep_freed_memory() -> bool:
    """Make glibc reuse what one block's activations leave instead of giving it back and asking for it again.

    Every page given back is zeroed by the system when it is asked for again. Measured on a Llama of 12 blocks of width
    384, one thread: a fifth of the time of a forward pass went there. It holds for the whole process and changes no
    number; called again it does nothing new.

    Returns:
        True where it was done; False where the C library is not glibc.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    done = library.mallopt(MMAP_THRESHOLD, MAPPED_BYTES)
    return bool(done and library.mallopt(TRIM_THRESHOLD, KEPT_BYTES))


_HASHES: WeakKeyDictionary[Any, tuple[object, str]] = WeakKeyDictionary()


def weights_hash(model: Any) -> str:
    """Return SHA-256 over names, dtypes, shapes and bytes of a loaded model's parameters.

    What belongs to weights packed in 4 or 8 bits counts too. Computed once per loaded model, and again where a
    parameter was replaced or written since.
    """
    stamp = [(value.data_ptr(), value._version) for value in model.parameters()]
    if model not in _HASHES or _HASHES[model][0] != stamp:
        digest = hashlib.sha256()
        for name, value in (*model.named_parameters(), *scales(model)):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        _HASHES[model] = stamp, digest.hexdigest()
    return _HASHES[model][1]


def is_known_by_weights(model: Any) -> bool:
    """Say whether the hash of its weights says which model it is: they lie in one place, and no hook acts in it."""
    return not places_of(model) and not foreign_hooks(model)


_CONFIGS: WeakKeyDictionary[Any, tuple[dict[str, object], str]] = WeakKeyDictionary()


def config_hash(model: Any) -> str:
    """Return SHA-256 over a loaded model's configuration: with the same weights and another one it says other things.

    Which version of transformers wrote it is left out. Computed once per loaded model, and again where a value changed.
    """
    values = vars(model.config)
    if model not in _CONFIGS or _CONFIGS[model][0] != values:
        plain = json.loads(model.config.to_json_string())
        plain.pop("transformers_version", None)
        _CONFIGS[model] = copy.deepcopy(values), hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
    return _CONFIGS[model][1]


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory that nobody changes: eval mode, every parameter frozen."""

    model: Any
    """The causal LM (PreTrainedModel)."""
    tokenizer: Any
    """Its tokenizer."""
    info: ModelInfo
    """What it is."""
    layout: ModelLayout
    """Where its blocks, norms and head are."""
    context: int
    """Tokens it can read at once."""
    self_check: float
    """Largest difference between our reading's logits and its own."""

    @property
    def device(self) -> torch.device:
        """Where token ids go: where its parameters lie, or where a spread model begins."""
        return input_device(self.model)


def load_model(
    name: str, dtype: str = "auto", device: str = "auto", max_memory: dict[int | str, int] | None = None
) -> LoadedModel:
    """Load a model by name and check that it is read rightly.

    Args:
        name: as `find_model` takes it.
        dtype: `float32`, `bfloat16`; `auto` is float32, on CUDA bfloat16 for a checkpoint of bfloat16 or float16, which
            then loses bits; `nf4`, `int8`: linear maps but the head in 4 or 8 bits (bitsandbytes), all else as `auto`.
        device: `auto` (cuda, then mps, then cpu), one of them, or `map`: spread over all GPUs, main memory and disk as
            they have room (accelerate), to be analysed only.
        max_memory: for `map`, bytes each place may take, such as `{"cpu": 10**9}`; default: what is free.

    Raises:
        ModelError: one sentence; see `find_model`, and: weights missing from the files, NaN weights, tokenizer larger
            than the vocabulary.
        SelfCheckError: the family's reading does not reproduce the model's logits.
        BadInputError: a quantised dtype that cannot be had here.
        OutOfMemoryError: it does not fit the device.
    """
    place = choose_device("auto" if device == "map" else device)
    check_quantising(dtype, device if device == "map" else torch.device(place.name).type)
    source = find_model(name)
    if place.name == "cpu":
        keep_freed_memory()
    spread = {"device_map": "auto", "max_memory": max_memory} if device == "map" else {}
    compute = dtype_for(source, "auto" if dtype in QUANTISED else dtype, place)
    if dtype in QUANTISED:
        spread = quantising(dtype, compute, place.name)
    with _explained_memory(source, place):
        model, left_out = load_weights(source, compute, place, spread)
        tokenizer = load_tokenizer(source)
        layout = resolve(model, source.family)
        _check_weights(source, model, layout, tokenizer)
        difference = self_check(layout)
    info = replace(
        _info(name, layout),
        revision=source.revision,
        dtype=dtype if dtype in QUANTISED else str(model.dtype).removeprefix("torch."),
        device="+".join(places_of(model)) or place.name,
        origin=source.origin,
        left_out=left_out,
    )
    return LoadedModel(model, tokenizer, info, layout, context_of(layout.config, tokenizer), difference)


def layout_of(model: Any) -> ModelLayout:
    """Return where the blocks, norms and head of a transformers model in memory lie.

    Raises:
        UnknownFamilyError: its architecture is not supported.
        ModelError: it is no causal LM of transformers, or not what its `model_type` says.
    """
    kind = getattr(getattr(model, "config", None), "model_type", None)
    if not isinstance(model, nn.Module) or kind is None:
        raise ModelError(f"A {type(model).__name__} was given; a causal LM of transformers was expected.")
    return resolve(model, family_of(str(kind)))


def wrap_model(model: Any, tokenizer: Any, name: str = "in memory") -> LoadedModel:
    """Return a model that is in memory already, checked as a loaded one is.

    What is returned is a second module tree over the same memory (`lsf.models.sharing.share_model`): the given model
    keeps its mode, its hooks and every `requires_grad`. Adapters of peft that are active are merged into copies of the
    maps they change: the model is measured as it answers now.

    Args:
        model: a causal LM of transformers on one device, in a float dtype, 4 or 8 bits; or peft's wrapper of one.
        tokenizer: its tokenizer.
        name: what results call it.

    Raises:
        UnknownFamilyError: its architecture is not supported.
        ModelError: it is no causal LM; adapters that cannot be merged; it is spread over devices; its tokenizer has
            ids that it has no rows for.
        SelfCheckError: our reading does not reproduce its logits.
    """
    layout_of(base_of(model))
    if not callable(getattr(tokenizer, "get_vocab", None)):
        raise ModelError(f"A {type(tokenizer).__name__} was given as the tokenizer; transformers' own was expected.")
    view = _merged(model) if is_adapted(model) else share_model(model)
    view.eval().requires_grad_(False)
    layout = layout_of(view)
    _check_tokenizer(name, layout, tokenizer)
    context = context_of(layout.config, tokenizer)
    return LoadedModel(view, tokenizer, _info(name, layout), layout, context, self_check(layout))


def base_of(model: Any) -> Any:
    """Return the transformers model that peft wraps, and every other as it is."""
    return model.get_base_model() if callable(getattr(model, "get_base_model", None)) else model


def is_adapted(model: Any) -> bool:
    """Say whether a model is peft's wrapper of another, or holds its adapters."""
    return base_of(model) is not model or bool(adapted_maps(model))


def adapted_maps(model: nn.Module) -> dict[str, Any]:
    """Return the modules that peft put in the place of others, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if hasattr(module, "base_layer") and hasattr(module, "merged_adapters")
    }


def _merged(model: Any) -> Any:
    """Return a second module tree over a peft model's memory, its active adapters merged into copies.

    Raises:
        ModelError: they are no change of the weights, or lie over packed ones.
    """
    kind, advice = f"This {type(model).__name__}'s adapter", "wrap the model without it"
    maps = adapted_maps(model)
    if not maps:
        raise ModelError(
            f"{kind} changes no weights (it is a learned prompt or prefix) and cannot be measured; {advice}."
        )
    prefixes = tuple(f"{name}.base_layer." for name in maps)
    own = [name for name, _ in model.named_parameters() if name.startswith(prefixes)]
    if any(is_packed(model.get_parameter(name)) for name in own):
        raise ModelError(
            f"{kind} lies over maps in 4 or 8 bits and cannot be merged without rounding; load the base in bfloat16, "
            f"or {advice}."
        )
    view: Any = share_model(model, own)
    if any(module.disable_adapters for module in maps.values()):
        return _without(base_of(view))
    try:
        if base_of(model) is not model:
            return view.merge_and_unload(safe_merge=True)
        for module in adapted_maps(view).values():
            module.merge(safe_merge=True)
    except (AttributeError, NotImplementedError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(f"{kind} cannot be merged ({first_line(error)}); {advice}.") from None
    return _without(view)


def _without(view: Any) -> Any:
    """Put the base's modules back in a model of our own that peft put others into, and return it."""
    maps = adapted_maps(view)
    for name, module in list(view.named_modules()):
        own = getattr(module, "original_module", None)  # of a whole module that is tuned beside the adapters
        if name in maps and ".base_layer" not in name:
            view.set_submodule(name, module.get_base_layer())
        elif isinstance(own, nn.Module) and module.disable_adapters:
            view.set_submodule(name, own)
    return view


class Model:
    """A transformers model, its tokenizer, and how its blocks are read.

    `.model` is the transformers model itself, not a copy: freeze it, train it, move it. What is measured is that model
    as it is at that moment, always without dropout, and measuring never changes it. For peft's wrapper that is the base
    with its active adapters merged into copies of the maps they change. Hooks on it act in what is measured, and
    nothing of such a model is kept on record.

    Raises:
        ModelError: when it is measured, where it no longer can be: after `peft.get_peft_model(m.model, ...)`, which
            puts adapters into it, wrap what that returned.

    Example:
        >>> import lsf
        >>> m = lsf.load("bundled")
        >>> type(m.model).__name__, m.info.n_blocks, m.info.width
        ('LlamaForCausalLM', 8, 128)
    """

    def __init__(self, model: Any, loaded: LoadedModel) -> None:
        """Take a model and how it is read now; `lsf.load` and `lsf.wrap` make these."""
        self.model = model
        self.tokenizer = loaded.tokenizer
        self._loaded, self._seen = loaded, stamp_of(model)

    @property
    def info(self) -> ModelInfo:
        """What it is: name, family, n_blocks, width, n_params, dtype, device."""
        return self._loaded.info

    def measured(self) -> LoadedModel:
        """Return the model as it is now, in eval mode and with nothing to tune, for everything that measures."""
        always = is_adapted(self.model) or foreign_hooks(self.model)  # such a model is read anew each time
        stamp = [] if always else stamp_of(self.model)
        if always or self._seen != stamp:
            self._loaded, self._seen = wrap_model(self.model, self.tokenizer, self.info.name), stamp
        return self._loaded

    def __repr__(self) -> str:
        """Return what it is, in a line."""
        info = self.info
        return f"Model({info.name}: {counted(info.n_blocks, 'block')}, {info.n_params:,} parameters, {info.dtype})"

    def _repr_html_(self) -> str:
        known = {name: value for name, value in vars(self.info).items() if value is not None}
        rows = "".join(f"<tr><td>{name}</td><td>{escape(str(value))}</td></tr>" for name, value in known.items())
        return f"<table>{rows}</table>"


def _info(name: str, layout: ModelLayout) -> ModelInfo:
    model = layout.model
    return ModelInfo(
        name=name,
        revision=None,
        family=layout.family.name,
        n_blocks=len(layout.blocks),
        width=layout.config.hidden_size,
        vocab_size=layout.head_weight.shape[0],
        tied_head=_tied(model, layout),
        n_params=sum(n_values(parameter) for parameter in model.parameters()),
        dtype=packed_dtype(model) or str(model.dtype).removeprefix("torch."),
        device=str(input_device(model)),
    )


@contextmanager
def _explained_memory(source: ModelSource, device: Device) -> Iterator[None]:
    """Turn every way of running out of memory into an `OutOfMemoryError` that says what would fit."""
    try:
        yield
    except (RuntimeError, MemoryError, OSError, SafetensorError) as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"{source.name} needs about {source.weight_bytes / 1e9:.1f} GB and {device.label} has {device.memory}; "
            "take a smaller model, bfloat16 or another device."
        ) from None


def dtype_for(source: ModelSource, wish: str, device: Device) -> torch.dtype:
    """Return the dtype for a wish; see `load_model`."""
    if wish != "auto":
        return getattr(torch, wish)
    if device.name.startswith("cuda"):
        config = load_config(source)
        if config.dtype in (torch.bfloat16, torch.float16) and _has_bfloat16(device):
            return torch.bfloat16
    return torch.float32


def weights_in_memory(source: ModelSource, dtype: str, device: Device) -> tuple[int, str]:
    """Return the bytes that a model's weights will take on a device, whatever they take on disk, and in which dtype.

    Args:
        source: what is to be loaded.
        dtype: the wish; of a quantised one every value is counted in its 4 or 8 bits, which is the least.
        device: where it is put.

    Raises:
        ModelError: a file that is no safetensors file.
    """
    stored = stored_tensors(source.name, sorted(source.folder.glob("*.safetensors")))
    count = sum(math.prod(tensor.shape) for tensor in stored)
    if dtype in QUANTISED:
        return count // 2 if dtype == "nf4" else count, dtype
    used = dtype_for(source, dtype, device)
    return count * used.itemsize, str(used).removeprefix("torch.")


def _has_bfloat16(gpu: Device) -> bool:
    """Say whether a GPU computes in bfloat16 itself; older ones emulate it, slower than float32."""
    with torch.cuda.device(gpu.name):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _tied(model: Any, layout: ModelLayout) -> bool:
    if places_of(model):  # the same tensor fetched twice need not lie in the same memory
        return bool(layout.config.tie_word_embeddings)
    return layout.head_weight.data_ptr() == model.get_input_embeddings().weight.data_ptr()


def _check_weights(source: ModelSource, model: Any, layout: ModelLayout, tokenizer: Any) -> None:
    for parameter_name, parameter in tensors_of(model):
        if not parameter.isfinite().all():
            raise ModelError(f"{source.name} has NaN or infinite weights in {parameter_name}; the file is damaged.")
    _check_tokenizer(source.name, layout, tokenizer)


def _check_tokenizer(name: str, layout: ModelLayout, tokenizer: Any) -> None:
    """Refuse a vocabulary beyond the embedding; tokens that were added to it are refused where a text yields one."""
    rows = layout.model.get_submodule(layout.embedding_name).weight.shape[0]
    own = tokenizer.get_vocab()
    highest = max((own[token] for token in own.keys() - tokenizer.get_added_vocab().keys()), default=0)
    if highest >= rows:
        raise ModelError(
            f"The tokenizer of {name} gives ids up to {highest} but its embedding has {rows} rows (ids below "
            f"{rows}); they do not belong together."
        )


def check_ids(loaded: LoadedModel, rows: Iterable[EncodedExample]) -> None:
    """Refuse texts that yield ids the model has no embedding for.

    Raises:
        DataError: the first of them by its row, the id and its token.
    """
    n_ids = loaded.layout.model.get_submodule(loaded.layout.embedding_name).weight.shape[0]
    if len(loaded.tokenizer) <= n_ids and max(loaded.tokenizer.get_added_vocab().values(), default=0) < n_ids:
        return
    for row in rows:
        if (highest := max(row.ids)) >= n_ids:
            where = (row.example.where or "a text").capitalize()
            raise DataError(
                f"{where} has the token {loaded.tokenizer.convert_ids_to_tokens(highest)!r} (id "
                f"{highest}), for which {loaded.info.name} has no embedding: its ids are below {n_ids}."
            )
