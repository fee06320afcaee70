"""What was tuned, as files: the least each method needs, loaded onto a fresh base, and merged into a plain model."""

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsf import __version__
from lsf.errors import BadInputError, RunError, first_line
from lsf.files import fill_folder
from lsf.methods.adapters import Bottleneck
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.parametrization import held_still
from lsf.methods.registry import METHODS
from lsf.models.batches import autocasting
from lsf.models.devices import is_out_of_memory
from lsf.models.loading import weights_hash
from lsf.models.quantised import float_weight, was_transposed
from lsf.models.sharing import float_view
from lsf.models.weights import quiet
from lsf.plans.plan import Plan
from lsf.runs.checkpoints import with_room
from lsf.runs.lock import SPEC, WEIGHTS
from lsf.runs.spec import RunSpec
from lsf.schema import decode


@dataclass(frozen=True)
class About:
    """What the file of a tuned model says of itself, in its header."""

    model: str
    """Name of the base when it was tuned."""
    base: str
    """SHA-256 of the base's tensors."""
    dtype: str
    """Dtype the base was loaded in."""
    method: str
    """How it was tuned."""
    options: Mapping[str, Any]
    """The method's options, those that were given."""
    plan: Plan
    """Where it was tuned."""
    seed: int
    """Of the run: masks at random and projections come from it again."""


def refuse_full_disk(model: Any, spec: RunSpec, folder: Path) -> None:
    """Refuse a run whose weights the disk would not take when it ends.

    Args:
        model: as `prepare` made it: what is stored of it has the size it will have.
        spec: of the run.
        folder: of the run.

    Raises:
        RunError: what they take, and what is free.
    """
    needed = sum(value.nbytes for value in METHODS[spec.method].store(model).values())
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise RunError(
            f"The tuned weights of {spec.plan.label} take {needed / 1e6:,.1f} MB and the disk of {folder} has "
            f"{free / 1e6:,.1f} MB free; make room, or tune fewer blocks."
        )


def save_weights(model: Any, loaded: Any, spec: RunSpec, folder: Path) -> int:
    """Write what a run learned to the folder's weights/, whole or not at all, with what it belongs to as metadata.

    Values are written as they were trained: float32, also over a bfloat16 base.

    Args:
        model: as `prepare` made it and the loop tuned it.
        loaded: the base.
        spec: of the run.
        folder: of the run.

    Returns:
        Bytes of the tensors stored; the file adds a header with their names.

    Raises:
        RunError: the folder was removed, or the disk does not take them.
    """
    method = METHODS[spec.method]
    tensors = {name: value.contiguous().cpu() for name, value in method.store(model).items()}
    about = About(
        spec.model, weights_hash(loaded.model), loaded.info.dtype, spec.method, dict(spec.options), spec.plan, spec.seed
    )
    place = folder / WEIGHTS / method.file
    unfinished = place.with_suffix(".tmp")
    try:
        place.parent.mkdir(exist_ok=True)
        if method.beside is not None:
            method.beside(model, place.parent)
        with_room(folder, lambda: save_file(tensors, unfinished, metadata=_header(about)))
        unfinished.replace(place)
    except (OSError, SafetensorError) as error:
        if not folder.is_dir():
            raise RunError(f"The run folder {folder} was removed while the run was going on.") from None
        raise RunError(f"Cannot write the weights of {folder.name}: {error}.") from error
    finally:
        with suppress(OSError):
            unfinished.unlink(missing_ok=True)
    return sum(value.nbytes for value in tensors.values())


