"""How few numbers a task needs: what is asked, what was found, and packed studies; no torch."""

import math
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal

from lsf.errors import BadInputError
from lsf.files import read_json
from lsf.methods.catalogue import PROJECTIONS
from lsf.plans.plan import Plan
from lsf.schema import JsonRecord
from lsf.settings import check_settings, setting

ROUNDING = 1e-9
"""Shares of examples that differ by less are equal."""
LOST = (math.inf, math.inf)
"""How bad a rate is whose loss was lost."""


@dataclass(frozen=True)
class Try:
    """What tuning at one rate came to; shares of exact match, in [0, 1]; None throughout where the loss diverged."""

    validation: float | None
    """On the validation split."""
    validation_loss: float | None
    """There, in nats per token."""
    test: float | None
    """On the test split."""
    train: float | None
    """On examples it was trained on."""
    seconds: float
    """Wall time."""

    @property
    def badness(self) -> tuple[float, float]:
        """What is compared: exact match on validation, then the loss there; the lower, the better."""
        if self.validation is None or self.validation_loss is None:
            return LOST
        return -self.validation, self.validation_loss


def smallest(values: Mapping[int, float], target: float) -> int | None:
    """Return the smallest d whose value reaches the target; None where none does.

    A share of examples reaches the target by counting: 63 of 75 are 90 % of 70 of 75, whatever their rounding says.
    """
    return min((d for d, value in values.items() if value >= target - ROUNDING), default=None)


def best_rate(tried: Mapping[float, Try]) -> float | None:
    """Return the rate that is best on validation, the lowest of equals; None where every loss was lost."""
    best = min(sorted(tried), key=lambda rate: tried[rate].badness)
    return best if tried[best].badness < LOST else None


def bound(d: int, n_train: int) -> float:
    """Return sqrt(d / m), which the generalisation gap is bounded by up to a factor and a logarithm.

    Source: Arora et al. 2018, arXiv 1802.05296, as used by Aghajanyan et al. 2020.
    """
    return math.sqrt(d / n_train)


ASKED = ("said", "did")
"""With and without a scale per block."""


