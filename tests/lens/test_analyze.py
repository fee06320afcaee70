"""How tokens are written for people, whatever alphabet their tokenizer has."""

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from lsf.lens.analyze import TokenText


@pytest.fixture(scope="module")
def bytewise() -> PreTrainedTokenizerFast:
    """A tokenizer of bytes whose alphabet writes a space as one letter and each byte of an umlaut as another."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=["<|im_end|>"])
    tokenizer.train_from_iterator(["grün café"] * 20, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("grün", ["grün"]),
        (" café", [" café"]),
        ("\n", ["\n"]),
        ("<|im_end|>", ["<|im_end|>"]),
        ("日", ["<0xE6>", "<0x97>", "<0xA5>"]),  # of which no byte alone is a letter
    ],
)
def test_tokens_of_bytes_are_written_as_they_are_read(
    bytewise: PreTrainedTokenizerFast, text: str, written: list[str]
) -> None:
    write = TokenText(bytewise)
    assert [write(token) for token in bytewise(text)["input_ids"]] == written


def test_an_id_beyond_the_tokenizer_is_written_as_an_id(bytewise: PreTrainedTokenizerFast) -> None:
    assert TokenText(bytewise)(10_000) == "<10000>"


def test_letters_that_a_bytewise_alphabet_uses_stay_letters_of_any_other_tokenizer() -> None:
    words = Tokenizer(models.WordLevel({"▁é": 0, "Ã": 1}, unk_token="Ã"))
    write = TokenText(PreTrainedTokenizerFast(tokenizer_object=words))
    assert [write(0), write(1)] == [" é", "Ã"]
