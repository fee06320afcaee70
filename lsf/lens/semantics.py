"""Semantic bases of tokens, and readings as projections onto the arc between two of them."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import blas
from torch import Tensor

from lsf.errors import ModelError
from lsf.models.devices import exact, has_float64

CHUNK_ROWS = 2048
"""Rows of W turned to float64 at a time, so that a large vocabulary needs no float64 copy."""
TEMPERATURE = 0.1
"""tau of the semantic loss."""
MOST_AMPLIFIED = 100.0
"""Factor by which rounding in a product of a solved reading and a row of W may weigh on its cosine in float32."""
SINGULAR_JITTER = 1e-6
"""Share of the mean diagonal added to a singular Gram matrix."""


@dataclass(frozen=True)
class SemanticBases:
    """The factorised Gram matrix of one LM head; ask it for the bases of the tokens needed."""

    head_weight: Float[Tensor, "vocab width"]
    """W."""
    factor: Float[Tensor, "width width"]
    """Lower Cholesky factor of W^T W, float64."""
    jittered: bool
    """True where the Gram matrix was singular and `SINGULAR_JITTER` x mean(diag) was added."""
    known: tuple[Int[Tensor, " known"], Float[Tensor, "known width"]] | None = None
    """Tokens, ascending, and their bases, where they were solved for ahead."""
    lengths: Float[Tensor, " vocab"] | None = None
    """|s_v| of every token, where they were measured ahead, in the dtype of the products that `losses` takes."""

    def ahead(self, tokens: Int[Tensor, " n"] | None) -> "SemanticBases":
        """Return bases that can be asked for without more being solved than has to be.

        A device without float64 gets the tokens' bases, solved for now on the CPU. Elsewhere nothing is kept
        but, where the whole vocabulary is wanted, the lengths of its bases.

        Args:
            tokens: those that will be asked for; None for the whole vocabulary.
        """
        if self.factor.device == self.head_weight.device:
            return self if tokens is not None else replace(self, lengths=self._lengths())
        wanted = (
            torch.arange(len(self.head_weight), device=self.head_weight.device) if tokens is None else tokens.unique()
        )
        found = torch.cat([self._solved(part) for part in wanted.split(CHUNK_ROWS)])
        return replace(self, known=(wanted, found))

    def of(self, tokens: Int[Tensor, "*batch"]) -> Float[Tensor, "*batch width"]:
        """Return s_y = (W^T W)^-1 w_y of each token, float32: the state a head reads as exactly y.

        Source: Gu et al., "Vocabulary-Defined Semantics" (arXiv 2401.16184). The head's bias is left out.
        """
        flat = tokens.to(self.head_weight.device).reshape(-1)
        if self.known is None:
            return self._solved(flat).reshape(*tokens.shape, -1)
        tokens_known, bases = self.known
        return bases[torch.searchsorted(tokens_known, flat)].reshape(*tokens.shape, -1)

    def _solved(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        rows = self.head_weight[tokens].to(self.factor.device).double()
        return torch.cholesky_solve(rows.T, self.factor).T.float().to(self.head_weight.device)

    @torch.no_grad()
    def losses(
        self, readings: Float[Tensor, "positions states width"], targets: Int[Tensor, " positions"]
    ) -> Float[Tensor, "positions states"]:
        """Return -log softmax(cos(f, s_v) / tau) at the target over all tokens v, tau = 0.1, in nats.

        f . s_v = ((W^T W)^-1 f) . w_v, so the readings are solved for and not the vocabulary, of which `ahead(None)`
        has measured the lengths |s_v|. It is gone through in chunks of `CHUNK_ROWS`; only positions x states x chunk
        similarities are held.
        """
        if self.lengths is None and self.known is None:
            return self.ahead(None).losses(readings, targets)
        directions = self._solved_readings(torch.nn.functional.normalize(readings.float(), dim=-1))
        totals = torch.full(directions.shape[:2], -torch.inf, dtype=directions.dtype, device=directions.device)
        for tokens in torch.arange(len(self.head_weight), device=directions.device).split(CHUNK_ROWS):
            cosines = directions @ self._rows(tokens).T
            totals = torch.logaddexp(totals, (cosines / TEMPERATURE).logsumexp(dim=-1))
        wanted = self._rows(targets)[:, None]
        return (totals - (directions * wanted).sum(dim=-1) / TEMPERATURE).float()

    def _solved_readings(
        self, directions: Float[Tensor, "positions states width"]
    ) -> Float[Tensor, "positions states width"]:
        """Return what the inner products with `_rows` are taken of: (W^T W)^-1 f, or f where all bases are known."""
        if self.lengths is None:
            return directions
        flat = directions.flatten(0, 1).double().T
        return torch.cholesky_solve(flat, self.factor).T.to(self.lengths.dtype).unflatten(0, directions.shape[:2])

    def _rows(self, tokens: Int[Tensor, " n"]) -> Float[Tensor, "n width"]:
        """Return w_v / |s_v| of some tokens, or s_v / |s_v| where all bases are known."""
        if self.lengths is None:
            return torch.nn.functional.normalize(self.of(tokens), dim=-1)
        return self.head_weight[tokens].to(self.lengths.dtype) / self.lengths[tokens, None]

    def _lengths(self) -> Float[Tensor, " vocab"]:
        """Return |s_v| of every token, solved for in slices: in float32, or in float64 where products need that.

        Rounding of ((W^T W)^-1 f) . w_v weighs on the cosine by up to |w_v| / (|s_v| lambda), lambda the smallest
        eigenvalue of W^T W; above `MOST_AMPLIFIED` float32 would not suffice.
        """
        lengths, shares = [], []
        for rows in self.head_weight.split(CHUNK_ROWS):
            exact = rows.double()
            lengths.append(torch.cholesky_solve(exact.T, self.factor).norm(dim=0))
            shares.append((exact.norm(dim=1) / lengths[-1]).nan_to_num().max())
        smallest = torch.linalg.eigvalsh(self.factor @ self.factor.T)[0]
        rough = bool(torch.stack(shares).max() > MOST_AMPLIFIED * smallest)
        return (
            torch.cat(lengths).clamp(min=torch.finfo(torch.float32).tiny).to(torch.float64 if rough else torch.float32)
        )


@torch.no_grad()
def semantic_bases(head_weight: Float[Tensor, "vocab width"]) -> SemanticBases:
    """Factorise W^T W once per model: O(V d^2 + d^3), never an SVD of W.

    Raises:
        ModelError: W holds NaN or infinity.
    """
    device = head_weight.device if has_float64(head_weight.device) else torch.device("cpu")
    gram = _gram_matrix(head_weight, device)
    if not gram.isfinite().all():
        raise ModelError("The LM head holds NaN or infinite weights; the model file is damaged.")
    factor, failed = torch.linalg.cholesky_ex(gram)
    # A factor whose smallest pivot drowns in rounding is as singular as one that fails outright.
    singular = bool(failed) or bool(factor.diagonal().min() ** 2 < 1e-13 * gram.diagonal().max())
    if singular:
        gram.diagonal().add_(SINGULAR_JITTER * gram.diagonal().mean())
        factor = torch.linalg.cholesky(gram)
    return SemanticBases(head_weight.detach(), factor, singular)


def _gram_matrix(head_weight: Float[Tensor, "vocab width"], device: torch.device) -> Float[Tensor, "width width"]:
    """Return W^T W in float64; on the CPU only its lower half is computed, by BLAS's symmetric product."""
    width = head_weight.shape[1]
    if device.type != "cpu":
        gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        for rows in head_weight.split(CHUNK_ROWS):
            exact = rows.to(device, torch.float64)
            gram.addmm_(exact.T, exact)
        return gram
    product: Any = blas.dsyrk  # type: ignore[attr-defined] - compiled, without stubs
    half = np.zeros((width, width), order="F")
    for rows in head_weight.split(CHUNK_ROWS):
        half = product(1.0, rows.to(device).double().numpy().T, beta=1.0, c=half, overwrite_c=1, lower=1)
    return torch.from_numpy(np.tril(half) + np.tril(half, -1).T)