@dataclass(frozen=True)
class DimensionSettings:
    """What is tried, and how it is judged."""

    projection: str = setting("fastfood", "how the few numbers reach the planned values", choices=PROJECTIONS)
    low: int = setting(30, "smallest d of the grid; a method that needs more begins there", low=1, high=2**31 - 1)
    high: int = setting(30_000, "largest d of the grid", low=1, high=2**31 - 1)
    bisections: int = setting(
        1, "halvings (on a logarithmic scale) between the two d that bracket d_90", low=0, high=12
    )
    share: float = setting(0.9, "of full fine-tuning's metric that has to be reached", low=0.01, high=1.0)
    seeds: int = setting(1, "searches under different seeds; two give a spread", low=1, high=10)
    rates: int = setting(
        5,
        "learning rates tried per d at most, on validation: the law's own, 0.4 times it, then outwards while the best "
        "is at an edge",
        low=1,
        high=5,
    )
    steps: int = setting(100, "optimizer steps of every run, full fine-tuning's too", low=1, high=1_000_000)
    batch_size: int = setting(16, "examples per optimizer step", low=1, high=65_536)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the field."""
        check_settings(self)
        if self.low > self.high:
            raise BadInputError(f"low is {self.low} and high is {self.high}; the grid needs low at or below high.")

    def grid(self, largest: int, least: int = 1) -> tuple[int, ...]:
        """Return the grid: two values per decade (1 and 3) from low to high, ends included.

        Args:
            largest: none is above it.
            least: none is below it, if high is not.
        """
        low, high = max(self.low, least), min(self.high, largest)
        steps = (lead * 10**power for power in range(11) for lead in (1, 3))
        return tuple(sorted({min(low, high), high, *(d for d in steps if low <= d <= high)}))


@dataclass(frozen=True)
class Point:
    """What tuning d numbers under one seed came to."""

    d: int
    """Numbers tuned; for full fine-tuning the planned values, D."""
    rate: float
    """Peak rate, the best tried on validation."""
    test: float
    """Test exact match, in [0, 1]."""
    validation: float
    """Validation exact match, in [0, 1]."""
    train: float
    """Exact match on examples it was trained on, in [0, 1]."""
    seconds: float
    """Of all tries at this d."""

    @property
    def gap(self) -> float:
        """Generalisation gap: how much less is right on the test split than on what was trained."""
        return self.train - self.test


@dataclass(frozen=True)
class Curve:
    """One search: a method under a seed."""

    method: str
    """did or said."""
    seed: int
    """Of data order and projection."""
    target: float
    """Test exact match to be reached."""
    points: tuple[Point, ...] = ()
    """In the order they were measured."""

    @property
    def d_90(self) -> int | None:
        """Smallest d measured that reaches the target; None where none does."""
        return smallest({point.d: point.test for point in self.points}, self.target)

    @property
    def at_most(self) -> bool:
        """Whether d_90 is the smallest d tried, and so only the most that is needed."""
        return self.d_90 is not None and self.d_90 == min(point.d for point in self.points)

    @property
    def best(self) -> Point:
        """The point of the highest test exact match, at the smallest d of equals; there must be points."""
        return max(self.points, key=lambda point: (point.test, -point.d))

    @property
    def falls(self) -> bool:
        """Whether the target was not reached although the largest d is not the best: more numbers did not help."""
        return self.d_90 is None and bool(self.points) and self.best.d < max(point.d for point in self.points)

    @property
    def summary(self) -> str:
        """How far the search came, in words."""
        if not self.points:
            return "not measured yet"
        if self.d_90 is not None:
            return f"at most {self.d_90:,}" if self.at_most else f"{self.d_90:,}"
        best = "" if not self.falls else f" (best {100 * self.best.test:.0f} % at {self.best.d:,})"
        return f"not reached up to {max(point.d for point in self.points):,}{best}"

    def with_point(self, point: Point) -> "Curve":
        """Return the curve with one point more."""
        return replace(self, points=(*self.points, point))


@dataclass(frozen=True)
class Study(JsonRecord):
    """d_90 of one task, as far as it is known."""

    noun: ClassVar = "study of dimensions"
    model: str
    """`bundled`, `smollm2`, a local folder, a GGUF file, or a Hugging Face id."""
    data: str
    """Name of the task."""
    plan: Plan
    """Values that may move."""
    settings: DimensionSettings
    """What was asked."""
    n_train: int
    """Training examples that the runs see, m of the bound."""
    full: tuple[Point, ...] = ()
    """Full fine-tuning of the same plan, one point per seed."""
    curves: tuple[Curve, ...] = ()
    """One per method and seed, in the order they were begun."""
    weights: str | None = None
    """SHA-256 over the model's weights; None where it was measured before this was kept."""
    schema_version: Literal[1] = 1

    def of(self, method: str) -> tuple[Curve, ...]:
        """Return a method's curves."""
        return tuple(curve for curve in self.curves if curve.method == method)

    def of_seeds(self, count: int) -> "Study":
        """Return the study as it would be with its first seeds only."""
        few = tuple(curve for curve in self.curves if curve.seed < count)
        return replace(self, curves=few, full=self.full[:count], settings=replace(self.settings, seeds=count))

    @property
    def sought(self) -> str:
        """What is searched: d_90, or d_50 where half of full fine-tuning's metric is to be reached."""
        return f"d_{100 * self.settings.share:g}"

    @property
    def whole(self) -> str:
        """What the reference tunes: `full`, or every value of the blocks allowed."""
        return "full" if self.plan.is_full else f"all of {self.plan.label}"

    def d_90(self, method: str) -> float | None:
        """Return the median of a method's d_90 over seeds, where every seed reached it; else None."""
        found = [curve.d_90 for curve in self.of(method)]
        known = [d for d in found if d is not None]
        return statistics.median(known) if known and len(known) == len(found) else None

    def at_most(self, method: str) -> bool:
        """Say whether a median may lie lower still: a seed in the middle or above reached the line at the least d."""
        found = sorted(curve.d_90 for curve in self.of(method) if curve.d_90 is not None)
        middle = statistics.median_low(found) if found else 0
        return any(curve.at_most and curve.d_90 is not None and curve.d_90 >= middle for curve in self.of(method))

    def summary(self, method: str) -> str:
        """Tell a method's d_90: one number, or median and range over seeds, or how far the search came."""
        curves = [curve for curve in self.of(method) if curve.points]
        found = [curve.d_90 for curve in curves if curve.d_90 is not None]
        if len(curves) < 2:
            return (curves[0].summary if curves else "not measured yet") + (", 1 seed, no interval" if found else "")
        if not found:
            return f"not reached up to {max(p.d for c in curves for p in c.points):,} under any of {len(curves)} seeds"
        spread = f"{min(found):,} to {max(found):,}"
        if (middle := self.d_90(method)) is None:
            return f"not reached under {len(curves) - len(found)} of {len(curves)} seeds, else {spread}"
        least = "at most " if self.at_most(method) else ""
        return f"{least}{middle:,.0f}, the median of {len(curves)} seeds ({spread})"

    def to_json(self) -> dict[str, Any]:
        """Return the study as plain JSON values."""
        return {**asdict(self), "plan": self.plan.to_json()}


FILE = Path(__file__).with_name("dimension.json")
"""Written by `python benchmarks/dimension.py`; docs/results/dimension.md says when, and with which versions."""
ALONG = "pretraining step "
"""Bases along pre-training are called so, with the number of steps."""


@cache
def measured() -> tuple[Study, ...]:
    """Return every study that is kept; none where the file is missing."""
    if not FILE.is_file():
        return ()
    return tuple(Study.from_json(value, str(FILE)) for value in read_json(FILE, "the studies of dimensions")["studies"])


def over_lessons() -> tuple[Study, ...]:
    """Return the studies of the whole bundled model, one per lesson."""
    return tuple(study for study in measured() if study.model == "bundled" and study.plan.is_full)


def over_blocks() -> tuple[Study, ...]:
    """Return the studies in which only some blocks may move, fewest values first."""
    some = [study for study in measured() if study.model == "bundled" and not study.plan.is_full]
    return tuple(sorted(some, key=lambda study: (study.data, len(study.plan.blocks))))


def along_pretraining() -> tuple[Study, ...]:
    """Return the studies of checkpoints of a pre-training, in its order."""
    found = [study for study in measured() if study.model.startswith(ALONG)]
    return tuple(sorted(found, key=lambda study: int(study.model.removeprefix(ALONG))))
