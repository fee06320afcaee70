"""How much of its own language a model loses: loss on text the base model wrote itself."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from lsf.measure.batches import rows_at_once
from lsf.measure.offload import input_device
from lsf.training.batches import autocasting
from lsf.training.evaluation import do_nothing, generate

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
    base: Any, tokenizer: Any, context: int, base_dtype: str = "float32", seed: int = 0
) -> GeneralText:
    """Let the base model write 64 texts of up to 64 tokens at temperature 1.

    They start from beginning-of-text; where the tokenizer has none, from end-of-text; else from random tokens.

    Args:
        base: the base model, in eval mode.
        tokenizer: its tokenizer.
        context: tokens the model takes at most.
        base_dtype: bfloat16 is read under autocast.
        seed: of the draws; nothing global is touched.
    """
    first = next((i for i in (tokenizer.bos_token_id, tokenizer.eos_token_id) if i is not None), None)
    if first is None:
        vocabulary = base.get_input_embeddings().weight.shape[0]
        starts = torch.randint(vocabulary, (N_SEQUENCES, 1), generator=torch.Generator().manual_seed(seed))
    else:
        starts = torch.full((N_SEQUENCES, 1), first)
    end = tokenizer.eos_token_id
    with autocasting(base, base_dtype):
        drawn = LogitsProcessorList([Drawn(seed)])
        ids = generate(base, starts.to(input_device(base)), min(N_TOKENS, context) - 1, end, drawn).cpu()
    if end is None:
        return GeneralText(ids, torch.full((N_SEQUENCES,), ids.shape[1]))
    ended = (ids[:, 1:] == end).int()
    lengths = torch.where(ended.any(dim=1), ended.argmax(dim=1) + 2, ids.shape[1])
    return GeneralText(ids, lengths)


@torch.no_grad()
def general_loss(
    model: Any, text: GeneralText, base_dtype: str = "float32", check: Callable[[], None] = do_nothing
) -> float:
    """Return a model's mean negative log-likelihood per token (nats) on the base model's text, its first tokens given.

    The base model's own value is near its entropy; what a tuned model has above it, it forgot.

    Args:
        model: the base or a tuned model.
        text: from `sample_general_text`.
        base_dtype: bfloat16 is read under autocast.
        check: called before each batch; may raise to end the reading.
    """
    device, n_tokens = input_device(model), text.ids.shape[1]
    counted = torch.arange(n_tokens) < text.lengths[:, None]
    total, rows = 0.0, rows_at_once(n_tokens * model.config.get_text_config().vocab_size, BATCH_SIZE)
    for some in torch.arange(len(text.ids)).split(rows):
        check()
        ids, mask = text.ids[some].to(device), counted[some].long().to(device)
        with autocasting(model, base_dtype):
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
        nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), ids[:, 1:], reduction="none").cpu()
        total += nll[counted[some, 1:]].double().sum().item()
    return total / int(counted[:, 1:].sum())
