import numpy as np
import pytest
import torch

from lsf.data.encode import encode
from lsf.models.sharing import share_model
from lsf.models.writing import Drawn, sample_general_text
from lsf.training.evaluation import answer, general_loss
from lsf.training.processes import computing_on


def test_the_base_models_text_is_the_same_every_time_and_nothing_global_moves(loaded):
    state = torch.get_rng_state()
    one = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, seed=1)
    assert torch.equal(state, torch.get_rng_state())
    two = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, seed=1)
    other = sample_general_text(loaded.model, loaded.tokenizer, loaded.context, seed=2)
    assert torch.equal(one.ids, two.ids)
    assert one.ids.shape != other.ids.shape or not torch.equal(one.ids, other.ids)
    assert one.ids.shape[1] <= 64
    for text, length in zip(one.ids.tolist(), one.lengths.tolist(), strict=True):
        assert text[0] == loaded.tokenizer.bos_token_id
        assert length == len(text) or text[length - 1] == loaded.tokenizer.eos_token_id


@pytest.mark.parametrize("what", ["general text", "an answer"])
def test_writing_ends_between_two_tokens_where_it_is_asked_to(loaded, task, what):
    passes, asked = list[None](), list[None]()
    row = encode(loaded.tokenizer, task.test, 64).rows[0]
    handle = loaded.model.model.register_forward_pre_hook(lambda *_: passes.append(None))

    def check():
        asked.append(None)
        if len(asked) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        if what == "general text":
            sample_general_text(loaded.model, loaded.tokenizer, loaded.context, check=check)
        else:
            answer(loaded.model, loaded.tokenizer, row, loaded.context, check=check)
    handle.remove()
    assert len(passes) == 2


def test_tokens_are_drawn_by_the_models_own_probabilities():
    logits = torch.tensor([[1.0, 0.0, -1.0, 2.0]])
    draw = Drawn(0)
    draws = draw(torch.zeros(20_000, 1, dtype=torch.long), logits.expand(20_000, 4)).argmax(-1)
    shares = torch.bincount(draws, minlength=4) / len(draws)
    np.testing.assert_allclose(shares, logits[0].softmax(-1), atol=0.015)  # four standard errors of a share of 0.5


@pytest.mark.parametrize("vocabulary", [2, 3, 5, 8])
def test_no_token_beyond_the_vocabulary_is_drawn_and_none_that_cannot_be(vocabulary):
    logits = torch.zeros(2000, vocabulary)
    logits[:, 0] = -torch.inf
    draws = Drawn(0)(torch.zeros(2000, 1, dtype=torch.long), logits).argmax(-1)
    assert sorted(set(draws.tolist())) == list(range(1, vocabulary))


def test_what_is_drawn_hardly_hangs_on_the_last_bits_of_logits():
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(500, 20_000, generator=generator)
    moved = logits + 1e-4 * torch.randn(logits.shape, generator=generator)
    ids = torch.zeros(500, 1, dtype=torch.long)
    apart = Drawn(0)(ids, logits).argmax(-1) != Drawn(0)(ids, moved).argmax(-1)
    assert apart.sum() <= 2


def test_the_base_models_text_is_written_from_the_same_bits_whatever_the_threads(loaded):
    found = []
    for threads in (1, 3):
        seen: list[torch.Tensor] = []
        keep = seen.append
        handle = loaded.model.lm_head.register_forward_hook(lambda _m, _a, logits, keep=keep: keep(logits))
        with computing_on(threads):
            text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context)
        handle.remove()
        found.append((torch.stack(seen), text.ids))
    assert len(found[0][0]) > 20
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])


def test_general_loss_is_by_hand_and_grows_when_the_model_is_damaged(loaded):
    text = sample_general_text(loaded.model, loaded.tokenizer, loaded.context)
    by_hand = []
    for ids, length in zip(text.ids, text.lengths, strict=True):
        logits = loaded.model(ids[None, :length], use_cache=False).logits[0].log_softmax(-1)
        by_hand += [-logits[at - 1, ids[at]].item() for at in range(1, length)]
    base = general_loss(loaded.model, text)
    np.testing.assert_allclose(base, np.mean(by_hand), rtol=1e-5)
    name = "model.layers.1.mlp.down_proj.weight"
    damaged = share_model(loaded.model, own=[name])
    dict(damaged.named_parameters())[name].data.mul_(-3)
    assert general_loss(damaged, text) > base + 0.05
