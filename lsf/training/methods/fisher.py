"""The empirical diagonal Fisher information of single parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lsf.data.encode import EncodedExample
from lsf.training.batches import autocasting, collate, score_tokens
from lsf.training.evaluation import do_nothing


def squared_gradients(
    model: Any, rows: Sequence[EncodedExample], base_dtype: str = "float32", check: Callable[[], None] = do_nothing
) -> dict[str, Float[Tensor, "..."]]:
    """Return F = 1/N sum_i g_i^2 for every parameter that wants gradients.

    g_i is the gradient of example i's log-likelihood, the sum over its completion tokens (our choice; the source has
    one label per example). Examples pass one by one: the square of a batch's mean gradient would be something else.

    Args:
        model: of its own, in eval mode; its `.grad` is left empty.
        rows: N training rows, at least one.
        base_dtype: of the base; bfloat16 is read under autocast.
        check: called before each example; may raise to end.

    Returns:
        Name -> tensor of the parameter's shape, >= 0, in (nats per unit of the parameter) squared.

    Source: Sung et al. 2021, arXiv 2111.09839.
    """
    tuned = {name: value for name, value in model.named_parameters() if value.requires_grad}
    total = {name: torch.zeros_like(value, dtype=torch.float32) for name, value in tuned.items()}
    for row in rows:
        check()
        with torch.enable_grad(), autocasting(model, base_dtype):
            loss = score_tokens(model, collate([row])).nll.sum()
        gradients = torch.autograd.grad(loss, list(tuned.values()), allow_unused=True)
        for name, gradient in zip(tuned, gradients, strict=True):
            if gradient is not None:
                total[name] += gradient.float() ** 2
    return {name: value / len(rows) for name, value in total.items()}
