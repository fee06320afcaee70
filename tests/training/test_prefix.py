"""The frozen prefix, computed once: the same losses, in every family, in memory and on disk."""

import errno
import json
import os
import tracemalloc
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file

import lsf
from lsf.data.encode import encode
from lsf.errors import BadInputError, RunError
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.store import read_metrics
from lsf.training import prefix as kept
from lsf.training.caching import cache_root, decide, disk_room, forget_states, open_caching, open_held_out
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit
from lsf.training.prefix import States, groups_of
from lsf.training.run import tune
from lsf.training.trainer import FitSettings, StepRow
from lsf.training.workload import filling_steps
from tests.models.test_families import ROWS


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch, loaded):
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    forget_states(loaded)


@pytest.fixture
def thrice(spec):
    """A run that goes through its 24 examples three times."""
    return replace(spec, steps=12, batch_size=6)


def losses(folder):
    return np.array([row["loss"] for row in read_metrics(folder)[1:]])


def test_fifty_steps_have_the_same_losses_with_and_without_the_cache(loaded, task, thrice, folder):
    plain = replace(thrice, steps=50, cache="off")
    one = folder(plain)
    without = tune(loaded, task, plain, one)
    assert without.cache == {"kind": "off", "reason": "It was not asked for.", "depth": 0}
    for kind in ("memory", "disk"):
        forget_states(loaded)
        cached = replace(plain, cache=kind)
        other = folder(cached)
        with_it = tune(loaded, task, cached, other)
        assert np.abs(losses(one) - losses(other)).max() <= 1e-5
        assert with_it.cache is not None
        assert with_it.cache["kind"] == kind
        assert with_it.cache["bytes"] == sum(len(row.ids) for row in encoded(loaded, task)) * 32 * 4
        assert (with_it.cache["served"], with_it.cache["computed"]) == (300, 24)
        assert with_it.proof == without.proof


def encoded(loaded, task):
    return encode(loaded.tokenizer, task.train, 64, append_eos=True).rows


@pytest.mark.parametrize("family", ROWS)
def test_the_stand_in_gives_the_same_losses_in_every_family(tiny, family, task, tmp_path):
    base = load_model(str(tiny(family)), "float32", "cpu")
    last, rows = Plan("tiny", base.info.n_blocks, (base.info.n_blocks - 1,)), encoded(base, task)
    settings = FitSettings(1e-3, 5, 6, 0, 0.01, 0, "float32")  # every row, and some again
    found = []
    for kind in ("off", "memory"):
        model, seen = METHODS["full"].prepare(base, last, MethodContext()), list[StepRow]()
        caching = open_caching(base, model, last, rows, kind, 30)
        fit(model, rows, settings, tmp_path, seen.append, lambda: None, prefix=caching.prefix)
        found.append([row.loss for row in seen])
    assert len(found[0]) == 5
    assert found[1] == pytest.approx(found[0], abs=1e-5)
    assert caching.summary()["served"] == 30


@pytest.mark.parametrize("block", range(4))
def test_a_hook_on_any_block_acts_once_with_and_without_the_cache(tiny, block, task, spec, tmp_path):
    steered = lsf.load(str(tiny("llama")), "float32", "cpu")
    steered.model.model.layers[block].register_forward_hook(lambda _module, _given, out: out + 0.5)
    base, found = steered.measured(), []
    rows, run = encoded(base, task), replace(spec, plan=Plan("tiny", 4, (2, 3)))
    for kind in ("off", "memory"):
        model, seen = METHODS["full"].prepare(base, run.plan, MethodContext()), list[StepRow]()
        caching = open_caching(base, model, run.plan, rows, kind, 30)
        settings = FitSettings(1e-3, 5, 6, 0, 0.01, 0, "float32")
        fit(model, rows, settings, tmp_path, seen.append, lambda: None, prefix=caching.prefix)
        held_out = open_held_out(base, model, replace(run, cache="off" if kind == "off" else "auto"), rows, "test", 5)
        assert (held_out is None) == (kind == "off")
        found.append([row.loss for row in seen] + [evaluate(model, rows, 5, prefix=held_out).loss])
    assert found[1] == pytest.approx(found[0], abs=1e-5)


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_a_later_run_that_freezes_as_deep_computes_nothing_again_and_has_the_same_bits(
    loaded, task, thrice, folder, kind
):
    places, results = [], []
    for seed in (0, 1, 0):
        asked = replace(thrice, cache=kind, seed=seed)
        places.append(folder(asked))
        results.append(tune(loaded, task, asked, places[-1]))
    assert [result.cache["computed"] for result in results] == [24, 0, 0]
    assert (losses(places[0]) == losses(places[2])).all()
    weights = [load_file(place / "weights" / "tuned.safetensors") for place in places]
    assert all(torch.equal(weights[0][name], weights[2][name]) for name in weights[0])
    assert not all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_a_run_that_freezes_deeper_starts_from_what_is_known_below(loaded, task, thrice, folder):
    asked = replace(thrice, cache="memory", steps=8)
    tune(loaded, task, asked, folder(asked))
    deeper = replace(asked, plan=Plan("tiny", 4, (3,)))
    plain = replace(deeper, cache="off")
    one, other = folder(deeper), folder(plain)
    tune(loaded, task, deeper, one)
    tune(loaded, task, plain, other)
    assert np.abs(losses(one) - losses(other)).max() <= 1e-5
    forget_states(loaded)
    alone = folder(deeper)
    tune(loaded, task, deeper, alone)
    assert (losses(one) == losses(alone)).all()
    tune(loaded, task, asked, folder(asked))
    model = METHODS["full"].prepare(loaded, deeper.plan, MethodContext())
    caching = open_caching(loaded, model, deeper.plan, encoded(loaded, task), "memory", 100)
    assert caching.prefix is not None
    assert caching.prefix.shallower is not None
    assert caching.prefix.shallower.depth == 2


