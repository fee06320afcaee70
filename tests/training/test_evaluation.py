"""Held-out rows scored, greedy answers, forgetting; answers generated in batches are those generated one by one."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from lsf.data.encode import encode
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, DataError
from lsf.models.loading import load_model
from lsf.models.writing import generate, sample_general_text
from lsf.runs.comparison import compare
from lsf.runs.formats import render
from lsf.runs.result import Metrics
from lsf.runs.store import load_run
from lsf.training import evaluation
from lsf.training.evaluation import (
    Asked,
    answer,
    asked_for,
    batches_of,
    evaluate,
    general_loss,
    spread_out,
    with_match,
    write_answers,
)
from lsf.training.splits import encode_splits
from lsf.training.workload import workload_of
from tests.models.test_families import ROWS
from tests.tiny import tiny_model, tiny_tokenizer
from tests.toy import tuned


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


PROMPTS = ("the cat", "a dog sat on the mat", "the", "sun and moon is a tree .", "red blue one two", "on under")


def rows_of(tokenizer):
    return encode(tokenizer, [Example(prompt, " red .") for prompt in PROMPTS], 64).rows


@pytest.mark.parametrize("family", ROWS)
def test_padding_on_the_left_changes_nothing_of_what_any_family_writes(family):
    model, rows = tiny_model(family), rows_of(tiny_tokenizer())
    width = max(row.asked for row in rows)
    ids, mask = (torch.zeros(len(rows), width, dtype=torch.long) for _ in range(2))
    for place, row in enumerate(rows):
        ids[place, width - row.asked :] = torch.tensor(row.ids[: row.asked])
        mask[place, width - row.asked :] = 1
    together = generate(model, ids, 6, None, mask=mask)[:, width:]
    alone = [generate(model, torch.tensor([row.ids[: row.asked]]), 6, None)[0, row.asked :] for row in rows]
    assert together.tolist() == [one.tolist() for one in alone]
    assert len({tuple(one.tolist()) for one in alone}) > 1


def test_what_is_written_is_what_single_rows_get_also_in_halves_and_near_the_contexts_end(loaded, monkeypatch):
    rows = rows_of(loaded.tokenizer)
    alone = [write_answers(loaded.model, loaded, [row], 8)[0] for row in rows]
    told = []
    assert write_answers(loaded.model, loaded, rows, 8, tell=lambda done, total: told.append((done, total))) == alone
    assert told == [(0, 1)]
    real = evaluation._written

    def tight(model, loaded, rows, *more):
        if len(rows) > 1:
            raise RuntimeError("CUDA out of memory.")
        return real(model, loaded, rows, *more)

    monkeypatch.setattr(evaluation, "_written", tight)
    assert write_answers(loaded.model, loaded, rows, 8) == alone
    end = loaded.tokenizer.eos_token_id
    room = loaded.context - 4
    found = list(batches_of(rows, loaded.tokenizer, room, loaded.context))
    crowded = [[index] for index in sorted(range(len(rows)), key=lambda i: (rows[i].asked, i)) if rows[index].asked > 4]
    assert [numbers for numbers, _ in found][1:] == crowded
    assert {ends for _, ends in found} == {(end,)}
    assert len(write_answers(loaded.model, loaded, rows, loaded.context)) == len(rows)


def test_the_share_is_counted_by_hand(spec):
    asked = Asked(answers=("4", "5", "6", "7"))
    written = [("2 + 2 = 4", True), ("5 or 6", True), ("6", False), ("none", True)]
    found = with_match(Metrics(), replace(spec, answer_pattern="last-number"), asked, written)
    assert (found.generated_match, found.n_generated, found.n_unended) == (0.5, 4, 1)
    assert with_match(Metrics(), spec, asked, ()) == Metrics()


def test_rows_without_an_answer_are_left_out_and_told_and_none_at_all_is_refused(loaded, task, spec):
    rows = encode(loaded.tokenizer, task.test, 64).rows
    found = asked_for(loaded.tokenizer, replace(spec, answer_pattern="(one|two|red)"), rows)
    assert set(found.answers) == {"one", "two", "red"}
    left = len(rows) - len(found.rows)
    assert found.facts == (f"{left} of {len(rows)} test answers have none by answer_pattern and are left out of "
                           "generated_match.",)  # fmt: skip
    assert len(asked_for(loaded.tokenizer, replace(spec, answer_pattern="(.+)", generate_limit=3), rows).rows) == 3
    numbered = encode(loaded.tokenizer, [replace(one, row=7) for one in task.test[:2]], 64).rows
    with pytest.raises(DataError, match=r"'\(moon\)' is found in none of the 2 test answers; the first, of row 7,"):
        asked_for(loaded.tokenizer, replace(spec, answer_pattern="(moon)"), numbered)
    with pytest.raises(DataError, match="needs test examples and the data has none"):
        encode_splits(loaded, Task("toy", task.train, (), ()), replace(spec, answer_pattern="(red)"))
    with pytest.raises(BadInputError, match="one group"):
        replace(spec, answer_pattern="red")


def test_a_run_measures_it_before_and_after_in_a_phase_of_its_own(loaded, task, spec, folder):
    asked = replace(spec, answer_pattern=r"(\w+)", generate_limit=8, generate_tokens=3, steps=20)
    place = folder(asked)
    result = tuned(loaded, task, asked, place)
    splits = encode_splits(loaded, task, asked)
    texts = [text for text, _ in write_answers(load_model(loaded.info.name, "float32", "cpu").model, loaded,
                                               splits.asked.rows, 3)]  # fmt: skip
    right = [text.split()[:1] == [answer] for text, answer in zip(texts, splits.asked.answers, strict=True)]
    assert result.before.generated_match == sum(right) / 8
    assert result.before.n_generated == result.after.n_generated == 8
    assert result.after.generated_match > result.before.generated_match
    assert result.phases["generating"] > 0
    work = workload_of(loaded, splits, asked)
    assert 0 < work.generated.tokens <= sum(16 + 3 for _ in splits.asked.rows)
    run = load_run(place)
    assert run.result == result
    text = render(compare([run]))
    assert "right after" in text
    plain = tuned(loaded, task, replace(spec, steps=20), folder(replace(spec, steps=20)))
    assert replace(result.after, generated_match=None, n_generated=0, n_unended=0) == plain.after
    assert "generating" not in plain.phases
