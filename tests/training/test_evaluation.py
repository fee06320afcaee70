import math
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from lsf.data.encode import encode
from lsf.data.task import Example
from lsf.models.loading import load_model
from lsf.models.writing import generate, sample_general_text
from lsf.training import evaluation
from lsf.training.evaluation import answer, evaluate, general_loss, spread_out


def greedy(loaded, row):
    settings = GenerationConfig(do_sample=False, max_new_tokens=row.n_completion, pad_token_id=0)
    ids = loaded.model.generate(
        torch.tensor([row.ids[: row.n_prompt]]),
        attention_mask=torch.ones(1, row.n_prompt, dtype=torch.long),
        generation_config=settings,
    )
    return tuple(ids[0].tolist())


def half_right(loaded, task):
    """Every other completion replaced by what the model itself would write."""
    rows = encode(loaded.tokenizer, task.train, 64).rows
    return [replace(row, ids=greedy(loaded, row)) if index % 2 else row for index, row in enumerate(rows)]


def test_exact_match_is_the_share_that_greedy_decoding_reproduces(loaded, task):
    rows = half_right(loaded, task)
    reproduced = [greedy(loaded, row) == row.ids for row in rows]
    metrics: Any = evaluate(loaded.model, rows, 5)
    assert metrics.exact_match == sum(reproduced) / len(rows)
    assert 0.5 <= metrics.exact_match < 1


def test_loss_and_accuracy_are_means_over_completion_tokens(loaded, task):
    rows = half_right(loaded, task)
    losses, hits = [], []
    for row in rows:
        logits = loaded.model(torch.tensor([row.ids]), use_cache=False).logits[0].double()
        for at in range(row.n_prompt, len(row.ids)):
            losses.append(-logits[at - 1].log_softmax(-1)[row.ids[at]].item())
            hits.append(int(logits[at - 1].argmax()) == row.ids[at])
    metrics: Any = evaluate(loaded.model, rows, 7)
    np.testing.assert_allclose(metrics.loss, np.mean(losses), rtol=1e-5)
    assert metrics.accuracy == np.mean(hits)
    assert metrics.perplexity == math.exp(metrics.loss)
    assert metrics.n_examples == len(rows)


def test_the_batch_size_does_not_change_what_is_measured(loaded, task):
    rows = half_right(loaded, task)
    one: Any = evaluate(loaded.model, rows, 1)
    many: Any = evaluate(loaded.model, rows, 24)
    np.testing.assert_allclose(one.loss, many.loss, rtol=1e-5)
    assert (one.exact_match, one.accuracy) == (many.exact_match, many.accuracy)


def test_an_answer_is_what_follows_the_prompt(loaded, task):
    row = half_right(loaded, task)[1]
    wanted = loaded.tokenizer.decode(row.ids[row.n_prompt :], skip_special_tokens=True)
    assert answer(loaded.model, loaded.tokenizer, row, loaded.context).strip().startswith(wanted.strip())


def test_an_answer_ends_where_the_context_of_learned_positions_does(tiny):
    gpt2 = load_model(str(tiny("gpt2")), "float32", "cpu")
    words = " ".join(["the", "cat", "sat", "on"] * gpt2.context)
    (row,) = encode(gpt2.tokenizer, [Example(words, " the mat . the")], gpt2.context).rows
    assert len(row.ids) == gpt2.context > row.n_completion
    given = answer(gpt2.model, gpt2.tokenizer, row, gpt2.context)
    assert len(gpt2.tokenizer(given, add_special_tokens=False)["input_ids"]) <= row.n_completion


def test_wishes_of_the_models_folder_for_its_decoding_change_no_answer_and_no_general_text(loaded, task, monkeypatch):
    prompt = torch.tensor([encode(loaded.tokenizer, task.train[:1], 64).rows[0].ids[:3]])
    plain = generate(loaded.model, prompt, 20, None)
    text = sample_general_text(loaded.model, loaded.tokenizer, 16).ids
    wishes = GenerationConfig(repetition_penalty=1.5, suppress_tokens=[int(plain[0, 3])])
    monkeypatch.setattr(loaded.model, "generation_config", wishes)
    assert generate(loaded.model, prompt, 20, None).tolist() == plain.tolist()
    assert sample_general_text(loaded.model, loaded.tokenizer, 16).ids.tolist() == text.tolist()
    assert loaded.model.generation_config is wishes


def test_the_rows_read_are_the_same_in_every_run():
    assert spread_out(3, 5) == [0, 1, 2]
    assert spread_out(100, 5) == spread_out(100, 5) == sorted(set(spread_out(100, 5)))
    assert set(spread_out(100, 5)) <= set(spread_out(100, 9))


def test_rows_that_do_not_fit_together_are_read_in_halves_to_the_same_sums(loaded, task, monkeypatch):
    rows, text = half_right(loaded, task), sample_general_text(loaded.model, loaded.tokenizer, 16)
    whole: Any = evaluate(loaded.model, rows, 24)
    lost = general_loss(loaded.model, text)
    score, passed = evaluation.score_tokens, []

    def narrow(model, batch):
        if len(batch["numbers"]) > 2:
            raise torch.OutOfMemoryError("out of memory")
        passed.append(len(batch["numbers"]))
        return score(model, batch)

    monkeypatch.setattr(evaluation, "score_tokens", narrow)
    halved: Any = evaluate(loaded.model, rows, 24)
    assert max(passed) == 2
    assert (halved.exact_match, halved.accuracy, halved.n_examples) == (
        whole.exact_match, whole.accuracy, whole.n_examples,
    )  # fmt: skip
    np.testing.assert_allclose(halved.loss, whole.loss, rtol=1e-6)
    np.testing.assert_allclose(general_loss(loaded.model, text), lost, rtol=1e-6)
