"""The optimizers a run can step with, and the learning rate of a run that is given none; no torch.

Of an optimizer what transformers calls it, and the bytes it keeps per tensor; of rates the law of each method, and the
ladder that a search climbs.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import prod
from typing import Any

from lsf.errors import BadInputError
from lsf.models.info import ModelInfo
from lsf.plans.plan import Plan
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


WIDTH = 128
"""Width at which `Law.rate` holds: that of the bundled model."""
BY_WIDTH = -1.0
"""b: how the rate falls with the model's width, as AdamW's does in theory (arXiv 2203.03466)."""
LEAST_WIDTH = 64
"""Smallest width that was measured; below it the rate rises no further."""
BY_SHARE, LOW_RANK_BY_SHARE = -0.75, -0.5
"""c: how it rises where fewer blocks are tuned: what blocks add to the residual stream adds up."""
LARGE = 1_000_000_000
"""Parameters above which `Law.most` limits it."""
DIGITS = 2
"""Significant digits of a default rate, so that what is shown is what is used."""


@dataclass(frozen=True)
class Law:
    """The default rate of one method."""

    name: str
    """Key in CATALOGUE."""
    rate: float
    """a: AdamW's peak rate at width 128 with every block tuned; of did and said the movement of each planned value per
    step, which their projection spreads d numbers over."""
    most: float | None
    """Largest rate used above a billion parameters; None where none is published in this method's terms."""
    source: str
    """Where `most` comes from."""
    by_share: float = BY_SHARE
    """c."""
    projected: bool = False
    """Whether a few numbers are projected to all planned values, so that their count and not the share of blocks
    decides."""


def _low_rank(name: str, rate: float, most: float, source: str) -> Law:
    return Law(name, rate, most, source, LOW_RANK_BY_SHARE)


_MASKS = "none found above 1 B; BitFit's, the one choice of few values with published rates"
LAWS: Registry[Law] = Registry(
    "method",
    [
        Law("full", 8e-4, 2e-5, "Llama 2's supervised fine-tuning, 7 to 70 B (arXiv 2307.09288, section 3.1): 2e-5"),
        _low_rank("lora", 5.5e-3, 2e-4, "QLoRA, 7 and 13 B (arXiv 2305.14314, table 9), and LoRA on GPT-3: 2e-4"),
        Law("bitfit", 3.5e-2, 1e-3, "Ben Zaken et al. (arXiv 2106.10199): 1e-4 to 1e-3 for BERT; none found above 1 B"),
        _low_rank("adapter", 1e-2, 1e-4, "Pfeiffer et al. (arXiv 2005.00247): 1e-4 for BERT; none found above 1 B"),
        Law("pafi", 0.11, 1e-3, _MASKS),
        Law("fish", 2.1e-2, 1e-3, _MASKS),
        Law("lt_sft", 7e-2, 1e-3, _MASKS),
        Law("random_mask", 8.5e-2, 1e-3, _MASKS),
        Law("top_magnitude", 8.5e-2, 1e-3, _MASKS),
        _low_rank("hiwi", 1e-2, 1e-4, "an adapter's, which it is, on parameters"),
        Law(
            "did",
            0.013,
            None,
            "a coordinate's rate depends on d and D: none is published as a movement",
            projected=True,
        ),
        Law("said", 0.013, None, "as did", projected=True),
    ],
)
"""One law per method of the catalogue."""


@dataclass(frozen=True)
class Tuned:
    """What of which model is tuned, as far as a rate depends on it."""

    width: int
    """d of the model."""
    n_params: int
    """Parameters of the whole model."""
    share: float
    """Share of its blocks that is tuned, in (0, 1]."""
    spread: float = 1.0
    """sqrt(D / (d T)) of a projection of d numbers to D values in T tensors; 1 without one."""


def share_of(plan: Plan) -> float:
    """Return the share of blocks a plan tunes: 1 with embedding or head, one block's at the least."""
    whole = plan.embedding or plan.head
    return 1.0 if whole else max(1, len(plan.blocks)) / plan.n_blocks


def tuned_of(info: ModelInfo, plan: Plan, spread: float = 1.0) -> Tuned:
    """Return what a plan tunes of a model."""
    return Tuned(info.width, info.n_params, share_of(plan), spread)


def default_rate(method: str, tuned: Tuned) -> float:
    """Return AdamW's peak rate where none is given, to two digits; see `exact_rate`."""
    return rounded(exact_rate(method, tuned))


def exact_rate(method: str, tuned: Tuned) -> float:
    """Return the law's rate with all its digits, at most 1.

    Args:
        method: key in CATALOGUE.
        tuned: model and plan size.

    Raises:
        UnknownNameError: no such method.
    """
    law = LAWS[method]
    rate = law.rate * (max(tuned.width, LEAST_WIDTH) / WIDTH) ** BY_WIDTH
    rate *= tuned.spread if law.projected else tuned.share**law.by_share
    if law.most is not None and tuned.n_params > LARGE:
        rate = min(rate, law.most)
    return min(1.0, rate)


def spread_of(d: int, values: int, tensors: int) -> float:
    """Return sqrt(D / (d T)): AdamW moves each of d numbers by about the rate, and so the values by rate x sqrt(d T).

    Args:
        d: numbers tuned.
        values: D, the planned values.
        tensors: T, the tensors they lie in, each with a projection of its own that keeps lengths.
    """
    return math.sqrt(values / (d * tensors))


def rounded(rate: float) -> float:
    """Return a rate to two significant digits."""
    return float(f"{rate:.{DIGITS}g}")


LADDER = (3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Rates in half decades: what is tried in sweeps and studies, so that their numbers can be put side by side."""


def around(rate: float, ladder: Sequence[float] = LADDER) -> tuple[float, float, float]:
    """Return the rung nearest to a rate and its neighbours, ascending; at an end of the ladder the last three."""
    place = min(range(len(ladder)), key=lambda rung: abs(math.log(ladder[rung] / rate)))
    start = min(max(0, place - 1), len(ladder) - 3)
    low, middle, high = ladder[start : start + 3]
    return low, middle, high


def outwards(tried: Mapping[float, Any], ladder: Sequence[float]) -> float | None:
    """Return the next rate where the best so far is the lowest or the highest tried; None where it is inside, or last.

    Args:
        tried: rate -> how bad it was on validation, anything with an order: a loss, infinite where lost. Of equals the
            lowest rate is taken for the best, so that a search in which every loss was lost goes down.
        ladder: rates that may be tried.
    """
    best = min(sorted(tried), key=lambda rate: tried[rate])
    if best == min(tried):
        return max((rate for rate in ladder if rate < best), default=None)
    if best == max(tried):
        return min((rate for rate in ladder if rate > best), default=None)
    return None
