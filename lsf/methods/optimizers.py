"""The optimizers a run can step with: what transformers calls them, and the bytes each keeps per tensor; no torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod

from lsf.errors import BadInputError
from lsf.registry import Registry

LEAST_8BIT = 4096
"""Numbers of a tensor from which on bitsandbytes keeps 8-bit moments; a smaller one keeps float32 moments."""
BLOCK = 256
"""Numbers that share one float32 scale in an 8-bit moment."""


@dataclass(frozen=True)
class Optimizer:
    """One way to step; it keeps its state on the device of what is tuned."""

    name: str
    """Key in OPTIMIZERS."""
    label: str
    """What a person reads."""
    meaning: str
    """One sentence."""
    source: str
    """Where it comes from, and whose code it is."""
    optim: str
    """What transformers' `optim=` calls it."""
    state_bytes: Callable[[Sequence[int]], int]
    """Shape of a float32 tensor -> bytes kept for it between steps; counters, a few bytes a tensor, left out."""
    least: int
    """Bytes per tuned parameter that it keeps at least, where shapes are not known yet."""
    step_copies: int = 0
    """Float32 copies of a tensor that exist beside its state while it is stepped."""
    step_copies_cpu: int = 0
    """The same on the CPU."""
    wide_embeddings: bool = False
    """Whether embeddings keep two float32 moments whatever other tensors keep: transformers asks for it."""
    package: str | None = None
    """The package it needs beside LSF's own; None where there is none."""


def _two_moments(shape: Sequence[int]) -> int:
    return 8 * prod(shape)


def _two_moments_8bit(shape: Sequence[int]) -> int:
    n = prod(shape)
    return _two_moments(shape) if n < LEAST_8BIT else 2 * (n + 4 * -(-n // BLOCK))


def _rows_and_columns(shape: Sequence[int]) -> int:
    if len(shape) < 2:
        return 4 * prod(shape)
    *stack, rows, columns = shape
    return 4 * prod(stack) * (rows + columns)


EMBEDDING_BYTES = _two_moments
"""Shape of an embedding -> bytes kept for it where `wide_embeddings` holds."""

OPTIMIZERS: Registry[Optimizer] = Registry(
    "optimizer",
    [
        Optimizer(
            "adamw",
            "AdamW",
            "Two float32 moments per tuned parameter.",
            "Loshchilov & Hutter 2019, arXiv 1711.05101; torch.optim.AdamW",
            "adamw_torch_fused",
            _two_moments,
            least=8,
        ),
        Optimizer(
            "adamw_8bit",
            "AdamW, 8-bit",
            "AdamW with moments of 8 bits and one scale per 256 of them; tensors below 4096 numbers keep float32.",
            "Dettmers et al. 2022, arXiv 2110.02861; bitsandbytes",
            "adamw_8bit",
            _two_moments_8bit,
            least=2,
            step_copies_cpu=5,
            wide_embeddings=True,
            package="bitsandbytes",
        ),
        Optimizer(
            "adafactor",
            "Adafactor",
            "A row and a column of second moments per matrix and no first moment; the rate is the one given.",
            "Shazeer & Stern 2018, arXiv 1804.04235; transformers' own",
            "adafactor",
            _rows_and_columns,
            least=0,
            step_copies=3,
            step_copies_cpu=3,
        ),
    ],
)


def check_optimizer(name: str) -> None:
    """Refuse an optimizer whose package is not installed.

    Raises:
        BadInputError: it is not; the sentence says how it is installed.
        UnknownNameError: no such optimizer.
    """
    package = OPTIMIZERS[name].package
    if package is not None and find_spec(package) is None:
        without = ", ".join(one.name for one in OPTIMIZERS.values() if one.package is None)
        raise BadInputError(
            f"The optimizer {name} needs the package {package}, which is not installed: pip install {package}, or take "
            f"one that needs none: {without}."
        )
