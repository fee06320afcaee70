"""From examples to token ids, as METHOD fixes it."""

from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from lsf.data.contents import Segments
from lsf.data.encode import context_length, encode, straddling_words
from lsf.data.task import Example
from lsf.errors import DataError
from lsf.models.batches import collate, score_tokens
from tests.data.chat_templates import byte_level
from tests.tiny import tiny_model, tiny_tokenizer

TOKENIZER = tiny_tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]


def test_the_tokenizers_start_token_comes_before_the_prompt() -> None:
    row = encode(TOKENIZER, [Example("the cat", " sat on")], 64).rows[0]
    assert row.ids == (1, *ids("the cat"), *ids("sat on"))
    assert (row.n_prompt, row.n_completion) == (3, 2)


def test_end_of_text_is_appended_for_training_only() -> None:
    row = encode(TOKENIZER, [Example("the cat", " sat")], 64, append_eos=True).rows[0]
    assert row.ids[-1] == TOKENIZER.eos_token_id
    assert row.n_completion == 1


def test_a_long_prompt_is_cut_from_the_left_and_a_long_completion_is_dropped_and_counted() -> None:
    examples = [Example("the cat sat on the mat", " one two"), Example("the", " one two three four")]
    found = encode(TOKENIZER, examples, 4)
    assert found.n_dropped == 1
    assert found.rows[0].ids == (1, *ids("mat one two"))
    assert found.rows[0].n_prompt == 2
    assert encode(TOKENIZER, examples[:1], 3).rows[0].ids == tuple(ids("mat one two"))  # never the start token alone
    segments = Example("", "", content=Segments(((False, examples[0].prompt), (True, " one two"))))
    assert encode(TOKENIZER, [segments], 4).rows[0].ids == found.rows[0].ids


def test_nothing_fits() -> None:
    with pytest.raises(DataError, match="No completion fits into 3 tokens"):
        encode(TOKENIZER, [Example("the", " one two three")], 3)


def test_a_completion_without_tokens_names_its_row() -> None:
    with pytest.raises(DataError, match="Row 7: the completion ' ' has no tokens"):
        encode(TOKENIZER, [Example("the", " ", 7)], 8)


def test_the_length_is_bounded_by_the_context() -> None:
    assert context_length(64, None) == 64
    assert context_length(4096, None) == 1024
    assert context_length(4096, 2048) == 2048
    assert context_length(64, 2048) == 64


def byte_tokenizer(trim: bool) -> Any:
    """Return a byte-level tokenizer with some merges, as GPT-2's family has it; its tokens' blanks may be trimmed."""
    merges = [("i", "s"), ("Ġ", "P"), ("ĠP", "a"), ("ĠPa", "r"), ("ĠPar", "is"), (".", "Ċ")]
    words = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(pair) for pair in merges)]
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore
        [pre_tokenizers.Split(" ", "merged_with_next"), pre_tokenizers.ByteLevel(False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)  # pyright: ignore
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def marking_tokenizer(scheme: Any = "first") -> Any:
    """Return a tokenizer that marks the start of every text, as Llama's family does, and words alone."""
    pieces = ["<s>", "</s>", "▁", "▁the", "▁cat", "▁sat", "sat", "the"]
    tokenizer = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, [], ignore_merges=True))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)  # pyright: ignore
    tokenizer.post_processor = processors.TemplateProcessing(  # pyright: ignore
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 1)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")


def test_the_first_target_is_the_one_of_the_whole_text_not_the_mark_of_a_text_of_its_own() -> None:
    tokenizer = marking_tokenizer()
    row = encode(tokenizer, [Example("the cat", " sat")], 64).rows[0]
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["<s>", "▁the", "▁cat", "▁sat"]
    assert (row.n_prompt, row.n_completion, row.straddles) == (3, 1, False)


