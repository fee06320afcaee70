"""Methods that tune the model's own values: whole tensors (full), biases (BitFit), or chosen entries of the tensors.

Of the sparse ones, which entries of the planned tensors are tuned, and one compact vector of their values.
"""

import hashlib
import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lsf.data.encode import EncodedExample
from lsf.errors import BadInputError, RunError
from lsf.methods.context import MethodContext, block_tensors, planned_names, split_name
from lsf.methods.optimization import default_rate, tuned_of
from lsf.methods.parametrization import Parametrization, Replaced, base_name, parametrize_
from lsf.models.batches import autocasting, collate, score_tokens, training_order
from lsf.models.loading import weights_hash
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan, place_of
from lsf.progress import do_nothing


def own_tensors(loaded: Any, names: Collection[str]) -> Any:
    """Return a model that owns float32 copies of the named tensors, to be tuned, and shares all others.

    Over a bfloat16 base an embedding of its own gives its states in bfloat16, as the frozen modules that read them do:
    some of them (a LayerNorm, on a CPU) read no other.
    """
    model = share_model(loaded.model, own=names)
    parameters = dict(model.named_parameters())
    for name in names:
        dtype = parameters[name].dtype
        parameters[name].data = parameters[name].data.to(torch.float32)
        parameters[name].requires_grad_(True)
        place, _, _ = name.rpartition(".")
        if dtype != torch.float32 and len(names) < len(parameters):
            module = model.get_submodule(place)
            if isinstance(module, nn.Embedding):
                module.register_forward_hook(partial(_in_dtype, dtype))
    return model


def _in_dtype(dtype: torch.dtype, _module: nn.Module, _args: Any, states: Tensor) -> Tensor:
    return states.to(dtype)


def restore_tensors(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, torch.Tensor]) -> Any:
    """Return a model that owns the stored tensors and shares all others with a fresh base."""
    model = own_tensors(loaded, tuple(stored))
    for name, value in stored.items():
        model.get_parameter(name).data.copy_(value)
    return model


