"""How much of its own language a model loses: loss on text the base model wrote itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

from lsf.data.encode import EncodedExample
from lsf.data.task import Example
from lsf.measure.offload import input_device
from lsf.training.batches import autocasting
from lsf.training.evaluation import do_nothing, evaluate, generate
from lsf.training.prefix import Prefix

N_SEQUENCES = 64
"""Texts sampled from the base model."""
N_TOKENS = 64
"""Tokens of each at most, the first one included."""
BATCH_SIZE = 16
"""Texts per forward pass."""


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


class Drawn(LogitsProcessor):
    """Leaves each text the one token that a generator of its own draws by the model's probabilities at temperature 1.

    One number per text and token, looked up in the cumulated probabilities (inverse transform sampling); `generate`'s
    own sampling draws from torch's global generator.
    """

    def __init__(self, seed: int) -> None:
        """Seed a generator on the CPU, so that every device gets the same numbers."""
        self._generator = torch.Generator().manual_seed(seed)

    def __call__(
        self, input_ids: Int[Tensor, "texts tokens"], scores: Float[Tensor, "texts vocab"]
    ) -> Float[Tensor, "texts vocab"]:
        """Return 0 for the token drawn and -inf for all others."""
        uniform = torch.rand(len(scores), 1, generator=self._generator).to(scores.device)  # at most 1 - 2^-24
        passed = scores.float().softmax(dim=-1).cumsum(dim=-1)
        token = (passed <= uniform * passed[:, -1:]).sum(dim=-1, keepdim=True)
        return torch.full_like(scores, -torch.inf, dtype=torch.float32).scatter_(1, token, 0.0)


@torch.no_grad()
def sample_general_text(
    base: Any,
    tokenizer: Any,
    context: int,
    base_dtype: str = "float32",
    seed: int = 0,
    check: Callable[[], None] = do_nothing,
) -> GeneralText:
    """Let the base model write 64 texts of up to 64 tokens at temperature 1.

    They start from beginning-of-text; where the tokenizer has none, from end-of-text; else from random tokens.

    Args:
        base: the base model, in eval mode.
        tokenizer: its tokenizer.
        context: tokens the model takes at most.
        base_dtype: bfloat16 is read under autocast.
        seed: of the draws; nothing global is touched.
        check: called before each drawn token; may raise to end the writing.
    """
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    if first is None:
        vocabulary = base.get_input_embeddings().weight.shape[0]
        starts = torch.randint(vocabulary, (N_SEQUENCES, 1), generator=torch.Generator().manual_seed(seed))
    else:
        starts = torch.full((N_SEQUENCES, 1), first)
    end = tokenizer.eos_token_id
    with autocasting(base, base_dtype):
        starts = starts.to(input_device(base))
        ids = generate(base, starts, min(N_TOKENS, context) - 1, end, [Drawn(seed)], check).cpu()
    if end is None:
        return GeneralText(ids, torch.full((N_SEQUENCES,), ids.shape[1]))
    ended = (ids[:, 1:] == end).int()
    lengths = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 2, ids.shape[1])
    return GeneralText(ids, lengths)


def general_loss(
    model: Any,
    text: GeneralText,
    base_dtype: str = "float32",
    check: Callable[[], None] = do_nothing,
    prefix: Prefix | None = None,
) -> float:
    """Return a model's mean negative log-likelihood per token (nats) on the base model's text, its first tokens given.

    The base model's own value is near its entropy; what a tuned model has above it, it forgot.

    Args:
        model: the base or a tuned model.
        text: from `sample_general_text`.
        base_dtype: bfloat16 is read under autocast.
        check: called before each batch; may raise to end the reading.
        prefix: serves the model's frozen prefix on `text.rows`; None computes it.
    """
    loss = evaluate(model, text.rows, BATCH_SIZE, base_dtype, check, prefix).loss
    assert loss is not None
    return loss
