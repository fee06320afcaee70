"""Forward passes: one streaming pass that keeps only what positions need, and passes without a block each.

What the loss becomes without a block is read by passes that start where the block is bypassed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from lsf.criteria.result import AnalysisSettings
from lsf.criteria.transitions import Readings
from lsf.data.encode import EncodedExample
from lsf.errors import ModelError
from lsf.lens.builder import KEPT_TOKENS
from lsf.lens.semantics import SemanticBases, projections
from lsf.lens.translators import Translators
from lsf.models.batches import MOST_PADDING, Batch, halves_of, make_batches, probed, rows_at_once
from lsf.models.devices import exact, fetched, free_bytes, is_out_of_memory
from lsf.models.layout import ModelLayout, captured_states, handing_on, resolve, standing_in
from lsf.models.loading import LoadedModel
from lsf.models.sharing import share_model
from lsf.progress import Reporter

CPU_LOGITS = 2**22
"""Logits of the lens held at a time on a CPU, whose caches like them few; elsewhere `MOST_LOGITS`."""


@dataclass(frozen=True)
class Wanted:
    """What is read besides the transitions and the logit lens."""

    reading: str = "lens"
    """`lens`, `raw`, or that of `translate`."""
    translate: Translators | None = None
    """Maps states before they are read; None reads them as they are."""
    semantic_loss: bool = False
    """Whether similarities to every token of the vocabulary are taken."""
    pictures: int = 0
    """Examples, the first ones, whose readings are handed over as vectors; the first batch's then all are, to which
    the pictures' PCA is fitted."""
    states: int = 0
    """Examples, the first ones, whose raw states are handed over."""
    path: bool = False
    """Whether raw states are summed over the positions."""


def stream_readings(
    layout: ModelLayout, bases: SemanticBases, batches: Sequence[Batch], wanted: Wanted
) -> Iterator[Readings]:
    """Run each batch through the decoder once and read every state at its positions.

    Args:
        layout: the loaded model; unchanged.
        bases: its semantic bases.
        batches: from `make_batches`.
        wanted: what is read.

    Yields:
        One `Readings` per batch, brought over in one copy; nothing of a batch stays on the device afterwards. A batch
        that does not fit the device's memory is read in halves.

    Raises:
        OutOfMemoryError: not even one example fits.
        ModelError: a state is NaN or infinite (the state is named).
    """
    bases = bases.ahead(None if wanted.semantic_loss else torch.cat([batch.targets for batch in batches]))
    for number, batch in enumerate(batches):
        pictures = np.inf if number == 0 and wanted.pictures else wanted.pictures
        with torch.no_grad():
            yield _read_in_parts(layout, bases, batch, wanted, pictures)


def _read_in_parts(
    layout: ModelLayout, bases: SemanticBases, batch: Batch, wanted: Wanted, pictures: float
) -> Readings:
    try:
        return _read_batch(layout, bases, batch, wanted, pictures)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the handler: the error's traceback held the tensors that did not fit.
    first, second = (_read_in_parts(layout, bases, half, wanted, pictures) for half in halves_of(batch))
    return first.joined(second)


def _read_batch(layout: ModelLayout, bases: SemanticBases, batch: Batch, wanted: Wanted, pictures: float) -> Readings:
    states = _states_at_positions(layout, batch)
    translate = wanted.translate
    seen = states if translate is None else translate(states)
    lens = layout.read(seen).to(states.device)  # modules of a spread model answer where they lie
    anchor, basis = layout.embed(batch.current), bases.of(batch.targets).to(states.device)
    if wanted.reading == "raw":
        factual = states
    else:
        meant = anchor if translate is None else translate.of(anchor, 0)
        factual, anchor = lens, layout.read(meant).to(states.device)
    pictured, sampled = (np.flatnonzero(batch.examples < limit) for limit in (pictures, wanted.states))
    drawn, kept = (torch.from_numpy(places).to(states.device) for places in (pictured, sampled))
    found = {
        "current_tokens": batch.current,
        "target_tokens": batch.targets,
        **projections(factual, anchor, basis),
        "neighbour_cosine": _neighbour_cosines(states),
        **_logit_lens(layout, lens, batch.targets),
        "factual": factual[drawn].float(),
        "anchor": anchor[drawn].float(),
        "basis": basis[drawn].float(),
    }
    if wanted.semantic_loss:
        found["semantic_loss"] = bases.losses(factual, batch.targets)
    if wanted.states:
        found["states"] = states[kept].float()
    if wanted.path:
        found["state_sums"] = torch.stack([exact(state).sum(dim=0) for state in states.unbind(dim=1)])[None]
    finite, *arrays = fetched(states.isfinite().all(dim=-1).all(dim=0), *found.values())
    _check_finite(finite)
    return Readings(
        examples=batch.examples,
        pictured=pictured,
        states_of=batch.examples[sampled] if wanted.states else None,
        **dict(zip(found, arrays, strict=True)),
    )


