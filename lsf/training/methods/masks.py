"""Which entries of the planned blocks' tensors a sparse method tunes: index sets from weights, seed or training rows.

A mask found from the weights alone (PaFi, largest magnitude) or from the seed (random) is found again wherever the
same base is loaded; one found from data (FISH, the lottery ticket) is stored with what was learned.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError, RunError
from lsf.measure.identity import weights_hash
from lsf.training.batches import training_order
from lsf.training.checkpointing import recomputed
from lsf.training.default_rates import default_rate, tuned_of
from lsf.training.fitting import FitSettings, fit
from lsf.training.methods.fisher import squared_gradients
from lsf.training.methods.full import own_tensors
from lsf.training.methods.places import block_tensors
from lsf.training.methods.scene import Scene

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
        raise BadInputError(
            f"The method {method}: a fraction of {options.fraction:g} keeps none of the plan's {total} values; "
            f"give at least {1 / max(sizes.values() if per_tensor else (total,)):.2g}."
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


def smallest(loaded: Any, plan: Plan, scene: Scene) -> Indices:
    """PaFi: the entries of smallest absolute pre-trained value, the same for every task."""
    options = scene.options
    magnitudes = {name: value.abs() for name, value in block_tensors(loaded, plan, "pafi").items()}
    return take(magnitudes, options.fraction, largest=False, per_tensor=options.scope == "per_tensor")


def largest(loaded: Any, plan: Plan, scene: Scene) -> Indices:
    """Return the control of the opposite end: the entries of largest absolute pre-trained value."""
    options = scene.options
    magnitudes = {name: value.abs() for name, value in block_tensors(loaded, plan, "top_magnitude").items()}
    return take(magnitudes, options.fraction, largest=True, per_tensor=options.scope == "per_tensor")


def drawn(loaded: Any, plan: Plan, scene: Scene) -> Indices:
    """Return the control by lot: entries drawn without replacement, by the seed alone."""
    tensors = block_tensors(loaded, plan, "random_mask")
    generator = torch.Generator().manual_seed(scene.seed)
    lots = {name: torch.rand(value.numel(), generator=generator) for name, value in tensors.items()}
    options = scene.options
    found = take(lots, options.fraction, largest=False, per_tensor=options.scope == "per_tensor")
    return {name: places.to(loaded.device) for name, places in found.items()}


def informative(loaded: Any, plan: Plan, scene: Scene) -> Indices:
    """FISH: the entries with the largest empirical diagonal Fisher information of the training rows."""

    def find() -> Indices:
        names = tuple(block_tensors(loaded, plan, "fish"))
        count = min(len(scene.rows), scene.options.examples)
        rows = [scene.rows[number] for number in sorted(training_order(len(scene.rows), count, scene.seed))]
        information = squared_gradients(own_tensors(loaded, names), rows, scene.base_dtype, scene.check)
        return take(information, scene.options.fraction, largest=True, per_tensor=False)

    return _found_once("fish", loaded, plan, scene, find)


def ticket(loaded: Any, plan: Plan, scene: Scene) -> Indices:
    """LT-SFT: the entries that moved most in a first, dense tuning, which is then thrown away."""

    def find() -> Indices:
        before = block_tensors(loaded, plan, "lt_sft")
        model, options = own_tensors(loaded, tuple(before)), scene.options
        settings = FitSettings(
            learning_rate=options.first_rate or default_rate("full", tuned_of(loaded.info, plan)),
            steps=options.first_steps,
            batch_size=scene.batch_size,
            warmup_steps=0,
            weight_decay=0.0,
            seed=scene.seed,
            base_dtype=scene.base_dtype,
            micro_batch=scene.micro_batch,
        )
        again = recomputed(model, loaded, plan, scene.activation_checkpointing)
        with TemporaryDirectory(prefix="lsf-ticket-") as folder, again:
            fit(model, scene.rows, settings, Path(folder), lambda _row: None, scene.stop)
        scene.check()
        after = dict(model.named_parameters())
        moved = {name: (after[name].detach() - value.float()).abs() for name, value in before.items()}
        return take(moved, options.fraction, largest=True, per_tensor=False)

    return _found_once("lt_sft", loaded, plan, scene, find)


def _found_once(method: str, loaded: Any, plan: Plan, scene: Scene, find: Callable[[], Indices]) -> Indices:
    """Return what `find` finds, or what it found before for the same run: a resumed run has the same mask."""
    if not scene.rows:
        raise BadInputError(f"The method {method} chooses its values by training rows, and there are none.")
    if scene.folder is None:
        return find()
    rows = hashlib.sha256(repr([row.ids for row in scene.rows]).encode()).hexdigest()
    asked = [method, asdict(scene.options), plan.to_json(), scene.seed, scene.batch_size, rows]
    asked += [weights_hash(loaded.model), scene.base_dtype]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:16]
    place = scene.folder / f"mask-{key}.safetensors"
    if not place.is_file():
        found = {name: places.cpu() for name, places in find().items()}
        unfinished = place.with_suffix(f".{os.getpid()}.tmp")
        try:
            place.parent.mkdir(exist_ok=True)  # a run folder that was removed is not made again
            save_file(found, unfinished)
            unfinished.replace(place)
        except (OSError, SafetensorError) as error:
            raise RunError(f"Cannot write the mask of {method} to {place.parent}: {error}.") from error
    return {name: places.to(loaded.device) for name, places in load_file(place).items()}
