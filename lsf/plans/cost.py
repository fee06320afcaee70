"""The cost model: FLOPs per token and bytes of a plan, relative to full fine-tuning; FLOPs and seconds of passes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from lsf.criteria.result import Analysis
from lsf.plans.plan import Predicted
from lsf.settings import QUANTISED

BYTES = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "nf4": 0.5 + 4 / 64}
UNPACKED = "bfloat16"
"""Of what a base in 4 or 8 bits leaves unpacked."""
TUNED_BYTES = 4 + 8
"""Per tuned parameter: a float32 gradient and AdamW's two float32 moments."""


@dataclass(frozen=True)
class Sizes:
    """What the FLOPs of a model's passes are counted from."""

    params: tuple[int, ...]
    """N_b, parameters of every block."""
    width: int
    """d, of the states."""
    vocab_size: int
    """V, rows of the head."""


@dataclass(frozen=True)
class Load:
    """What passes over some rows compute, padding counted."""

    passes: int = 0
    """Forward passes."""
    tokens: float = 0.0
    """Tokens that go through the blocks, in all passes together."""
    attended: float = 0.0
    """Sum over these tokens of the tokens of their row: what attention compares them with, twice over."""
    head_tokens: float = 0.0
    """Tokens whose logits are computed."""

    def __add__(self, other: "Load") -> "Load":
        """Return both together."""
        return Load(*(one + two for one, two in zip(vars(self).values(), vars(other).values(), strict=True)))

    def times(self, count: float) -> "Load":
        """Return the same done several times."""
        return Load(round(self.passes * count), *(count * value for value in list(vars(self).values())[1:]))


@dataclass(frozen=True)
class Speed:
    """How fast a machine computes with one model, from short timed passes."""

    pass_seconds: float
    """Seconds a forward pass takes however short it is."""
    flop_seconds: float
    """Seconds per FLOP beside that."""
    value_seconds: float
    """Seconds in which the optimizer clips and steps one tuned parameter."""

    def of(self, flops: float, passes: float = 0.0) -> float:
        """Return the seconds of some FLOPs in so many passes."""
        return passes * self.pass_seconds + flops * self.flop_seconds


def forward_flops(sizes: Sizes, load: Load, first: int = 0, end: int | None = None) -> float:
    """Return the FLOPs of forward passes through blocks `first` to `end` - 1, and of the head where it is reached.

    2 N_b per token and block, 2 d for every token that a token attends to (causal), 2 d V per token with logits.

    Args:
        sizes: of the model.
        load: what is passed.
        first: lowest block computed; those below it are known.
        end: block it stops at, without a head; None goes through all of them and the head.
    """
    params = sizes.params[first:end]
    blocks = sum(2.0 * count * load.tokens + 2.0 * sizes.width * load.attended for count in params)
    return blocks + (2.0 * sizes.width * sizes.vocab_size * load.head_tokens if end is None else 0.0)


def backward_flops(sizes: Sizes, load: Load, lowest: int, weights: float) -> float:
    """Return the FLOPs of backward passes: of inputs from the head down to a block, and of weight gradients.

    Args:
        sizes: of the model.
        load: what was passed forward.
        lowest: lowest block that gradients are computed in; L where none is.
        weights: parameters whose gradients are computed.
    """
    params = sizes.params[lowest:]
    blocks = sum(2.0 * count * load.tokens + 4.0 * sizes.width * load.attended for count in params)
    return blocks + 2.0 * sizes.width * sizes.vocab_size * load.head_tokens + 2.0 * weights * load.tokens


def training_flops(analysis: Analysis, blocks: Sequence[int]) -> float:
    """Return FLOPs per token of one training step that tunes `blocks` (embedding, norm and head frozen).

    Forward 2 N_b per block, and 2 d V for the head at the share of tokens that are trained (all where it is not known),
    since logits are computed there alone; input gradients the same for the head and for every block from the
    lowest tuned one up; weight gradients 2 N_b per tuned block. N_b are the block's parameters (its norms are counted
    with its matrices). Attention's products, 2 d T per token and block (causal), T the tokens of its row, cost the same
    again forward and twice that backward wherever input gradients pass. Of a mixture of experts all are counted, as if
    every token went to each expert: their products then weigh too much, attention and head too little.
    """
    return law_flops(
        [block.n_params for block in analysis.blocks],
        head=_head_flops(analysis),
        attention=_attention_flops(analysis),
        lowest=min(blocks),
        gradients=2.0 * sum(analysis.blocks[block].n_params for block in set(blocks)),
    )