def test_a_damaged_entry_on_disk_is_computed_again(tmp_path):
    states = States(2, [3, 4, 2], tmp_path / "one")
    rows = [torch.randn(length, 8) for length in (3, 4, 2)]
    for number, row in enumerate(rows):
        states.put(number, row)
    states.close()
    with (tmp_path / "one" / "states.bin").open("r+b") as file:
        file.seek(3 * 8 * 4 + 5)
        file.write(b"\xff\x00\xff")
    again = States(2, [3, 4, 2], tmp_path / "one")
    assert [again.has([number]) for number in range(3)] == [True, False, True]
    assert torch.equal(again.get(2), rows[2])
    with pytest.raises(RunError, match="is used by another process"):
        States(2, [3, 4, 2], tmp_path / "one")
    again.close()


def test_bfloat16_states_come_back_bit_for_bit(tmp_path):
    states = States(1, [5], tmp_path / "bf16")
    row = torch.randn(5, 8, dtype=torch.bfloat16)
    states.put(0, row)
    states.close()
    again = States(1, [5], tmp_path / "bf16")
    assert torch.equal(again.get(0), row)
    again.close()


def test_the_choice_says_why(loaded, task, monkeypatch):
    rows = encoded(loaded, task)
    middle = Plan("tiny", 4, (2,))
    assert decide(loaded, Plan("tiny", 4, (0, 3)), rows, "auto", 999)[:2] == (
        "off", "Nothing lies below what is tuned.",
    )  # fmt: skip
    assert decide(loaded, replace(middle, embedding=True), rows, "auto", 999)[0] == "off"
    tied, headed = replace(loaded, info=replace(loaded.info, tied_head=True)), replace(middle, head=True)
    said = "The head is tied to the embedding, which moves with it: nothing below can be frozen or cached."
    assert decide(tied, headed, rows, "auto", 999)[:2] == ("off", said)
    assert headed.tied_words(tied_head=False) is middle.tied_words(tied_head=True) is None
    assert decide(loaded, middle, rows, "auto", len(rows))[1] == "No example is seen twice."
    kind, reason, depth = decide(loaded, middle, rows, "auto", len(rows) + 1)
    assert (kind, depth) == ("memory", 2)
    assert "24 examples" in reason
    monkeypatch.setenv("LSF_CACHE_BYTES", "10")
    with pytest.raises(BadInputError, match=r"The prefix cache would take 0\.\d MB and disk has room for 0\.0 MB"):
        decide(loaded, middle, rows, "disk", 999)


def test_states_on_disk_are_of_one_configuration_the_same_weights_under_another_compute_their_own(
    loaded, turned, task, thrice, folder
):
    cached, plain = replace(thrice, cache="disk"), replace(thrice, cache="off")
    one, own, reference = folder(cached), folder(cached), folder(plain)
    tune(loaded, task, cached, one)
    result = tune(turned, task, cached, own)
    tune(turned, task, plain, reference)
    assert result.cache is not None and (result.cache["found"], result.cache["computed"]) == (0, 24)
    assert np.abs(losses(own) - losses(reference)).max() <= 1e-5 < np.abs(losses(own) - losses(one)).max()


def test_a_cache_folder_that_cannot_be_made_has_no_room_and_a_size_is_read_or_refused_in_one_sentence(
    loaded, task, thrice, folder, monkeypatch
):
    monkeypatch.setenv("LSF_CACHE_BYTES", "1K")
    assert disk_room() == 1e3
    monkeypatch.setenv("LSF_CACHE_BYTES", "much")
    with pytest.raises(BadInputError, match="LSF_CACHE_BYTES is 'much'"):
        disk_room()
    monkeypatch.delenv("LSF_CACHE_BYTES")
    monkeypatch.setenv("LSF_CACHE", "/dev/null/x")
    assert disk_room() == 0
    assert tune(loaded, task, thrice, folder(thrice)).state == "succeeded"


