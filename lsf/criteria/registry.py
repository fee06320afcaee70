"""Criteria: one score per block, higher = tune it first; each a pure function of recorded measurements."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from lsf.criteria.scores import (
    Measurements,
    ablation,
    alignment,
    block_influence,
    cka,
    condition,
    deviation,
    deviation_growth,
    first,
    first_order_drop,
    fisher,
    gradient_norm,
    last,
    law_headroom,
    middle,
    ntk,
    polyline,
    probe,
    random,
    reduction,
    relative_gradient,
    semantic_loss,
    snr,
    stiffness,
)
from lsf.registry import Registry

Scores = Float[np.ndarray, " blocks"]
Need = Literal[
    "nothing",
    "forward",
    "path",
    "states",
    "vocabulary",
    "bypass",
    "backward",
    "per_example",
    "kernel",
    "trial_step",
    "weights",
    "runs",
]
"""What must be measured: nothing; the forward pass; the mean of raw states in it; raw states kept; the full vocabulary;
forward passes without a block each; one backward pass; per-example gradients in it; a tangent kernel; a second backward
pass; weight spectra; short runs."""
OURS = "ours, after arXiv 2406.11753"


@dataclass(frozen=True)
class Criterion:
    """One rule that scores blocks."""

    name: str
    """Key in files and options."""
    label: str
    """Short name on charts."""
    meaning: str
    """One sentence: what a high score says."""
    unit: str
    """Unit and range of the score."""
    needs: Need
    """What has to be measured for it."""
    source: str
    """Who proposed it."""
    score: Callable[[Measurements], Scores | None]
    """Measurements -> one score per block; None where what it needs was not measured."""
    already: bool = False
    """Whether it scores what a block already does: the policy `suffix` freezes its peak, and begins at all others'."""


CRITERIA: Registry[Criterion] = Registry(
    "criterion",
    (
        Criterion(
            "deviation",
            "Deviation",
            "The state leaving the block is far from the virtual transition.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            deviation,
        ),
        Criterion(
            "deviation_growth",
            "Deviation growth",
            "The block moves the state away from the virtual transition.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            deviation_growth,
        ),
        Criterion(
            "law_headroom",
            "Headroom over the law",
            "The block leaves the state further from its target than the model's own power law over depth promises.",
            "1 - cos, 0 to 2",
            "forward",
            OURS,
            law_headroom,
        ),
        Criterion(
            "reduction",
            "Reduction",
            "The block already brings the state nearer to its target.",
            "1 - cos, -2 to 2",
            "forward",
            OURS,
            reduction,
            already=True,
        ),
        Criterion(
            "semantic_loss",
            "Semantic loss",
            "Among all tokens' meanings, the state leaving the block does not yet single out the target's.",
            "nats",
            "vocabulary",
            OURS,
            semantic_loss,
        ),
        Criterion(
            "block_influence",
            "Block influence",
            "The block turns the residual stream strongly.",
            "1 - cos, 0 to 2",
            "forward",
            "ShortGPT, arXiv 2403.03853",
            block_influence,
        ),
        Criterion(
            "cka",
            "Change of similarity",
            "The block changes which examples are alike.",
            "1 - CKA, 0 to 1",
            "states",
            "Kornblith et al., arXiv 1905.00414",
            cka,
        ),
        Criterion(
            "polyline",
            "Turn of the path",
            "The mean path of hidden states turns sharply behind the block.",
            "length in state space",
            "path",
            "after RDP-LoRA, arXiv 2604.19321",
            polyline,
        ),
        Criterion(
            "ablation",
            "Need",
            "The model needs the block: the loss rises where it is bypassed.",
            "nats",
            "bypass",
            "common practice",
            ablation,
        ),
        Criterion(
            "gradient_norm",
            "Gradient norm",
            "The loss reacts strongly to the block's weights.",
            "nats per unit of weight",
            "backward",
            "common practice",
            gradient_norm,
        ),
        Criterion(
            "relative_gradient",
            "Relative gradient",
            "The loss reacts strongly to a relative change of the block's weights.",
            "nats per squared unit of weight",
            "backward",
            "Auto-RGN, arXiv 2210.11466",
            relative_gradient,
        ),
        Criterion(
            "fisher",
            "Fisher",
            "Single examples react strongly to the block's weights, in whatever direction.",
            "squared nats per squared unit of weight",
            "per_example",
            "empirical Fisher",
            fisher,
        ),
        Criterion(
            "ntk",
            "Kernel flow",
            "The block alone can fit much of the training signal in 300 steps.",
            "share, 0 to 1",
            "kernel",
            "ours",
            ntk,
        ),
        Criterion(
            "stiffness",
            "Stiffness",
            "What one example asks of the block helps other examples.",
            "mean cosine, -1 to 1",
            "kernel",
            "Fort et al., arXiv 1901.09491",
            stiffness,
        ),
        Criterion(
            "alignment",
            "Gradient alignment",
            "Examples ask the block for changes in few, shared directions.",
            "mean squared cosine, 0 to 1",
            "kernel",
            "ours, after stiffness",
            alignment,
        ),
        Criterion(
            "first_order_drop",
            "First-order drop",
            "One small trial step of the block promises a large drop of the loss.",
            "nats",
            "trial_step",
            "GreenTrainer, arXiv 2309.13192",
            first_order_drop,
        ),
        Criterion(
            "snr",
            "Signal to noise",
            "The block's matrices carry much signal above their noise.",
            "ratio per unit of the largest singular value",
            "weights",
            "Spectrum, arXiv 2406.06623",
            snr,
        ),
        Criterion(
            "condition",
            "Condition",
            "The block's matrices are well conditioned.",
            "minus a ratio",
            "weights",
            "KappaTune",
            condition,
        ),
        Criterion(
            "probe",
            "Short runs",
            "A few real steps on the block alone lower the validation loss most.",
            "nats",
            "runs",
            "measured",
            probe,
        ),
        Criterion(
            "first",
            "First",
            "Control: the block lies near the input.",
            "rank",
            "nothing",
            "control",
            first,
        ),
        Criterion(
            "last",
            "Last",
            "Control: the block lies near the output.",
            "rank",
            "nothing",
            "control",
            last,
        ),
        Criterion(
            "middle",
            "Middle",
            "Control: the block lies mid-way.",
            "blocks",
            "nothing",
            "control",
            middle,
        ),
        Criterion(
            "random",
            "Random",
            "Control: drawn at random from the seed.",
            "0 to 1",
            "nothing",
            "control",
            random,
        ),
    ),
)


def score_blocks(names: tuple[str, ...], measured: Measurements) -> dict[str, Scores | None]:
    """Score every block by the named criteria.

    Raises:
        UnknownNameError: a name that is no criterion.
    """
    return {name: CRITERIA[name].score(measured) for name in names}
