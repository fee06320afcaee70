"""The learning rate of a run that is given none, and the ladder of rates a search climbs; no torch."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lsf.models.info import ModelInfo
from lsf.plans.plan import Plan
from lsf.registry import Registry

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