def test_old_caches_on_disk_make_room_for_a_new_one(loaded, task, thrice, folder, monkeypatch):
    asked = replace(thrice, cache="disk", steps=6)
    tune(loaded, task, asked, folder(asked))
    (first,) = cache_root().iterdir()
    size = json.loads((first / "about.json").read_text())["n_tokens"] * 32 * 4
    monkeypatch.setenv("LSF_CACHE_BYTES", str(int(1.5 * size)))
    deeper = replace(asked, plan=Plan("tiny", 4, (3,)))
    tune(loaded, task, deeper, folder(deeper))
    (second,) = cache_root().iterdir()
    assert second != first


def test_a_half_made_cache_is_the_oldest_and_one_in_use_stays(loaded, task, thrice, folder, monkeypatch):
    asked = replace(thrice, cache="disk", steps=6)
    half, used = (cache_root() / name for name in ("half", "used"))
    for place in (half, used):
        place.mkdir(parents=True)
        (place / "states.bin").write_bytes(bytes(10_000))
    monkeypatch.setenv("LSF_CACHE_BYTES", "100000")
    with FileLock(used / "lock"):
        tune(loaded, task, asked, folder(asked))
        assert half.exists()  # there is room for both
        monkeypatch.setenv("LSF_CACHE_BYTES", str(sum(len(row.ids) for row in encoded(loaded, task)) * 32 * 4 + 1))
        deeper = replace(asked, plan=Plan("tiny", 4, (3,)))
        tune(loaded, task, deeper, folder(deeper))
        assert not half.exists()
        assert used.exists()


def test_a_disk_that_fills_up_meanwhile_costs_the_cache_and_not_the_run(loaded, task, thrice, folder, monkeypatch):
    plain, cached = replace(thrice, cache="off", steps=6), replace(thrice, cache="disk", steps=6)
    one, other = folder(plain), folder(cached)
    tune(loaded, task, plain, one)

    def full(*_arguments):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(kept, "_reserve", full)
    result = tune(loaded, task, cached, other)
    assert np.abs(losses(one) - losses(other)).max() <= 1e-5
    assert result.cache == {
        "kind": "off", "reason": "The disk did not take the states: No space left on device.", "depth": 0,
    }  # fmt: skip
    assert list(cache_root().iterdir()) == []


def test_a_file_is_filled_in_parts_where_the_system_reserves_none(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "posix_fallocate", raising=False)
    tracemalloc.start()
    kept._reserve(tmp_path / "states.bin", 3 * kept.WRITTEN + 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (tmp_path / "states.bin").stat().st_size == 3 * kept.WRITTEN + 5
    assert peak < 1.5 * kept.WRITTEN


def test_recomputed_activations_change_no_loss(loaded, task, spec, folder, monkeypatch):
    calls = Counter[str]()
    block = type(loaded.layout.blocks[0])
    forward = block.forward

    def counted(self, *given, **named):
        calls["forward"] += torch.is_grad_enabled()  # the readings before and after know no gradients
        return forward(self, *given, **named)

    monkeypatch.setattr(block, "forward", counted)
    found, made = {}, {}
    for kind in ("off", "non_reentrant"):
        asked = replace(spec, activation_checkpointing=kind, cache="off", steps=10)
        place = folder(asked)
        calls.clear()
        tune(loaded, task, asked, place)
        found[kind], made[kind] = losses(place), calls["forward"]
    assert made["non_reentrant"] > made["off"]
    assert np.abs(found["off"] - found["non_reentrant"]).max() <= 1e-6
    with pytest.raises(BadInputError, match="activation_checkpointing is 'reentrant'; accepted are: off"):
        replace(spec, activation_checkpointing="reentrant")


def test_micro_batches_add_up_to_the_batch(loaded, task, spec, folder):
    found = []
    for micro in (None, 2, 1):
        asked = replace(spec, micro_batch=micro, steps=10)
        place = folder(asked)
        assert tune(loaded, task, asked, place).micro_batch == (micro or 4)
        found.append(losses(place))
    assert np.abs(found[0] - found[1]).max() <= 1e-5
    assert np.abs(found[0] - found[2]).max() <= 1e-5
    with pytest.raises(BadInputError, match="micro_batch is 3; it must divide the batch of 4"):
        replace(spec, micro_batch=3)


@pytest.mark.parametrize(("n_rows", "batch"), [(512, 16), (2000, 8), (96, 8), (40, 16)])
def test_most_of_the_cache_is_filled_in_the_steps_that_the_forecast_says(n_rows, batch):
    generator, steps = np.random.default_rng(0), filling_steps(n_rows, batch)
    group_of = {row: place for place, group in enumerate(groups_of([7] * n_rows)) for row in group}
    orders = [generator.permutation(n_rows) for _ in range(200)]
    met = [[len({group_of[row] for row in order[: count * batch]}) for order in orders] for count in (steps, steps - 1)]
    now, before = (np.mean(one) / (max(group_of.values()) + 1) for one in met)
    assert now > 0.7
    assert before < 0.85  # no step more than it takes