def _neighbour_cosines(states: Float[Tensor, "positions states width"]) -> Float[Tensor, "positions blocks"]:
    """Return cos(h_b, h_(b+1)) in float32, a state at a time: half-precision states are not all widened at once."""
    pairs = pairwise(states.unbind(dim=1))
    return torch.stack([torch.cosine_similarity(a.float(), b.float(), dim=-1) for a, b in pairs], dim=1)


def _states_at_positions(layout: ModelLayout, batch: Batch) -> Float[Tensor, "positions states width"]:
    """Run the decoder, without its head, and return states 0 .. L at the batch's positions.

    They are copied into one tensor made before the first block runs: small tensors kept between a pass's large ones
    would hold the allocator's freed memory apart (measured: 70 MB on a Llama of width 384).
    """
    whole: list[Tensor] = []
    numbers = count()

    def keep(state: Tensor) -> None:
        picked = state[batch.rows.to(state.device), batch.places.to(state.device)]
        if not whole:
            whole.append(picked.new_empty(len(picked), len(layout.blocks) + 1, picked.shape[1]))
        whole[0][:, next(numbers)] = picked

    with captured_states(layout, keep):
        layout.model.base_model(input_ids=batch.ids, use_cache=False)
    return whole[0].to(batch.ids.device)


@torch.no_grad()
def most_likely(layout: ModelLayout, ids: Int[Tensor, " tokens"]) -> list[tuple[int, float]]:
    """Return the most likely token of every state 0 .. L at a prompt's last position in the logit lens.

    Args:
        layout: a model; unchanged.
        ids: the prompt, where the model takes it.

    Returns:
        Token id and its probability in [0, 1], a pair per state.
    """
    with captured_states(layout, lambda state: state[0, -1]) as states:
        layout.model.base_model(input_ids=ids[None], use_cache=False)
    whole = torch.stack([state.to(ids.device) for state in states])
    lens = layout.read(whole).to(ids.device)[None]
    found = _logit_lens(layout, lens, ids[-1:])
    tokens, shares = found["top_tokens"][0, :, 0].tolist(), found["top_probabilities"][0, :, 0].tolist()
    return list(zip(tokens, shares, strict=True))


def _logit_lens(
    layout: ModelLayout, lens: Float[Tensor, "positions states head_width"], targets: Int[Tensor, " positions"]
) -> dict[str, Tensor]:
    """Return each target's probability and rank (positions, states) and the top tokens with theirs, k of each.

    At most `MOST_LOGITS` logits are held at a time (`CPU_LOGITS` on a CPU), or those of one position and state. The
    rank counts tokens of a strictly greater logit, plus one.
    """
    n_states, vocabulary = lens.shape[1], layout.config.vocab_size
    flat, wanted = lens.flatten(0, 1), targets.repeat_interleave(n_states)
    most = CPU_LOGITS // vocabulary if lens.device.type == "cpu" else len(flat)
    parts = []
    rows = rows_at_once(vocabulary, most)
    for readings, target_of in zip(flat.split(rows), wanted.split(rows), strict=True):
        logits = layout.logits(readings).to(lens.device).float()
        target = logits.gather(1, target_of[:, None])
        normaliser = logits.logsumexp(dim=-1, keepdim=True)
        best, tokens = logits.topk(min(KEPT_TOKENS, logits.shape[-1]), dim=-1)
        rank = (logits > target).sum(dim=-1) + 1
        parts.append(((target - normaliser).exp()[:, 0], rank, tokens, (best - normaliser).exp()))
    names = ("target_probability", "target_rank", "top_tokens", "top_probabilities")
    whole = (torch.cat(part).unflatten(0, (len(lens), n_states)) for part in zip(*parts, strict=True))
    return dict(zip(names, whole, strict=True))


def _check_finite(finite: Bool[np.ndarray, " states"]) -> None:
    if not finite.all():
        state = int(finite.argmin())
        where = "the embedding" if state == 0 else f"block {state - 1}"
        raise ModelError(f"State {state} holds NaN or infinite numbers: {where} produced them. Try float32.")


