"""What the measuring room hands over: one batch of readings, and the summary criteria are made of."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Readings:
    """One batch of positions as they were read in every latent space; float32 arrays off the device."""

    examples: Int[np.ndarray, " positions"]
    """Index of each position's example."""
    current_tokens: Int[np.ndarray, " positions"]
    """Token id at the position."""
    target_tokens: Int[np.ndarray, " positions"]
    """Token id to be predicted there."""
    factual: Float[np.ndarray, "positions states head_width"]
    """Readings f_0 .. f_L, not yet of unit length."""
    anchor: Float[np.ndarray, "positions head_width"]
    """a_0, the current token's embedding read the same way."""
    basis: Float[np.ndarray, "positions head_width"]
    """s_y, the semantic basis of the target token."""
    neighbour_cosine: Float[np.ndarray, "positions blocks"]
    """cos(h_b, h_(b+1)) of the raw states."""
    target_probability: Float[np.ndarray, "positions states"]
    """Lens probability of the target token."""
    target_rank: Int[np.ndarray, "positions states"]
    """Lens rank of the target token; 1 is the top."""
    top_tokens: Int[np.ndarray, "positions states k"]
    """Lens's best token ids, best first."""
    top_probabilities: Float[np.ndarray, "positions states k"]
    """Their probabilities."""
    semantic_loss: Float[np.ndarray, "positions states"] | None = None
    """Cross-entropy of softmax(cos(f_l, s_v) / tau) over all v at the target; None where it was not asked for."""
    states: Float[np.ndarray, "positions states width"] | None = None
    """Raw states h_0 .. h_L; None where they were not asked for."""

    def joined(self, other: "Readings") -> "Readings":
        """Return these readings and, after them, those of another batch."""
        values: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            values[item.name] = None if mine is None else np.concatenate([mine, theirs])
        return Readings(**values)

    def only(self, position: int) -> "Readings":
        """Return a copy of one position's readings, without its raw states, so that the batch can be let go."""
        one = slice(position, position + 1)
        values: dict[str, Any] = {}
        for item in fields(self):
            value = None if item.name == "states" else getattr(self, item.name)
            values[item.name] = None if value is None else value[one].copy()
        return Readings(**values)


@dataclass(frozen=True)
class BlockGradient:
    """Gradient of the mean loss over the probed positions with respect to one block."""

    gradient_norms: tuple[float, ...]
    """Euclidean norm of the gradient of each tensor of the block, in the model's order."""
    weight_norms: tuple[float, ...]
    """Euclidean norm of each of these tensors."""


@dataclass(frozen=True)
class Spectrum:
    """Singular values of one weight matrix."""

    values: Float[np.ndarray, " rank"]
    """In descending order."""
    shape: tuple[int, int]
    """Of the matrix."""


@dataclass(frozen=True)
class Measurements:
    """Everything criteria are pure functions of; what was not measured is None."""

    n_blocks: int
    """L."""
    seed: int = 0
    """Of the random control."""
    deviation: Float[np.ndarray, " states"] | None = None
    """D_l."""
    target_deviation: Float[np.ndarray, " states"] | None = None
    """T_l."""
    neighbour_cosine: Float[np.ndarray, " blocks"] | None = None
    """Mean over positions of cos(h_b, h_(b+1))."""
    semantic_loss: Float[np.ndarray, " states"] | None = None
    """S_l, nats."""
    sampled_states: Float[np.ndarray, "positions states width"] | None = None
    """Raw states at positions of the first examples, at most `columns.SAMPLED_POSITIONS`."""
    gradients: tuple[BlockGradient, ...] | None = None
    """One per block, block 0 first."""
    fisher: Float[np.ndarray, " blocks"] | None = None
    """Mean over a block's parameters and the examples of the squared per-example gradient."""
    kernels: Float[np.ndarray, "blocks examples examples"] | None = None
    """K_b: inner products of the probe examples' loss gradients with respect to block b."""
    first_order_drop: Float[np.ndarray, " blocks"] | None = None
    """-sum(g1 . dw): what one trial step of the block promises to first order, nats."""
    spectra: tuple[tuple[Spectrum, ...], ...] | None = None
    """Per block the spectra of its matrices."""
    probe_drop: Float[np.ndarray, " blocks"] | None = None
    """Drop of the validation loss after a few real steps on the block alone, nats."""
