"""One streaming forward pass that keeps only what positions need."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from jaxtyping import Float
from torch import Tensor

from lsf.analysis.builder import KEPT_TOKENS
from lsf.analysis.measurements import Readings
from lsf.errors import ModelError
from lsf.measure.anatomy import Anatomy, captured_states
from lsf.measure.batches import Batch
from lsf.measure.exhaustion import halves_of, is_out_of_memory
from lsf.measure.semantics import SemanticBases

LENS_LOGITS = 2**20
"""Logits of the logit lens held at a time."""


@dataclass(frozen=True)
class Wanted:
    """What is read besides the transitions and the logit lens."""

    reading: str = "lens"
    """`lens` or `raw`."""
    semantic_loss: bool = False
    """Whether similarities to every token of the vocabulary are taken."""
    states: bool = False
    """Whether raw states are handed over."""


def stream_readings(
    anatomy: Anatomy, bases: SemanticBases, batches: Iterable[Batch], wanted: Wanted
) -> Iterator[Readings]:
    """Run each batch through the decoder once and read every state at its positions.

    Args:
        anatomy: the loaded model; unchanged.
        bases: its semantic bases.
        batches: from `make_batches`.
        wanted: what is read.

    Yields:
        One `Readings` per batch; nothing of a batch stays on the device afterwards. A batch that does not fit the
        device's memory is read in halves.

    Raises:
        OutOfMemoryError: not even one example fits.
        ModelError: a state is NaN or infinite (the state is named).
    """
    for batch in batches:
        with torch.no_grad():
            yield _read_in_parts(anatomy, bases, batch, wanted)


def _read_in_parts(anatomy: Anatomy, bases: SemanticBases, batch: Batch, wanted: Wanted) -> Readings:
    try:
        return _read_batch(anatomy, bases, batch, wanted)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the handler: the error's traceback held the tensors that did not fit.
    first, second = halves_of(batch)
    return _read_in_parts(anatomy, bases, first, wanted).joined(_read_in_parts(anatomy, bases, second, wanted))


def _read_batch(anatomy: Anatomy, bases: SemanticBases, batch: Batch, wanted: Wanted) -> Readings:
    states = _states_at_positions(anatomy, batch)
    _check_finite(states)
    lens = anatomy.read(states)
    anchor = anatomy.embed(batch.current)
    if wanted.reading == "lens":
        factual, anchor = lens, anatomy.read(anchor)
    else:
        factual = states
    probability, rank, tokens, shares = _logit_lens(anatomy, lens, batch.targets)
    wide = states.float()
    return Readings(
        examples=batch.examples,
        current_tokens=batch.current.cpu().numpy(),
        target_tokens=batch.targets.cpu().numpy(),
        factual=factual.float().cpu().numpy(),
        anchor=anchor.float().cpu().numpy(),
        basis=bases.of(batch.targets).float().cpu().numpy(),
        neighbour_cosine=torch.cosine_similarity(wide[:, :-1], wide[:, 1:], dim=-1).cpu().numpy(),
        target_probability=probability.cpu().numpy(),
        target_rank=rank.cpu().numpy(),
        top_tokens=tokens.cpu().numpy(),
        top_probabilities=shares.cpu().numpy(),
        semantic_loss=bases.losses(factual, batch.targets).cpu().numpy() if wanted.semantic_loss else None,
        states=wide.cpu().numpy() if wanted.states else None,
    )


def _states_at_positions(anatomy: Anatomy, batch: Batch) -> Float[Tensor, "positions states width"]:
    """Run the decoder, without its head, and return states 0 .. L at the batch's positions.

    They are copied into one tensor made before the first block runs: small tensors kept between a pass's large ones
    would hold the allocator's freed memory apart (measured: 70 MB on a Llama of width 384).
    """
    whole: list[Tensor] = []
    numbers = count()

    def keep(state: Tensor) -> None:
        picked = state[batch.rows.to(state.device), batch.places.to(state.device)]
        if not whole:
            whole.append(picked.new_empty(len(picked), len(anatomy.blocks) + 1, picked.shape[1]))
        whole[0][:, next(numbers)] = picked

    with captured_states(anatomy, keep):
        anatomy.model.base_model(input_ids=batch.ids, use_cache=False)
    return whole[0].to(batch.ids.device)


def _logit_lens(
    anatomy: Anatomy, lens: Float[Tensor, "positions states head_width"], targets: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return target probability and rank (positions, states) and the top tokens with theirs (positions, states, k).

    At most `LENS_LOGITS` logits are held at a time, or those of one position and state. The rank counts tokens of a
    strictly greater logit, plus one.
    """
    n_states = lens.shape[1]
    flat, wanted = lens.flatten(0, 1), targets.repeat_interleave(n_states)
    rows = max(1, LENS_LOGITS // anatomy.config.vocab_size)
    parts = []
    for readings, target_of in zip(flat.split(rows), wanted.split(rows), strict=True):
        logits = anatomy.logits(readings).float()
        target = logits.gather(1, target_of[:, None])
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        best, tokens = logits.topk(min(KEPT_TOKENS, logits.shape[-1]), dim=-1)
        rank = (logits > target).sum(dim=-1) + 1
        parts.append(((target - normaliser).exp()[:, 0], rank, tokens, (best - normaliser).exp()))
    probability, rank, tokens, shares = (
        torch.cat(part).unflatten(0, (len(lens), n_states)) for part in zip(*parts, strict=True)
    )
    return probability, rank, tokens, shares


def _check_finite(states: Float[Tensor, "positions states width"]) -> None:
    bad = (~states.isfinite()).any(dim=-1).any(dim=0)
    if bad.any():
        state = int(bad.nonzero()[0])
        where = "the embedding" if state == 0 else f"block {state - 1}"
        raise ModelError(f"State {state} holds NaN or infinite numbers: {where} produced them. Try float32.")
