"""Masks: which entries they take, and that nothing else moves."""

from typing import Any

import numpy as np
import pytest
import torch
from peft import SupertuningConfig, inject_adapter_in_model
from safetensors.torch import save_file
from torch.func import functional_call, grad, vmap

from lsf.errors import BadInputError, RunError
from lsf.methods.catalogue import options_of
from lsf.methods.context import block_tensors, linear_names
from lsf.methods.registry import METHODS
from lsf.methods.selective import count_masked, extremes, kept, masks_of, own_tensors, squared_gradients, take
from lsf.models.batches import collate
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan
from lsf.progress import do_nothing
from lsf.training.fitting import fit
from lsf.training.trainer import FitSettings
from tests.methods.conftest import context_for

PLAN = Plan("tiny", 4, (1, 3))
SPARSE = ("pafi", "fish", "lt_sft", "random_mask", "top_magnitude")


def options_for(name: str, fraction: float = 0.05) -> dict[str, Any]:
    return {"fraction": fraction} | ({"first_steps": 3} if name == "lt_sft" else {})


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("family", ["loaded", "gpt2"])
def test_frozen_entries_are_bit_equal_after_ten_steps_with_weight_decay_and_the_count_is_exact(
    name, family, rows, tmp_path, request
):
    base = request.getfixturevalue(family)
    context = context_for(name, rows, **options_for(name))
    model = METHODS[name].prepare(base, PLAN, context)
    masks, tensors = masks_of(model), block_tensors(base, PLAN, name)
    sizes = [tensor.numel() for tensor in tensors.values()]
    within = name in ("pafi", "random_mask", "top_magnitude")  # PaFi and its controls take a share of each tensor
    expected = sum(int(0.05 * size) for size in sizes) if within else int(0.05 * sum(sizes))
    assert sum(len(mask) for mask in masks.values()) == expected
    settings = FitSettings(3e-3, 10, 4, 0, 0.1, 0, "float32")
    done = fit(model, rows, settings, tmp_path, lambda _row: None, lambda: None)
    assert done.trainable_params == expected
    moved = 0
    for parameter, before in base.model.named_parameters():
        after = model.get_submodule(parameter.rpartition(".")[0])
        differs = (getattr(after, parameter.rpartition(".")[2]) != before).flatten()
        mask = torch.zeros_like(differs)
        mask[masks.get(parameter, torch.zeros(0, dtype=torch.long))] = True
        assert not (differs & ~mask).any()
        moved += int(differs.sum())
    assert moved > 0.9 * expected


def test_extremes_are_those_of_a_sort_and_ties_go_to_the_first_places():
    scores = torch.tensor([3.0, 1.0, 2.0, 1.0, 1.0, 5.0])
    assert extremes(scores, 2, largest=False).tolist() == [1, 3]
    assert extremes(scores, 4, largest=False).tolist() == [1, 2, 3, 4]
    assert extremes(scores, 2, largest=True).tolist() == [0, 5]
    assert extremes(scores, 0, largest=True).tolist() == []
    random = torch.rand(500, generator=torch.Generator().manual_seed(0))
    assert extremes(random, 60, largest=True).tolist() == sorted(random.argsort(descending=True)[:60].tolist())


def test_global_scope_compares_across_tensors_and_per_tensor_scope_does_not():
    scores = {"a": torch.tensor([[0.1, 0.2], [0.3, 0.4]]), "b": torch.tensor([5.0, 6.0])}
    assert {k: v.tolist() for k, v in take(scores, 0.5, largest=False, per_tensor=False).items()} == {"a": [0, 1, 2]}
    assert {k: v.tolist() for k, v in take(scores, 0.5, largest=False, per_tensor=True).items()} == {
        "a": [0, 1],
        "b": [0],
    }
    assert {k: v.tolist() for k, v in take(scores, 0.5, largest=True, per_tensor=False).items()} == {
        "a": [3],
        "b": [0, 1],
    }


def test_pafi_per_tensor_takes_the_index_set_of_peft(loaded):
    fraction = 0.03
    masks = masks_of(METHODS["pafi"].prepare(loaded, PLAN, context_for("pafi", fraction=fraction)))
    names = linear_names(loaded, PLAN, "pafi")
    config = SupertuningConfig(target_modules=list(names), sparsity=1 - fraction, select_top=False)
    theirs = inject_adapter_in_model(config, share_model(loaded.model))
    for name in names:
        module: Any = theirs.get_submodule(name)
        indices = module.supertuning_indices["default"]
        assert sorted(indices.tolist()) == masks[f"{name}.weight"].tolist()
    assert len(names) == 14