def load_tuned(folder: Path, loaded: Any) -> Any:
    """Load what a run learned onto a fresh base.

    Args:
        folder: of the run, or its weights/.
        loaded: the very base it was tuned on; it is not changed.

    Returns:
        A model of its own over the base's frozen tensors, in eval mode, as the run left it.

    Raises:
        BadInputError: no such file, not a file of ours, or made for another base.
        RuntimeError, MemoryError: memory does not suffice; see `is_out_of_memory`.
    """
    place = find_weights(folder)
    about = read_about(place)
    if about.base != (here := weights_hash(loaded.model)):
        raise BadInputError(
            f"{place} was tuned on {about.model} (weights {about.base[:12]} in {about.dtype}); {loaded.info.name} has "
            f"other weights ({here[:12]} in {loaded.info.dtype}), and it can be loaded onto its own only."
        )
    context = MethodContext(options_of(about.method, about.options), seed=about.seed, base_dtype=loaded.info.dtype)
    stored = load_file(place)
    try:
        method = METHODS[about.method]
        expected = None if method.search else _shapes(method.store(method.prepare(loaded, about.plan, context)))
        model = method.restore(loaded, about.plan, context, _BroughtOver(stored, loaded.device)).eval()
        expected = expected or _shapes(method.store(model))
    except (KeyError, AttributeError, RuntimeError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise BadInputError(f"{place} does not hold what its header says: {first_line(error)}.") from None
    _check_whole(place, stored, expected)
    return model


class _BroughtOver(Mapping[str, Tensor]):
    """Tensors on the host, each of which is brought to a device when it is asked for, and not kept there."""

    def __init__(self, values: Mapping[str, Tensor], device: torch.device) -> None:
        self._values, self._device = values, device

    def __getitem__(self, name: str) -> Tensor:
        return self._values[name].to(self._device)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in tensors.items()}