def position_losses(layout: ModelLayout, batch: Batch) -> Float[Tensor, " positions"]:
    """Return the cross-entropy at each position of a batch, with its graph."""
    hidden = layout.model.base_model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits = layout.logits(hidden[batch.rows, batch.places]).float()
    return cross_entropy(logits, batch.targets, reduction="none")


def example_losses(losses: Float[Tensor, " positions"], batch: Batch) -> Float[Tensor, " examples"]:
    """Return each example's mean loss over its positions, in the batch's row order."""
    n = len(batch.ids)
    return torch.zeros(n, device=losses.device).index_add(0, batch.rows, losses) / batch.n_positions_of


ABLATION = "blocks bypassed"
"""The phase, by the words it is told in."""
ABLATION_POSITIONS = 256
"""Positions read without a block each: those of the first examples that have so many together."""
STATES_SHARE = 0.25
"""Share of the free memory that a batch's states may take; its passes need the rest."""


def ablation_batches(loaded: LoadedModel, rows: Sequence[EncodedExample], settings: AnalysisSettings) -> list[Batch]:
    """Return the batches of the first examples, so small that the states of all their tokens fit into memory."""
    counts = np.cumsum([len(probed(row, settings.positions)) for row in rows])
    rows = rows[: int(np.searchsorted(counts, ABLATION_POSITIONS)) + 1]
    values = len(loaded.layout.blocks) * loaded.info.width * max(len(row.ids) for row in rows)
    fitting = int(STATES_SHARE * free_bytes(loaded.device) / (values * loaded.model.dtype.itemsize))
    size = max(1, min(settings.batch_size, fitting))
    return make_batches(rows, settings.positions, size, settings.seed, loaded.device, MOST_PADDING)


def ablation_rises(
    loaded: LoadedModel, batches: Sequence[Batch], report: Reporter
) -> Float[np.ndarray, " blocks"] | None:
    """Return by how much the mean loss over all positions rises where block b's output is replaced by its input.

    Of each batch the states of all tokens are kept, and the pass without block b starts from the one that enters it:
    (L + 1) / 2 forward passes in all, the first included. The blocks above get everything else a pass of this family
    gives them (masks, rotations), since the model's own forward runs, its lower blocks replaced in a module tree over
    the same memory; the loaded model is not touched.

    Args:
        loaded: the model.
        batches: of `ablation_batches`.
        report: progress and stop.

    Returns:
        Nats, block 0 first; None where a stop was asked for.

    Raises:
        OutOfMemoryError: a single example does not fit.
    """
    layout = resolve(share_model(loaded.model), loaded.layout.family)
    total = np.zeros(len(layout.blocks) + 1)
    for done, batch in enumerate(batches, 1):
        sums = _summed(layout, batch, lambda: bool(report.stop))
        if sums is None:
            return None
        total += sums
        report.progress(done, len(batches), ABLATION)
    return (total[1:] - total[0]) / sum(len(batch.targets) for batch in batches)


def _summed(layout: ModelLayout, batch: Batch, stopped: Callable[[], bool]) -> Float[np.ndarray, " passes"] | None:
    try:
        return _losses(layout, batch, stopped)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    parts = [_summed(layout, half, stopped) for half in halves_of(batch)]
    known = [part for part in parts if part is not None]
    return np.sum(known, axis=0) if len(known) == len(parts) else None


@torch.no_grad()
def _losses(layout: ModelLayout, batch: Batch, stopped: Callable[[], bool]) -> Float[np.ndarray, " passes"] | None:
    """Return the sum over a batch's positions of the loss: of the whole model, then without each block."""
    forms: list[Callable[[Tensor], Any]] = []

    def learn(_module: nn.Module, _args: Any, output: Any) -> None:
        forms.append(handing_on(output))

    handle = layout.blocks[0].register_forward_hook(learn)
    try:
        with captured_states(layout, lambda state: state) as states:
            sums = [exact(position_losses(layout, batch)).sum()]
    finally:
        handle.remove()
    for block in range(len(layout.blocks)):
        if stopped():
            return None
        state, states[block] = states[block], states[-1]  # not needed by deeper ones
        with standing_in(layout.blocks[: block + 1], forms[0], lambda _entering, state=state: state):
            sums.append(exact(position_losses(layout, batch)).sum())
    return fetched(torch.stack(sums))[0].astype(np.float64)