def test_pafi_global_takes_the_smallest_values_of_all_planned_blocks(loaded):
    masks = masks_of(METHODS["pafi"].prepare(loaded, PLAN, context_for("pafi", fraction=0.01, scope="global")))
    tensors = block_tensors(loaded, PLAN, "pafi")
    whole = torch.cat([value.abs().flatten() for value in tensors.values()])
    taken = torch.cat([tensors[name].abs().flatten()[places] for name, places in masks.items()])
    assert taken.sort().values.tolist() == whole.sort().values[: len(taken)].tolist()
    assert not any("embed" in name or "lm_head" in name for name in masks)


def test_per_example_squares_equal_those_of_torch_func(gpt2, rows):
    some = [row for row in rows if len(row.ids) == len(rows[0].ids)][:6]
    names = tuple(block_tensors(gpt2, PLAN, "fish"))
    model = own_tensors(gpt2, names)
    found = squared_gradients(model, some, check=do_nothing)
    batch = collate(some)
    frozen = dict(model.named_parameters())
    tuned = {name: frozen.pop(name).detach() for name in names}

    def log_likelihood(tensors, ids, labels):
        logits = functional_call(model, {**frozen, **tensors}, (), {"input_ids": ids[None], "use_cache": False}).logits
        nll = torch.nn.functional.cross_entropy(logits[0, :-1], labels[1:], ignore_index=-100, reduction="sum")
        return -nll

    gradients = vmap(grad(log_likelihood), in_dims=(None, 0, 0))(tuned, batch["input_ids"], batch["labels"])
    for name in names:
        expected = (gradients[name] ** 2).mean(0)
        torch.testing.assert_close(found[name], expected, rtol=2e-4, atol=1e-7)
    batched = torch.stack([gradients[names[1]].mean(0) ** 2])
    assert not torch.allclose(found[names[1]], batched[0], rtol=0.1, atol=1e-7)  # the wrong way would be noticed


def test_fish_reads_at_most_as_many_examples_as_asked_drawn_by_the_seed_from_all(loaded, rows):
    found = []
    for seed in (0, 1):
        few = masks_of(METHODS["fish"].prepare(loaded, PLAN, context_for("fish", rows, seed, examples=2)))
        drawn = np.random.default_rng([seed, 0]).permutation(len(rows))[:2]
        same = masks_of(METHODS["fish"].prepare(loaded, PLAN, context_for("fish", tuple(rows[n] for n in drawn))))
        found.append({name: mask.tolist() for name, mask in few.items()})
        assert found[-1] == {name: mask.tolist() for name, mask in same.items()}
    assert found[0] != found[1]


def test_the_lottery_ticket_takes_the_values_a_dense_tuning_moves_most(loaded, rows, tmp_path):
    context = context_for("lt_sft", rows, fraction=0.02, first_steps=4, first_rate=1e-3)
    masks = masks_of(METHODS["lt_sft"].prepare(loaded, PLAN, context))
    before = block_tensors(loaded, PLAN, "lt_sft")
    dense = own_tensors(loaded, tuple(before))
    fit(dense, rows, FitSettings(1e-3, 4, 4, 0, 0.0, 0, "float32"), tmp_path, lambda _row: None, lambda: None)
    moved = {name: (dense.get_parameter(name).detach() - value).abs().flatten() for name, value in before.items()}
    inside = torch.cat([moved[name][places] for name, places in masks.items()])
    whole = torch.cat(list(moved.values()))
    assert inside.min() >= whole.sort(descending=True).values[len(inside) - 1]
    values = dict(METHODS["lt_sft"].prepare(loaded, PLAN, context).named_parameters())
    name, places = next(iter(masks.items()))
    start = values[name.removesuffix("weight") + "parametrizations.weight.0.values"]
    assert torch.equal(start.detach(), before[name].detach().flatten()[places])  # reset to where it started


@pytest.mark.parametrize("name", ["fish", "lt_sft"])
def test_a_mask_found_in_the_data_is_found_once_per_run(name, loaded, rows, tmp_path):
    context = context_for(name, rows, folder=tmp_path / "checkpoints", **options_for(name))
    one = masks_of(METHODS[name].prepare(loaded, PLAN, context))
    files = list((tmp_path / "checkpoints").iterdir())
    assert [file.suffix for file in files] == [".safetensors"]
    save_file({key: mask[:1].cpu() for key, mask in one.items()}, files[0])  # what is read is not found again
    two = masks_of(METHODS[name].prepare(loaded, PLAN, context))
    assert {key: mask.tolist() for key, mask in two.items()} == {key: mask[:1].tolist() for key, mask in one.items()}
    METHODS[name].prepare(loaded, Plan("tiny", 4, (2,)), context)
    other = context_for(name, tuple(reversed(rows)), folder=tmp_path / "checkpoints", **options_for(name))
    METHODS[name].prepare(loaded, PLAN, other)
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3  # another plan and other rows have masks of their own


