"""The cost model: FLOPs per token and bytes of a plan, relative to full fine-tuning."""

from collections.abc import Sequence

from lsf.analysis.plan import Predicted
from lsf.analysis.result import Analysis

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2, "int8": 1, "nf4": 0.5 + 4 / 64}
TUNED_BYTES = 4 + 8
"""Per tuned parameter: a float32 gradient and AdamW's two float32 moments."""


def training_flops(analysis: Analysis, blocks: Sequence[int]) -> float:
    """Return FLOPs per token of one training step that tunes `blocks` (embedding, norm and head frozen).

    Forward 2 N_b per block and 2 d V for the head; input gradients the same for the head and for every block from the
    lowest tuned one up; weight gradients 2 N_b per tuned block. N_b are the block's parameters (its norms are counted
    with its matrices). Attention's products, 2 d T per token and block over T tokens of context (causal), cost the same
    again forward and twice that backward wherever input gradients pass. Of a mixture of experts all are counted, as if
    every token went to each expert: their products then weigh too much, attention and head too little.
    """
    return law_flops(
        [block.n_params for block in analysis.blocks],
        head=2.0 * analysis.model.width * analysis.model.vocab_size,
        attention=2.0 * analysis.model.width * (analysis.data.mean_tokens or 0.0),
        lowest=min(blocks),
        gradients=2.0 * sum(analysis.blocks[block].n_params for block in set(blocks)),
    )


def law_flops(params: Sequence[int], head: float, attention: float, lowest: int, gradients: float) -> float:
    """Return FLOPs per token of one training step; see `training_flops`.

    Args:
        params: N_b of every block.
        head: 2 d V.
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
        head: 2 d V.
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
    head = 2.0 * analysis.model.width * analysis.model.vocab_size
    return training_flops(analysis, range(analysis.model.n_blocks)) + head


def training_bytes(analysis: Analysis, trainable: int) -> int:
    """Return bytes of weights, own copies of tuned weights, gradients and AdamW state; activations are not counted."""
    width = BYTES[analysis.model.dtype]
    copies = 4 * trainable  # float32 master copies beside the shared base
    return analysis.model.n_params * width + copies + TUNED_BYTES * trainable


def predict(analysis: Analysis, blocks: Sequence[int]) -> Predicted:
    """Predict what tuning these blocks costs; seconds need a dry step and stay unknown here."""
    trainable = sum(analysis.blocks[block].n_params for block in set(blocks))
    return Predicted(
        trainable_params=trainable,
        flops_ratio=training_flops(analysis, blocks) / full_flops(analysis),
        memory_bytes=training_bytes(analysis, trainable),
    )


def predict_full(analysis: Analysis) -> Predicted:
    """Predict what full fine-tuning costs."""
    return Predicted(
        trainable_params=analysis.model.n_params,
        flops_ratio=1.0,
        memory_bytes=training_bytes(analysis, analysis.model.n_params),
    )
