"""The model as every result names it; no torch."""

from dataclasses import dataclass


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