def test_a_removed_run_folder_is_not_made_again(loaded, rows, tmp_path):
    context = context_for("fish", rows[:2], folder=tmp_path / "removed" / "checkpoints")
    with pytest.raises(RunError, match="Cannot write the mask of fish to"):
        METHODS["fish"].prepare(loaded, PLAN, context)
    assert not (tmp_path / "removed").exists()


@pytest.mark.parametrize("name", ["fish", "lt_sft"])
def test_a_mask_that_needs_rows_is_refused_without_them(name, loaded):
    with pytest.raises(
        BadInputError, match=f"The method {name} chooses its values by training rows, and there are none"
    ):
        METHODS[name].prepare(loaded, PLAN, context_for(name))


def test_asking_to_stop_ends_the_search_for_a_mask(loaded, rows):
    class Asked(Exception):
        pass

    def check():
        raise Asked

    for name in ("fish", "lt_sft"):
        context = context_for(name, rows, **options_for(name))
        with pytest.raises(Asked):
            METHODS[name].prepare(
                loaded, PLAN, type(context)(**{**vars(context), "check": check, "stop": lambda: "keep"})
            )


@pytest.mark.parametrize("name", SPARSE)
@pytest.mark.parametrize("fraction", [0, 1.5, -0.1])
def test_a_fraction_outside_zero_and_one_is_refused(name, fraction):
    with pytest.raises(
        BadInputError, match=rf"The method {name}: fraction is {fraction}; it must lie between 1e-09 and 1"
    ):
        options_of(name, {"fraction": fraction})


def test_a_fraction_too_small_for_a_single_value_is_refused_with_the_least_that_would_do(loaded):
    with pytest.raises(BadInputError, match=r"fraction of 1e-09 keeps none of the plan's \d+ values; give at least"):
        METHODS["random_mask"].count(loaded, PLAN, options_of("random_mask", {"fraction": 1e-9}))
    for n in (1, 7, 10, 640, 90_880, 999_999, 1_048_576, 134_515_008):  # 1 / 90,880 is 0.000011004
        with pytest.raises(BadInputError, match="give at least") as told:
            count_masked({"a": n, "b": 1}, "fish", options_of("fish", {"fraction": 0.5 / (n + 1)}))
        least = float(str(told.value).rpartition("at least ")[2].rstrip("."))
        assert count_masked({"a": n, "b": 1}, "fish", options_of("fish", {"fraction": least})) > 0


def test_two_seeds_draw_two_masks_and_one_seed_one(loaded):
    one, same, other = (
        masks_of(METHODS["random_mask"].prepare(loaded, PLAN, context_for("random_mask", seed=seed)))
        for seed in (0, 0, 1)
    )
    as_lists = [{name: mask.tolist() for name, mask in masks.items()} for masks in (one, same, other)]
    assert as_lists[0] == as_lists[1] != as_lists[2]


def test_fish_takes_the_values_of_the_largest_information(loaded, rows):
    masks = masks_of(METHODS["fish"].prepare(loaded, PLAN, context_for("fish", rows, fraction=0.02)))
    names = tuple(block_tensors(loaded, PLAN, "fish"))
    information = squared_gradients(own_tensors(loaded, names), rows)
    whole = torch.cat([information[name].flatten() for name in names])
    taken = torch.cat([information[name].flatten()[places] for name, places in masks.items()])
    assert taken.sort().values.tolist() == whole.sort().values[-len(taken) :].tolist()


@pytest.mark.parametrize("fraction", [0.29, 0.07])
def test_a_fraction_of_hundred_values_keeps_as_many_as_it_says(fraction):
    assert kept(100, fraction) == round(100 * fraction)


@pytest.mark.parametrize("scope", ["global", "per_tensor"])
def test_top_magnitude_takes_the_largest_values_of_all_planned_blocks_or_of_each_tensor(scope, loaded):
    context = context_for("top_magnitude", fraction=0.01, scope=scope)
    masks = masks_of(METHODS["top_magnitude"].prepare(loaded, PLAN, context))
    tensors = block_tensors(loaded, PLAN, "top_magnitude")
    places = {name: masks.get(name, torch.zeros(0, dtype=torch.long)) for name in tensors}
    for group in [list(tensors)] if scope == "global" else [[name] for name in tensors]:
        whole = torch.cat([tensors[name].abs().flatten() for name in group])
        taken = torch.cat([tensors[name].abs().flatten()[places[name]] for name in group])
        assert len(taken) == int(0.01 * len(whole))
        assert taken.sort().values.tolist() == whole.sort().values[len(whole) - len(taken) :].tolist()
