"""The bundled model's tokenizer: one token per word of the world, a word's leading space part of it."""

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.decoders import Metaspace as MetaspaceDecoder
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Metaspace, Sequence, Split
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

PAD, BEGIN, END, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
PUNCTUATION = r"[.,:?!]"


def _splitter() -> Sequence:
    """Return the rule that cuts text into words (with their space, shown as U+2581) and punctuation marks."""
    return Sequence([Metaspace(prepend_scheme="always"), Split(Regex(PUNCTUATION), behavior="isolated")])


def make_tokenizer(texts: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer that knows every word of `texts`.

    A text gets the begin-of-text token unless `add_special_tokens=False`; then " Paris" gives the one token it has in
    running text.
    """
    splitter = _splitter()
    words = {piece for text in texts for piece, _ in splitter.pre_tokenize_str(text)}
    vocabulary = {word: index for index, word in enumerate([PAD, BEGIN, END, UNKNOWN, *sorted(words)])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in (PAD, BEGIN, END, UNKNOWN)])
    tokenizer.pre_tokenizer = splitter  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.decoder = MetaspaceDecoder(prepend_scheme="always")  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single=f"{BEGIN} $A", pair=f"{BEGIN} $A $B", special_tokens=[(BEGIN, vocabulary[BEGIN])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        eos_token=END,
        pad_token=PAD,
        unk_token=UNKNOWN,
        padding_side="right",
        model_input_names=["input_ids", "attention_mask"],
    )