def _check_whole(place: Path, stored: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> None:
    """Refuse a file whose tensors are not those that such a model stores: one was lost, added, cut or is not finite.

    Raises:
        BadInputError: which tensor it is.
    """
    shapes = _shapes(stored)
    for name in sorted({*shapes, *expected}):
        have, want = shapes.get(name), expected.get(name)
        if have != want:
            found = "is not there" if have is None else f"has shape {have}"
            raise BadInputError(
                f"{place} does not hold what its header says: {name} {found}"
                + ("." if want is None else f" where {want} was expected.")
            )
        if not stored[name].isfinite().all():
            raise BadInputError(f"{place} is damaged: {name} holds NaN or infinity.")


def find_weights(folder: Path) -> Path:
    """Return the file with what a run learned.

    Raises:
        BadInputError: the folder has none.
    """
    names = dict.fromkeys(method.file for method in METHODS.values())
    places = [base / name for base in (folder / WEIGHTS, folder) for name in names]
    for place in places:
        if place.is_file():
            return place
    raise BadInputError(
        f"{folder} holds no tuned weights; expected {' or '.join(f'{WEIGHTS}/{name}' for name in names)}."
    )


def read_about(place: Path) -> About:
    """Read what a file of tuned weights says of itself.

    Raises:
        BadInputError: it is not a safetensors file, or not one of ours.
    """
    try:
        with safe_open(place, "pt") as file:
            header = file.metadata() or {}
        about = json.loads(header["about"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise BadInputError(f"{place} is not a file of tuned weights written by LSF: {error}.") from None
    return decode(about, About, str(place), "file of tuned weights")


def _header(about: About) -> dict[str, str]:
    plain = {**vars(about), "plan": about.plan.bare.to_json()}
    return {"format": "pt", "lsf": __version__, "about": json.dumps(plain)}


ROWS, TOKENS = 8, 32
"""Size of the batch on which a merged model is compared."""


@dataclass(frozen=True)
class MergeLoss:
    """How far a merged model's logits lie from those of the tuned model it was made of, on fixed ids."""

    largest: float
    """Largest absolute difference of logits."""
    mean: float
    """Mean absolute difference."""
    scale: float
    """Standard deviation of the tuned model's logits, to judge them by."""
    dtype: str
    """Of the merged model."""

    @property
    def words(self) -> str:
        """What merging changed, in one sentence."""
        return (
            f"Merged in {self.dtype}, its logits differ from the tuned model's by {self.mean:.2g} on average and "
            f"{self.largest:.2g} at most, where their standard deviation is {self.scale:.2g}."
        )


@torch.no_grad()
def merge(model: Any, loaded: Any) -> Any:
    """Return a plain model, of the base's own module tree, that computes what a tuned one computes.

    Args:
        model: tuned: from a method's `prepare`, or from `load_tuned`; it is not changed.
        loaded: its base.

    Returns:
        A model of its own that owns the changed tensors, in the base's dtype, and shares all others with the base. What
        the base holds in 4 or 8 bits is dequantised in it, in the dtype of the base's other tensors.

    Raises:
        BadInputError: the method added steps of its own that no tensor of the base can take in.
    """
    if any(isinstance(module, Bottleneck) for module in model.modules()):
        raise BadInputError(
            "Adapters cannot be merged: they are non-linear steps between the base's layers; keep them beside the base."
        )
    base = dict(loaded.model.named_parameters())
    plain = float_view(loaded.model)
    with held_still(model):
        for name, place in plain.named_parameters():
            value = _effective(model, name)
            if value.data_ptr() != base[name].data_ptr():
                place.data = value.detach().to(place.dtype, copy=True)
    return plain.eval()


@torch.no_grad()
def merge_loss(model: Any, plain: Any, loaded: Any) -> MergeLoss:
    """Return what merging changed.

    Args:
        model: tuned.
        plain: what `merge` made of it.
        loaded: the base of both.
    """
    tokens = min(TOKENS, loaded.context)
    ids = torch.arange(ROWS * tokens, device=loaded.device).reshape(ROWS, tokens) % loaded.info.vocab_size
    with held_still(model), autocasting(loaded.model, loaded.info.dtype):
        tuned, merged = (one(input_ids=ids, use_cache=False).logits.float() for one in (model, plain))
    difference = (tuned - merged).abs()
    dtype = str(plain.dtype).removeprefix("torch.")
    return MergeLoss(difference.max().item(), difference.mean().item(), tuned.std().item(), dtype)


def save_merged(folder: Path, loaded: Any, out: Path) -> MergeLoss:
    """Write what a run tuned as a whole model in the base's dtype, with its tokenizer, as transformers reads it.

    All of it or nothing, also where it is interrupted.
    A chat template that the run was given takes the place of the tokenizer's own.

    Args:
        folder: of the run.
        loaded: its base.
        out: folder to write to, new or empty.

    Returns:
        How far the merged model's logits lie from the tuned model's.

    Raises:
        BadInputError: as of `load_tuned` and `merge`.
        RunError: the disk does not take it.
    """
    tuned = load_tuned(folder, loaded)
    plain = merge(tuned, loaded)
    lost = merge_loss(tuned, plain, loaded)
    tokenizer = copy(loaded.tokenizer)
    if (spec := folder / SPEC).exists() and (given := RunSpec.load(spec).chat_template):
        tokenizer.chat_template = given

    def write(place: Path) -> None:
        with quiet():
            plain.save_pretrained(place)
        tokenizer.save_pretrained(place)

    try:
        fill_folder(out, write)
    except (OSError, SafetensorError) as error:
        raise RunError(f"Cannot write the merged model to {out}: {first_line(error)}.") from error
    return lost


def _effective(model: Any, name: str) -> Tensor:
    """Return the value a model computes with in place of one of the base's tensors, in the checkpoint's layout."""
    owner, _, leaf = name.rpartition(".")
    found = model.get_submodule(owner)
    module: Any = found
    if not isinstance(found, LoraLayer):
        return float_weight(module) if leaf in module._parameters and leaf == "weight" else getattr(module, leaf)
    base: Any = module.get_base_layer()
    if leaf != "weight":
        return getattr(base, leaf)
    delta = module.get_delta_weight("default").float()
    return float_weight(base).float() + (delta.T if was_transposed(base) else delta)
