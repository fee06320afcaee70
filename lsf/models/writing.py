"""What a model writes: greedy or drawn continuations, and texts in its own words."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList
from transformers.generation.streamers import BaseStreamer

from lsf.data.encode import EncodedExample
from lsf.data.task import Example
from lsf.models.batches import autocasting
from lsf.models.devices import input_device
from lsf.progress import do_nothing

N_SEQUENCES = 64
"""Texts sampled from the base model."""
N_TOKENS = 64
"""Tokens of each at most, the first one included."""


class Asking(LogitsProcessor):
    """Asks, whenever a token is to be written, whether to go on; the logits stay as they are."""

    def __init__(self, check: Callable[[], None]) -> None:
        """Ask by calling `check`, which may raise."""
        self._check = check

    def __call__(
        self, input_ids: Int[Tensor, "texts tokens"], scores: Float[Tensor, "texts vocab"]
    ) -> Float[Tensor, "texts vocab"]:
        """Return the logits as they are."""
        self._check()
        return scores


def generate(
    model: Any,
    prompts: torch.Tensor,
    n_new: int,
    end: int | list[int] | None,
    processors: Sequence[LogitsProcessor] = (),
    check: Callable[[], None] = do_nothing,
    mask: torch.Tensor | None = None,
    streamer: BaseStreamer | None = None,
) -> torch.Tensor:
    """Continue prompts of equal length by arg-max, with transformers' own `generate`.

    What a model's folder wishes for its decoding (generation_config.json: a repetition penalty, suppressed tokens) is
    left out: what is asked is what the model itself says.

    Args:
        model: a causal LM.
        prompts: ids of shape (examples, tokens).
        n_new: tokens to add at most.
        end: id of end-of-text, or several that end a text; None goes on to `n_new`.
        processors: what is done to the logits before the arg-max.
        check: called before each token; may raise to end the writing.
        mask: 0 where a prompt is padded on the left, else 1, of the prompts' shape; None where none is.
        streamer: gets a single prompt's ids, then each token as it is written.

    Returns:
        Ids of shape (examples, at most tokens + n_new), filled up with `end` (or 0) after the end.
    """
    filler = end[0] if isinstance(end, list) else end or 0
    settings = GenerationConfig(
        do_sample=False, max_new_tokens=n_new, eos_token_id=end, pad_token_id=filler, use_cache=True
    )
    plain = copy.copy(model)  # the same modules; `generate` takes what is not set from the model's own wishes
    plain.generation_config = GenerationConfig()
    return plain.generate(
        prompts,
        attention_mask=torch.ones_like(prompts) if mask is None else mask,
        generation_config=settings,
        logits_processor=LogitsProcessorList([Asking(check), *processors]),
        streamer=streamer,
    )


@dataclass(frozen=True)
class GeneralText:
    """Text in the base model's own words, by its own probabilities."""

    ids: Int[Tensor, "texts tokens"]
    """Token ids, filled up after the end."""
    lengths: Int[Tensor, " texts"]
    """Tokens of each that count, end-of-text included."""

    @property
    def rows(self) -> tuple[EncodedExample, ...]:
        """The texts as examples whose completion is all but the first token."""
        return tuple(
            EncodedExample(tuple(ids[:length]), 1, length - 1, Example("", ""))
            for ids, length in zip(self.ids.tolist(), self.lengths.tolist(), strict=True)
        )

    @property
    def fingerprint(self) -> str:
        """The first 8 hexadecimal digits of SHA-256 over the ids that count: equal means the same text."""
        return hashlib.sha256(repr([row.ids for row in self.rows]).encode()).hexdigest()[:8]


class Drawn(LogitsProcessor):
    """Leaves each text the one token that a generator of its own draws by the model's probabilities at temperature 1.

    The vocabulary is halved until one token is left, by one number for each half taken. The last bits of logits differ
    between processors; a number looked up in the cumulated probabilities of all tokens would hang on them thousands of
    times more often than so many halvings. `generate`'s own sampling draws from torch's global generator.
    """

    def __init__(self, seed: int) -> None:
        """Seed a generator on the CPU, so that every device gets the same numbers."""
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, input_ids: Int[Tensor, "texts tokens"], scores: Float[Tensor, "texts vocab"]
    ) -> Float[Tensor, "texts vocab"]:
        """Return 0 for the token drawn and -inf for all others."""
        n_halvings = (scores.shape[1] - 1).bit_length()
        chances = nn.functional.pad(scores.float().softmax(dim=-1), (0, 2**n_halvings - scores.shape[1]))
        sums = [chances]  # of 1, 2, 4, .. tokens
        while sums[-1].shape[1] > 2:
            sums.append(sums[-1].unflatten(1, (-1, 2)).sum(dim=-1))
        uniform = torch.rand(len(scores), n_halvings, generator=self._generator).to(scores.device)  # below 1
        token = torch.zeros(len(scores), 1, dtype=torch.long, device=scores.device)
        for halving, masses in enumerate(reversed(sums)):
            left, right = masses.gather(1, 2 * token), masses.gather(1, 2 * token + 1)
            token = 2 * token + (uniform[:, halving, None] * (left + right) >= left)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter_(1, token, 0.0)


@torch.no_grad()
def sample_general_text(
    base: Any,
    tokenizer: Any,
    context: int,
    base_dtype: str = "float32",
    seed: int = 0,
    check: Callable[[], None] = do_nothing,
    n_texts: int = N_SEQUENCES,
    n_tokens: int = N_TOKENS,
) -> GeneralText:
    """Let the base model write texts at temperature 1.

    They start from beginning-of-text; where the tokenizer has none, from end-of-text; else from random tokens. They are
    the same whatever the threads: attention is computed by plain products, since torch's fused kernel adds up what it
    has kept in as many parts as there are threads.

    Args:
        base: the base model, in eval mode.
        tokenizer: its tokenizer.
        context: tokens the model takes at most.
        base_dtype: bfloat16 is read under autocast.
        seed: of the draws; nothing global is touched.
        check: called before each drawn token; may raise to end the writing.
        n_texts: how many.
        n_tokens: of each at most, the first one included.
    """
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    if first is None:
        vocabulary = base.get_input_embeddings().weight.shape[0]
        starts = torch.randint(vocabulary, (n_texts, 1), generator=torch.Generator().manual_seed(seed))
    else:
        starts = torch.full((n_texts, 1), first)
    end = tokenizer.eos_token_id
    with autocasting(base, base_dtype), sdpa_kernel(SDPBackend.MATH):
        starts = starts.to(input_device(base))
        ids = generate(base, starts, min(n_tokens, context) - 1, end, [Drawn(seed)], check).cpu()
    if end is None:
        return GeneralText(ids, torch.full((n_texts,), ids.shape[1]))
    ended = (ids[:, 1:] == end).int()
    lengths = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 2, ids.shape[1])
    return GeneralText(ids, lengths)
