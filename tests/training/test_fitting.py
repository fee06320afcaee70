import os
import random
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from lsf.data.encode import encode
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.checkpoints import Checkpoint, Progress
from lsf.training import fitting
from lsf.training.evaluation import evaluate
from lsf.training.fitting import fit, kept_random_state
from lsf.training.trainer import DivergedError, FitSettings

SETTINGS = FitSettings(1e-2, 6, 4, 0, 0.0, 0, "float32")


@pytest.fixture
def rows(loaded, task):
    return encode(loaded.tokenizer, task.train, 64, append_eos=True).rows


def run_fit(loaded, spec, rows, folder, settings=SETTINGS, stop=lambda: None):
    model = METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    seen = []
    return model, seen, fit(model, rows, settings, folder, seen.append, stop)


def test_the_loss_falls_and_every_step_is_reported(loaded, spec, rows, tmp_path):
    _, seen, done = run_fit(loaded, spec, rows, tmp_path, replace(SETTINGS, steps=30))
    assert [row.step for row in seen] == list(range(1, 31))
    assert np.mean([row.loss for row in seen[-5:]]) < 0.8 * np.mean([row.loss for row in seen[:5]])
    assert seen[0].learning_rate == pytest.approx(1e-2)
    assert seen[-1].learning_rate == pytest.approx(1e-2 / 30)
    assert done.tokens == seen[-1].tokens
    assert done.seconds == pytest.approx(sum(done.step_seconds))


def test_the_first_step_is_adamw_over_the_clipped_gradient_by_hand(loaded, spec, rows, tmp_path):
    model, seen, _ = run_fit(loaded, spec, rows, tmp_path, replace(SETTINGS, steps=1))
    reference = METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    tuned = [p for p in reference.parameters() if p.requires_grad]
    nll = []
    for row in (rows[index] for index in first_batch(len(rows))):
        logits = reference(torch.tensor([row.ids]), use_cache=False).logits[0].log_softmax(-1)
        nll += [-logits[at - 1, row.ids[at]] for at in range(row.n_prompt, len(row.ids))]
    loss = torch.stack(nll).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(tuned, 1.0)
    torch.optim.AdamW(tuned, lr=1e-2, weight_decay=0.0).step()
    assert seen[0].loss == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=2e-4, rtol=0)


def test_selective_and_full_see_the_same_examples_in_the_same_order(loaded, spec, full, rows, tmp_path):
    _, some, _ = run_fit(loaded, spec, rows, tmp_path)
    _, every, _ = run_fit(loaded, full, rows, tmp_path)
    assert [row.tokens for row in some] == [row.tokens for row in every]
    assert some[0].loss == pytest.approx(every[0].loss, rel=1e-6)
    _, still_some, _ = run_fit(loaded, spec, rows, tmp_path, replace(SETTINGS, learning_rate=1e-8))
    _, still_every, _ = run_fit(loaded, full, rows, tmp_path, replace(SETTINGS, learning_rate=1e-8))
    np.testing.assert_allclose([r.loss for r in still_some], [r.loss for r in still_every], rtol=1e-4)
    assert len({round(row.loss, 3) for row in still_some}) > 1  # other batches, other losses: order would show


def test_a_stop_takes_effect_within_one_step(loaded, spec, rows, tmp_path):
    for logged_before_stop in (0, 3):
        model, seen = METHODS["full"].prepare(loaded, spec.plan, MethodContext()), []
        asked = lambda: "keep" if len(seen) >= logged_before_stop else None  # noqa: B023, E731 called in this turn
        done = fit(model, rows, replace(SETTINGS, steps=50), tmp_path, seen.append, asked)
        assert done.steps == len(seen) == max(1, logged_before_stop)
        assert done.stopped == "keep"


def test_there_is_no_dropout_and_the_model_can_be_switched_again_afterwards(tiny, task, spec, tmp_path):
    loaded = load_model(str(tiny("gpt2")), "float32", "cpu")
    assert loaded.model.config.resid_pdrop == 0.1
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    (model, one, _), (_, two, _) = (run_fit(loaded, spec, rows, tmp_path) for _ in range(2))
    assert [row.loss for row in one] == [row.loss for row in two]
    batch = [rows[i] for i in first_batch(len(rows))]
    evaluated = evaluate(METHODS["full"].prepare(loaded, spec.plan, MethodContext()), batch, 4)
    assert one[0].loss == pytest.approx(evaluated.loss, rel=1e-5)
    assert not model.training
    assert model.train().training