def block_flops(analysis: Analysis, blocks: Collection[int]) -> list[tuple[float, float, float]]:
    """Return FLOPs per token of one training step in each block: forward, backward, and its weight gradients.

    These are the parts of `training_flops`, the head's left out; without a tuned block nothing goes backward.
    """
    attention = _attention_flops(analysis)
    lowest = min(blocks, default=analysis.model.n_blocks)
    parts = []
    for row in analysis.blocks:
        product = 2.0 * row.n_params
        backward = product + 2.0 * attention if row.block >= lowest else 0.0
        parts.append((product + attention, backward, product if row.block in blocks else 0.0))
    return parts


def law_flops(params: Sequence[int], head: float, attention: float, lowest: int, gradients: float) -> float:
    """Return FLOPs per token of one training step; see `training_flops`.

    Args:
        params: N_b of every block.
        head: 2 d V, times the share of tokens with logits.
        attention: 2 d T.
        lowest: the lowest block that gradients of its input or weights are computed in; L where none is.
        gradients: of all weight gradients, 2 N_b per tuned block.
    """
    forward = sum(2.0 * n + attention for n in params) + head
    backward = head + sum(2.0 * n + 2.0 * attention for n in params[lowest:])
    return forward + backward + gradients


def share_of_full(
    params: Sequence[int],
    head: float,
    attention: float,
    lowest: int,
    tuned: Sequence[int],
    tuned_head: bool = False,
    gradients: float | None = None,
) -> float:
    """Return a plan's FLOPs per token over those of full fine-tuning, in (0, 1].

    Args:
        params: N_b of every block.
        head: 2 d V, times the share of tokens with logits.
        attention: 2 d T.
        lowest: the lowest block that gradients are computed in; L where none is.
        tuned: tuned blocks.
        tuned_head: whether the head is tuned.
        gradients: of all weight gradients, where a method needs fewer than the tuned blocks' whole ones.
    """
    whole = 2.0 * sum(params[block] for block in tuned) + tuned_head * head
    one = law_flops(params, head, attention, lowest, whole if gradients is None else min(gradients, whole))
    return one / law_flops(params, head, attention, 0, 2.0 * sum(params) + head)


def full_flops(analysis: Analysis) -> float:
    """Return FLOPs per token of full fine-tuning: every block, and the head's weight gradient."""
    return training_flops(analysis, range(analysis.model.n_blocks)) + _head_flops(analysis)


def _attention_flops(analysis: Analysis) -> float:
    """Return attention's products per token and block, 2 d E[T^2] / E[T]: a longer row has more of the tokens.

    Older analyses know the mean length of rows alone, E[T], which is less where lengths differ.
    """
    data = analysis.data
    return 2.0 * analysis.model.width * (data.attended_tokens or data.mean_tokens or 0.0)


def _head_flops(analysis: Analysis) -> float:
    """Return FLOPs of the head's product per token of a text."""
    share = analysis.data.target_share
    return 2.0 * analysis.model.width * analysis.model.vocab_size * (1.0 if share is None else share)


def training_bytes(analysis: Analysis, trainable: int) -> int:
    """Return bytes of weights, own copies of tuned weights, gradients and AdamW state; activations are not counted.

    A base in 4 or 8 bits has its blocks packed; embedding and head are floats.
    """
    dtype, every = analysis.model.dtype, analysis.model.n_params
    packed = sum(block.n_params for block in analysis.blocks) if dtype in QUANTISED else every
    weights = packed * BYTES[dtype] + (every - packed) * BYTES[UNPACKED]
    copies = 4 * trainable  # float32 master copies beside the shared base
    return round(weights) + copies + TUNED_BYTES * trainable


def predict(analysis: Analysis, blocks: Sequence[int]) -> Predicted:
    """Predict what tuning these blocks costs; seconds need a measured pass and stay unknown here."""
    trainable = sum(analysis.blocks[block].n_params for block in set(blocks))
    return Predicted(
        trainable_params=trainable,
        flops_ratio=training_flops(analysis, blocks) / full_flops(analysis),
        memory_bytes=training_bytes(analysis, trainable) - training_bytes(analysis, 0),
    )


def predict_full(analysis: Analysis) -> Predicted:
    """Predict what full fine-tuning costs."""
    return Predicted(
        trainable_params=analysis.model.n_params,
        flops_ratio=1.0,
        memory_bytes=training_bytes(analysis, analysis.model.n_params) - training_bytes(analysis, 0),
    )


def cost_shares(predicted: Predicted, full: Predicted) -> dict[str, float | None]:
    """Return a plan's predicted parameters, compute and memory as shares of full fine-tuning's; None where unknown.

    Memory is what a run takes beyond the loaded model, as `lsf.runs.comparison` compares it after the runs.

    Args:
        predicted: of the plan.
        full: of full fine-tuning.
    """

    def over(one: float | None, other: float | None) -> float | None:
        return None if one is None or not other else one / other

    return {
        "parameters": over(predicted.trainable_params, full.trainable_params),
        "compute": over(predicted.flops_ratio, full.flops_ratio),
        "memory": over(predicted.memory_bytes, full.memory_bytes),
    }