def prepare_full(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model that owns float32 copies of the planned tensors and shares all others with the loaded one."""
    return own_tensors(loaded, planned_names(loaded, plan))


def count_full(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many parameters the planned blocks and modules have; a tied head counts once."""
    return _n_values(loaded, planned_names(loaded, plan))


def _n_values(loaded: Any, names: Collection[str]) -> int:
    parameters = dict(loaded.model.named_parameters())
    return sum(parameters[name].numel() for name in names)


def bias_names(loaded: Any, plan: Plan) -> tuple[str, ...]:
    """Return the names of all planned biases: those of attention, MLP and norms.

    Raises:
        PlanError: the plan does not fit the model.
        BadInputError: nothing planned has a bias.
    """
    names = tuple(name for name in planned_names(loaded, plan) if split_name(name)[1].endswith("bias"))
    if not names:
        raise BadInputError(
            f"The method bitfit tunes biases and {place_of(plan)} of {loaded.info.name} ({loaded.info.family}) has "
            "none; take a model with biases (gpt2, opt, gpt_neox), or another method."
        )
    return names


def prepare_bitfit(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model in which the planned biases alone are tuned."""
    return with_replaced(loaded, bias_names(loaded, plan))


def count_bitfit(loaded: Any, plan: Plan, options: Any) -> int:
    """Return how many bias values the plan has."""
    return _n_values(loaded, bias_names(loaded, plan))


def with_replaced(loaded: Any, names: Collection[str]) -> Any:
    """Return a model in which the named tensors are tuned as wholes and everything else is shared."""
    model = share_model(loaded.model)
    for name in names:
        parametrize_(model, name, Replaced(model.get_parameter(name)))
    return model.eval()


def store_replaced(model: Any) -> dict[str, Tensor]:
    """Return the tuned tensors by the base's own names."""
    return {base_name(name): part.value.detach() for name, part in model.named_modules() if isinstance(part, Replaced)}


@torch.no_grad()
def restore_replaced(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return a model over a fresh base that has the stored tensors in place of the base's."""
    model = with_replaced(loaded, tuple(stored))
    for name, part in model.named_modules():
        if isinstance(part, Replaced):
            part.value.copy_(stored[base_name(name)])
    return model


def squared_gradients(
    model: Any, rows: Sequence[EncodedExample], base_dtype: str = "float32", check: Callable[[], None] = do_nothing
) -> dict[str, Float[Tensor, "..."]]:
    """Return F = 1/N sum_i g_i^2 for every parameter that wants gradients.

    g_i is the gradient of example i's log-likelihood, the sum over its completion tokens (our choice; the source has
    one label per example). Examples pass one by one: the square of a batch's mean gradient would be something else.

    Args:
        model: of its own, in eval mode; its `.grad` is left empty.
        rows: N training rows, at least one.
        base_dtype: of the base; bfloat16 is read under autocast.
        check: called before each example; may raise to end.

    Returns:
        Name -> tensor of the parameter's shape, >= 0, in (nats per unit of the parameter) squared.

    Source: Sung et al. 2021, arXiv 2111.09839.
    """
    tuned = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in tuned.items()}
    for row in rows:
        check()
        with torch.enable_grad(), autocasting(model, base_dtype):
            loss = score_tokens(model, collate([row])).nll.sum()
        gradients = torch.autograd.grad(loss, list(tuned.values()), allow_unused=True)
        for name, gradient in zip(tuned, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.float() ** 2
    return {name: value / len(rows) for name, value in total.items()}


Indices = dict[str, Tensor]
"""Base parameter name -> flat positions of its tuned entries, ascending; names without an entry are left out."""


def kept(n: int, fraction: float) -> int:
    """Return how many of n entries a fraction keeps: the whole part of n * fraction, 29 of 100 at 0.29."""
    return int(n * fraction + 1e-9)


def count_masked(sizes: Mapping[str, int], method: str, options: Any) -> int:
    """Return how many entries a sparse method tunes.

    Args:
        sizes: entries of each tensor of the planned blocks.
        method: its name, for the error.
        options: with `fraction`, and `scope` where it is chosen tensor by tensor.

    Raises:
        BadInputError: the fraction keeps not a single entry.
    """
    per_tensor = getattr(options, "scope", "global") == "per_tensor"
    total = sum(sizes.values())
    count = sum(kept(n, options.fraction) for n in sizes.values()) if per_tensor else kept(total, options.fraction)
    if not count:
        least = 1 / max(sizes.values() if per_tensor else (total,))
        step = 10.0 ** (math.floor(math.log10(least)) - 1)  # told in two digits, never below
        raise BadInputError(
            f"The method {method}: a fraction of {options.fraction:g} keeps none of the plan's {total} values; "
            f"give at least {math.ceil(least / step - 1e-9) * step:.2g}."
        )
    return count


def extremes(scores: Float[Tensor, " n"], k: int, largest: bool) -> Int[Tensor, " k"]:
    """Return the positions of the k smallest or largest scores, ascending; ties go to the first positions.

    Exact on every device, since it only compares: the same weights give the same mask wherever they are loaded.
    """
    if k == 0:
        return torch.zeros(0, dtype=torch.long, device=scores.device)
    scores = -scores if largest else scores
    limit = scores.kthvalue(k).values
    inside = (scores < limit).nonzero().flatten()
    ties = (scores == limit).nonzero().flatten()[: k - len(inside)]
    return torch.cat([inside, ties]).sort().values


def take(scores: Mapping[str, Tensor], fraction: float, largest: bool, per_tensor: bool) -> Indices:
    """Return the entries of smallest or largest score, within each tensor or over all of them.

    Args:
        scores: one tensor of scores per parameter.
        fraction: share to take, in (0, 1].
        largest: from which end.
        per_tensor: whether each tensor gives its own share.
    """
    flat = {name: score.detach().flatten().float() for name, score in scores.items()}
    if per_tensor:
        found = {name: extremes(score, kept(len(score), fraction), largest) for name, score in flat.items()}
    else:
        whole = torch.cat(list(flat.values()))
        found = _apart(extremes(whole, kept(len(whole), fraction), largest), flat)
    return {name: places for name, places in found.items() if len(places)}


def _apart(places: Int[Tensor, " k"], flat: Mapping[str, Tensor]) -> Indices:
    """Split positions in the concatenation of all tensors into positions in each."""
    found, start = {}, 0
    for name, score in flat.items():
        end = start + len(score)
        found[name] = places[(places >= start) & (places < end)] - start
        start = end
    return found


def smallest(loaded: Any, plan: Plan, context: MethodContext) -> Indices:
    """PaFi: the entries of smallest absolute pre-trained value, the same for every task."""
    options = context.options
    magnitudes = {name: value.abs() for name, value in block_tensors(loaded, plan, "pafi").items()}
    return take(magnitudes, options.fraction, largest=False, per_tensor=options.scope == "per_tensor")


def largest(loaded: Any, plan: Plan, context: MethodContext) -> Indices:
    """Return the control of the opposite end: the entries of largest absolute pre-trained value."""
    options = context.options
    magnitudes = {name: value.abs() for name, value in block_tensors(loaded, plan, "top_magnitude").items()}
    return take(magnitudes, options.fraction, largest=True, per_tensor=options.scope == "per_tensor")


def drawn(loaded: Any, plan: Plan, context: MethodContext) -> Indices:
    """Return the control at random: entries drawn without replacement, by the seed alone."""
    tensors = block_tensors(loaded, plan, "random_mask")
    generator = torch.Generator().manual_seed(context.seed)
    lots = {name: torch.rand(value.numel(), generator=generator) for name, value in tensors.items()}
    options = context.options
    found = take(lots, options.fraction, largest=False, per_tensor=options.scope == "per_tensor")
    return {name: places.to(loaded.device) for name, places in found.items()}


def informative(loaded: Any, plan: Plan, context: MethodContext) -> Indices:
    """FISH: the entries with the largest empirical diagonal Fisher information of the training rows."""

    def find() -> Indices:
        names = tuple(block_tensors(loaded, plan, "fish"))
        count = min(len(context.rows), context.options.examples)
        rows = [context.rows[number] for number in sorted(training_order(len(context.rows), count, context.seed))]
        information = squared_gradients(own_tensors(loaded, names), rows, context.base_dtype, context.check)
        return take(information, context.options.fraction, largest=True, per_tensor=False)

    return _found_once("fish", loaded, plan, context, find)


def ticket(loaded: Any, plan: Plan, context: MethodContext) -> Indices:
    """LT-SFT: the entries that moved most in a first, dense tuning, which is then thrown away."""

    def find() -> Indices:
        before = block_tensors(loaded, plan, "lt_sft")
        model, options = own_tensors(loaded, tuple(before)), context.options
        rate = options.first_rate or default_rate("full", tuned_of(loaded.info, plan))
        assert context.first_tuning is not None  # whoever prepares a method for training hands it over
        context.first_tuning(loaded, model, plan, rate, options.first_steps, context)
        context.check()
        after = dict(model.named_parameters())
        moved = {name: (after[name].detach() - value.float()).abs() for name, value in before.items()}
        return take(moved, options.fraction, largest=True, per_tensor=False)

    return _found_once("lt_sft", loaded, plan, context, find)


def _found_once(method: str, loaded: Any, plan: Plan, context: MethodContext, find: Callable[[], Indices]) -> Indices:
    """Return what `find` finds, or what it found before for the same run: a resumed run has the same mask."""
    if not context.rows:
        raise BadInputError(f"The method {method} chooses its values by training rows, and there are none.")
    if context.folder is None:
        return find()
    rows = hashlib.sha256(repr([row.ids for row in context.rows]).encode()).hexdigest()
    asked = [method, asdict(context.options), plan.to_json(), context.seed, context.batch_size, rows]
    asked += [weights_hash(loaded.model), context.base_dtype]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    place = context.folder / f"mask-{key}.safetensors"
    if not place.is_file():
        begun = time.perf_counter()
        found = {name: places.cpu() for name, places in find().items()}
        about = {"seconds": str(time.perf_counter() - begun)}
        unfinished = place.with_suffix(f".{os.getpid()}.tmp")
        try:
            place.parent.mkdir(exist_ok=True)  # a run folder that was removed is not made again
            save_file(found, unfinished, about)
            unfinished.replace(place)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot write the mask of {method} to {place.parent}: {error}.") from error
    return {name: places.to(loaded.device) for name, places in load_file(place).items()}


def mask_seconds(folder: Path | None) -> float:
    """Return the wall seconds in which the masks that a run's folder keeps were found."""
    found = 0.0
    for place in () if folder is None else folder.glob("mask-*.safetensors"):
        with safe_open(place, "pt") as file:
            found += float((file.metadata() or {}).get("seconds", 0.0))
    return found


FindMask = Callable[[Any, Plan, MethodContext], Indices]


class Scattered(Parametrization):
    """A frozen tensor with some entries replaced by tuned values; the frozen ones stay bit for bit what they are."""

    indices: Int[Tensor, " kept"]

    def __init__(self, base: Float[Tensor, "..."], indices: Int[Tensor, " kept"]) -> None:
        """Start from the base's own values.

        Args:
            base: the frozen tensor.
            indices: flat positions of the tuned entries.
        """
        super().__init__()
        self.register_buffer("indices", indices)
        self.values = nn.Parameter(base.detach().flatten()[indices].float())

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return the tensor with the values in their places, in float32."""
        return base.float().flatten().index_put((self.indices,), self.values).view_as(base)


@dataclass(frozen=True)
class SparseMethod:
    """A sparse method is a way to find its mask."""

    name: str
    """Of the method."""
    find: FindMask
    """(LoadedModel, Plan, MethodContext) -> index sets."""

    def prepare(self, loaded: Any, plan: Plan, context: MethodContext) -> Any:
        """Return a model in which only the masked entries are tuned."""
        self.count(loaded, plan, context.options)
        return with_mask(loaded, self.find(loaded, plan, context))

    def count(self, loaded: Any, plan: Plan, options: Any) -> int:
        """Return how many entries are tuned; raises as `count_masked` and `planned_blocks`."""
        tensors = block_tensors(loaded, plan, self.name)
        return count_masked({name: value.numel() for name, value in tensors.items()}, self.name, options)


def with_mask(loaded: Any, indices: Indices) -> Any:
    """Return a model of its own over the loaded one's tensors in which the indexed entries are tuned."""
    model = share_model(loaded.model)
    for name, places in indices.items():
        parametrize_(model, name, Scattered(model.get_parameter(name), places.to(loaded.device)))
    return model.eval()


def masks_of(model: nn.Module) -> Indices:
    """Return the index sets of a prepared sparse model, by the base's parameter names."""
    found: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Scattered):
            base = base_name(name)
            found[base] = module.indices
    return found


def store_sparse(model: Any) -> dict[str, Tensor]:
    """Return indices and values by the base's parameter names, for a mask that only the data could tell."""
    stored: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if isinstance(module, Scattered):
            base = base_name(name)
            stored |= {f"{base}:indices": module.indices.to(torch.int32), f"{base}:values": module.values.detach()}
    return stored


def restore_sparse(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return the model that `store_sparse` was told of, over a fresh base."""
    indices = {name.removesuffix(":indices"): stored[name].long() for name in stored if name.endswith(":indices")}
    model = with_mask(loaded, indices)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, Scattered):
                base = base_name(name)
                module.values.copy_(stored[f"{base}:values"])
    return model