def first_batch(n_rows):
    return np.random.default_rng([0, 0]).permutation(n_rows)[:4]


@pytest.mark.parametrize("name", ["self_attn.q_proj", "mlp.down_proj"])  # torch's CPU attention can hide a NaN query
def test_a_lost_loss_or_gradient_ends_the_loop_with_the_step(loaded, spec, rows, tmp_path, name):
    model = METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    model.get_submodule(f"model.layers.2.{name}").weight.data.fill_(float("nan"))
    with pytest.raises(DivergedError, match="no longer finite at step 1; a smaller learning rate"):
        fit(model, rows, SETTINGS, tmp_path, lambda row: None, lambda: None)


def test_nothing_global_is_left_changed_and_nothing_is_printed(loaded, spec, rows, tmp_path, capsys):
    np.random.seed(7)  # noqa: NPY002
    torch.manual_seed(7)
    expected = np.random.RandomState(7).rand()
    torch_state, environment, grad = torch.get_rng_state(), dict(os.environ), torch.is_grad_enabled()
    run_fit(loaded, spec, rows, tmp_path)
    assert np.random.rand() == expected  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert dict(os.environ) == environment
    assert torch.is_grad_enabled() == grad
    assert capsys.readouterr().out == ""


def test_pythons_generator_is_put_back_too():  # apart: beartype, which checks shapes in tests, draws from it as well
    random.seed(7)
    with kept_random_state():
        random.seed(8)
    assert random.random() == random.Random(7).random()


def test_two_loops_in_two_threads_give_what_one_alone_gives(loaded, spec, rows, tmp_path):
    _, alone, _ = run_fit(loaded, spec, rows, tmp_path)
    found = {}

    def work(number):
        found[number] = run_fit(loaded, spec, rows, tmp_path / str(number))[1]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(2):
        assert [row.loss for row in found[number]] == [row.loss for row in alone]


def test_a_bfloat16_base_is_tuned_in_float32_copies(tiny, task, spec, tmp_path):
    for family in ("llama", "gpt2"):
        loaded = load_model(str(tiny(family)), "bfloat16", "cpu")
        rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
        settings = replace(SETTINGS, base_dtype="bfloat16", learning_rate=1e-5)
        model, seen, _ = run_fit(loaded, spec, rows, tmp_path, settings)
        assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
        assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
        assert len(seen) == settings.steps


@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "opt"])
def test_over_a_bfloat16_base_an_embedding_is_tuned_beside_frozen_blocks(tiny, task, spec, tmp_path, family):
    loaded = load_model(str(tiny(family)), "bfloat16", "cpu")
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    asked = replace(spec, plan=Plan(loaded.info.name, loaded.info.n_blocks, (1,), embedding=True))
    settings = replace(SETTINGS, base_dtype="bfloat16", learning_rate=1e-3)
    model, seen, _ = run_fit(loaded, asked, rows, tmp_path, settings)
    embedding = model.get_input_embeddings()
    assert embedding.weight.dtype == torch.float32
    assert embedding(torch.tensor([[1]])).dtype == torch.bfloat16
    assert not torch.equal(embedding.weight, loaded.model.get_input_embeddings().weight.float())
    assert len(seen) == settings.steps


def test_a_loop_that_is_stopped_while_another_goes_on_has_no_steps_to_keep(loaded, spec, rows, tmp_path):
    """Its model does not have the checkpoint's values: kept, it would be the base model under the run's name."""
    start = Checkpoint(tmp_path, Progress(5, 50, 1.0, (), {}))
    model = METHODS["full"].prepare(loaded, spec.plan, MethodContext())
    with fitting._ONE_AT_A_TIME:
        done = fit(model, rows, SETTINGS, tmp_path, lambda row: None, lambda: "keep", start=start)
    assert (done.steps, done.tokens, done.stopped) == (0, 0, "keep")
