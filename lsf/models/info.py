"""The model as every result names it; no torch."""

from dataclasses import dataclass
from pathlib import Path

NAME = "smollm2"
"""What `--model` calls the real model that is offered; a folder of this name here is `./smollm2`."""
LABEL = "SmolLM2-135M-Instruct"
"""Its full name."""


def model_label(asked: str) -> str:
    """Return what people call a model: the real one by its full name, any other by the last part of its folder or id.

    Args:
        asked: what it was asked for by: `smollm2`, a folder (one called smollm2 may hold anything), a Hugging Face id.
    """
    return LABEL if asked == NAME else Path(asked).name


@dataclass(frozen=True)
class ModelInfo:
    """The model that was measured."""

    name: str
    """`bundled`, `smollm2`, a folder, a GGUF file, or a Hugging Face id."""
    revision: str | None
    """Commit on the hub; None for a local model."""
    family: str
    """Row of the families table."""
    n_blocks: int
    """L."""
    width: int
    """d, the width of the residual stream."""
    vocab_size: int
    """V, rows of the LM head."""
    tied_head: bool
    """True where the LM head is the input embedding."""
    n_params: int
    """Parameters of the whole model, a tied head counted once."""
    dtype: str
    """Of the weights in memory: float32, bfloat16."""
    device: str
    """cpu, cuda:0, mps."""
    origin: str | None = None
    """What the weights are, where that is not plain from the name: published or rounded, dequantised from what."""
    left_out: str | None = None
    """Weights of its files that its config does not ask for: how many, and one; None where there are none."""
