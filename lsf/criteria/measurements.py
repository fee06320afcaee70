"""What the measuring room hands over: one batch of readings, and the summary criteria are made of."""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int


@dataclass(frozen=True)
class Readings:
    """One batch of positions as they were read in every latent space; arrays off the device, vectors of a few only."""

    examples: Int[np.ndarray, " positions"]
    """Index of each position's example."""
    current_tokens: Int[np.ndarray, " positions"]
    """Token id at the position."""
    target_tokens: Int[np.ndarray, " positions"]
    """Token id to be predicted there."""
    to_start: Float[np.ndarray, "positions states"]
    """cos(f_l, a_0)."""
    to_heading: Float[np.ndarray, "positions states"]
    """cos(f_l, heading of the arc)."""
    to_target: Float[np.ndarray, "positions states"]
    """cos(f_l, s_y)."""
    angle: Float[np.ndarray, " positions"]
    """Angle between a_0 and s_y, radians."""
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
    pictured: Int[np.ndarray, " pictured"]
    """Positions, by their place in the batch, whose readings are here as vectors, to be drawn."""
    factual: Float[np.ndarray, "pictured states head_width"]
    """Their readings f_0 .. f_L, not yet of unit length, float32."""
    anchor: Float[np.ndarray, "pictured head_width"]
    """Their a_0, the current token's embedding read the same way."""
    basis: Float[np.ndarray, "pictured head_width"]
    """Their s_y, the semantic basis of the target token."""
    semantic_loss: Float[np.ndarray, "positions states"] | None = None
    """Cross-entropy of softmax(cos(f_l, s_v) / tau) over all v at the target; None where it was not asked for."""
    states: Float[np.ndarray, "sampled states width"] | None = None
    """Raw states h_0 .. h_L at the positions of the first examples; None where they were not asked for."""
    states_of: Int[np.ndarray, " sampled"] | None = None
    """Index of the example of each of them."""
    state_sums: Float[np.ndarray, "parts states width"] | None = None
    """Sums over the positions of raw states h_0 .. h_L, one per part of the batch that was read by itself; None where
    they were not asked for."""

    def joined(self, other: "Readings") -> "Readings":
        """Return these readings and, after them, those of another batch."""
        values: dict[str, Any] = {}
        for item in fields(self):
            mine, theirs = getattr(self, item.name), getattr(other, item.name)
            if item.name == "pictured":
                theirs = theirs + len(self.examples)
            values[item.name] = None if mine is None else np.concatenate([mine, theirs])
        return Readings(**values)

    def only(self, picture: int) -> "Readings":
        """Return a copy of one pictured position's readings, without raw states, so that the batch can be let go.

        Args:
            picture: its place in `pictured`.
        """
        values: dict[str, Any] = {}
        for item in fields(self):
            place = picture if item.name in ("factual", "anchor", "basis") else int(self.pictured[picture])
            value = None if item.name in ("states", "states_of", "state_sums") else getattr(self, item.name)
            values[item.name] = None if value is None else value[place : place + 1].copy()
        return Readings(**values | {"pictured": np.zeros(1, dtype=np.int64)})


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
    mean_path: Float[np.ndarray, "states width"] | None = None
    """Mean over positions of raw states h_0 .. h_L."""
    ablation_rise: Float[np.ndarray, " blocks"] | None = None
    """Rise of the mean loss over the probed positions where block b's output is replaced by its input, nats."""
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
