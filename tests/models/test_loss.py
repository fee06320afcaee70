import numpy as np
import torch

from lsf.data.encode import encode
from lsf.models.batches import OrderedRows, collate, score_tokens, training_order


def test_only_the_completion_and_its_end_are_scored(loaded, task):
    rows = encode(loaded.tokenizer, task.train[:3], 64, append_eos=True).rows
    scores = score_tokens(loaded.model, collate(rows))
    for index, row in enumerate(rows):
        logits = loaded.model(torch.tensor([row.ids]), use_cache=False).logits[0].log_softmax(-1)
        by_hand = [-logits[at - 1, row.ids[at]].item() for at in range(row.n_prompt, len(row.ids))]
        counted = scores.nll[index][scores.counted[index]].tolist()
        assert len(by_hand) == row.n_completion + 1
        np.testing.assert_allclose(counted, by_hand, atol=1e-5)


def test_a_batch_is_padded_to_the_right_with_labels_outside_the_prompt(loaded, task):
    rows = encode(loaded.tokenizer, (task.train[0], type(task.train[0])("the", " cat")), 64).rows
    batch = collate(rows)
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]
    assert batch["labels"][1].tolist() == [-100, -100, rows[1].ids[2], -100, -100, -100]
    assert batch["scored"].tolist() == [[0, rows[0].n_prompt - 1 + n, n] for n in range(6 - rows[0].n_prompt)] + [
        [1, 1, 0]
    ]


def test_every_pass_visits_every_row_once_and_a_longer_run_begins_like_a_shorter_one():
    order = training_order(5, 13, seed=3)
    assert sorted(order[:5]) == sorted(order[5:10]) == list(range(5))
    assert order[:5].tolist() != order[5:10].tolist()
    np.testing.assert_array_equal(order[:7], training_order(5, 7, seed=3))
    assert order.tolist() != training_order(5, 13, seed=4).tolist()


def test_tokens_are_counted_without_padding(loaded, task):
    rows = encode(loaded.tokenizer, (task.train[0], type(task.train[0])("the", " cat")), 64).rows
    data = OrderedRows(rows, np.array([0, 1, 1, 1]))
    assert [len(row.ids) for row in rows] == [6, 3]
    assert data.tokens_after_batch(2).tolist() == [9, 15]