OPPOSITE = 1e-6
"""Sine of an angle below which two directions that point apart count as opposite: the great circle is not unique."""


def projections(
    factual: Float[Tensor, "positions states width"],
    anchor: Float[Tensor, "positions width"],
    basis: Float[Tensor, "positions width"],
) -> dict[str, Tensor]:
    """Project readings onto the arcs from what the current token means to what the target means.

    The arc leaves `anchor` in the direction of `basis` made orthogonal to it; where both are nearly opposite, in that
    of the coordinate axis on which `anchor` is smallest. The arithmetic is float64 on the CPU, float32 elsewhere; the
    angle comes from sine and cosine together, since either alone loses half its digits where it is flat.

    Returns:
        The fields of `Readings` of these names: to_start, to_heading, to_target (positions, states), cosines, and angle
        (positions), radians in [0, pi].
    """
    start, end = _unit(exact(anchor)), _unit(exact(basis))
    cosine = (start * end).sum(dim=-1)
    aside = end - cosine[:, None] * start
    sine = aside.norm(dim=-1)
    axis = torch.nn.functional.one_hot(start.abs().argmin(dim=-1), start.shape[1]).to(start)
    axis = axis - (axis * start).sum(dim=-1, keepdim=True) * start
    opposite = (sine < OPPOSITE) & (cosine < 0)
    heading = _unit(torch.where(opposite[:, None], axis, aside))
    along = _unit(exact(factual)) @ torch.stack([start, heading, end], dim=-1)
    to_start, to_heading, to_target = along.unbind(dim=-1)
    return {
        "to_start": to_start,
        "to_heading": to_heading,
        "to_target": to_target,
        "angle": torch.atan2(sine, cosine),
    }


def _unit(vectors: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
    """Return directions; a zero vector stays zero."""
    norms = vectors.norm(dim=-1, keepdim=True)
    return vectors / norms.where(norms > 0, 1.0)
