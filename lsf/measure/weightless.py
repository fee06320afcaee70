"""Models without weights: a config's tensors with shapes, dtypes and no memory, to count on what no machine here holds.

They are torch's fake tensors, on the meta device underneath, which say that they lie on the CPU: modules, attention and
autocast do what they do there, and every operation says what it would make.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from transformers import AutoModelForCausalLM

from lsf.analysis.result import ModelInfo
from lsf.measure.anatomy import resolve
from lsf.measure.families import family_of
from lsf.measure.loading import LoadedModel


@contextmanager
def weightless(config: Any, name: str, dtype: torch.dtype = torch.bfloat16) -> Iterator[LoadedModel]:
    """Yield a loaded model that has no weights; inside the `with` every new tensor is without memory too.

    Args:
        config: of a causal LM in the families table.
        name: what it is called.
        dtype: of its weights.
    """
    with FakeTensorMode(allow_non_fake_inputs=True), _converted_in_place():
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.eval().requires_grad_(False)
        anatomy = resolve(model, family_of(config.model_type))
        info = ModelInfo(
            name=name,
            revision=None,
            family=anatomy.family.name,
            n_blocks=len(anatomy.blocks),
            width=config.hidden_size,
            vocab_size=config.vocab_size,
            tied_head=config.tie_word_embeddings,
            n_params=sum(parameter.numel() for parameter in model.parameters()),
            dtype=str(dtype).removeprefix("torch."),
            device="cpu",
        )
        yield LoadedModel(model, None, info, anatomy, config.max_position_embeddings, 0.0)


@contextmanager
def _converted_in_place() -> Iterator[None]:
    """Let `Module.to` replace what a parameter holds: torch swaps fake tensors instead, and refuses to."""
    swap = torch.utils.swap_tensors

    def replaced(one: Any, other: Any) -> None:
        one.data = other.data

    torch.utils.swap_tensors = replaced
    try:
        yield
    finally:
        torch.utils.swap_tensors = swap