def test_the_tokenizers_own_end_token_is_left_out_and_appended_once_for_training() -> None:
    tokenizer = marking_tokenizer()
    rows = encode(tokenizer, [Example("the cat", " sat"), Example("the cat", " sat</s>")], 64, append_eos=True).rows
    assert rows[0].ids == rows[1].ids
    assert tokenizer.convert_ids_to_tokens(rows[0].ids)[-2:] == ["▁sat", "</s>"]
    assert [row.n_completion for row in rows] == [1, 1]


def test_a_start_token_that_the_text_already_has_is_not_doubled() -> None:
    tokenizer = marking_tokenizer()
    row = encode(tokenizer, [Example("<s>the cat", " sat")], 64).rows[0]
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["<s>", "the", "▁cat", "▁sat"]
    assert row.n_prompt == 3


@pytest.mark.parametrize("trim", [False, True])
def test_a_token_across_the_border_is_a_target_and_counted(trim: bool) -> None:
    tokenizer = byte_tokenizer(trim)
    found = encode(tokenizer, [Example("is ", "Paris"), Example("is", " Paris"), Example("is.\n", "Pa")], 64)
    assert [tokenizer.convert_ids_to_tokens(row.ids)[row.n_prompt] for row in found.rows] == ["ĠParis", "ĠParis", "P"]
    assert [row.straddles for row in found.rows] == [True, False, False]
    assert found.n_straddling == 1
    parts = [((False, prompt), (True, target)) for prompt, target in (("is ", "Paris"), ("is", " Paris"), ("P", "a"))]
    rows = encode(tokenizer, [Example("", "", content=Segments(some)) for some in parts], 64).rows
    assert [row.straddles for row in rows] == [True, False, False]


def test_the_start_token_stays_where_a_long_prompt_is_cut_behind_it() -> None:
    tokenizer = marking_tokenizer()
    row = encode(tokenizer, [Example("the cat sat the cat the cat", " sat")], 5).rows[0]
    assert tokenizer.convert_ids_to_tokens(row.ids) == ["<s>", "▁cat", "▁the", "▁cat", "▁sat"]
    assert (row.n_prompt, row.n_completion) == (4, 1)


def test_without_characters_the_border_is_where_the_prompts_own_ids_end() -> None:
    tokenizer = ByT5Tokenizer()
    assert not tokenizer.is_fast
    row = encode(tokenizer, [Example("is", " é")], 64).rows[0]
    assert row.ids == tuple(tokenizer("is é")["input_ids"][:-1])
    assert (row.n_prompt, row.n_completion, row.straddles) == (2, 3, False)


def test_a_straddling_row_is_told_in_a_sentence() -> None:
    assert straddling_words(0) == ""
    assert straddling_words(1).startswith("1 row has a token that is part prompt, part completion")
    assert straddling_words(3, " of the first 500").startswith("3 of the first 500 rows have a token")


def test_a_token_that_reaches_into_two_segments_is_a_target_once() -> None:
    tokenizer = byte_level(None)
    assert tokenizer.tokenize(" sky") == ["Ġsky"]
    for parts, targets in (
        (((False, "a"), (True, " s"), (False, "k"), (True, "y.")), [" sky", ".", "</s>"]),
        (((False, "a"), (True, " s"), (False, "k"), (True, "y"), (False, ".")), [" sky"]),
    ):
        (row,) = encode(tokenizer, [Example("", "", content=Segments(parts))], 64, append_eos=True).rows
        assert [tokenizer.decode([row.ids[place]]) for place in row.targets] == targets
        assert row.n_targets == len(set(row.targets)) == len(targets)
        assert len(row.looked_at("all")) == row.n_completion == len([one for one in targets if one != "</s>"])
        ids, labels = torch.tensor([row.ids]), collate([row])["labels"]
        model = tiny_model("llama", vocab_size=len(tokenizer)).eval()
        scores = score_tokens(model, collate([row]))
        with torch.no_grad():
            assert (scores.nll.sum() / scores.counted.sum()).item() == pytest.approx(
                model(input_ids=ids, labels=labels).loss.item(), rel=1e-5
            )
