"""How few numbers a task needs: which d is tried next, and what was found; no torch.

d_90 is the smallest d whose metric reaches 90 % of full fine-tuning's on the same task, base and number of steps.
Source: Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2020, arXiv 2012.13255.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lsf.analysis.plan import Plan, parse_plan
from lsf.analysis.settings import check_settings, setting
from lsf.errors import BadInputError
from lsf.files import read_json, write_json
from lsf.training.options import PROJECTIONS

SCHEMA_VERSION = 1
ASKED = ("said", "did")
"""With and without a scale per block."""
RATE = 1.5e-3
"""A step of AdamW moves theta by about rate x sqrt(d); full tuning at this rate moves it by RATE x sqrt(D)."""


@dataclass(frozen=True)
class DimensionSettings:
    """What is tried, and how it is judged."""

    projection: str = setting("fastfood", "how the few numbers reach the planned values", choices=PROJECTIONS)
    low: int = setting(30, "smallest d of the grid", low=1, high=2**31 - 1)
    high: int = setting(30_000, "largest d of the grid", low=1, high=2**31 - 1)
    bisections: int = setting(
        1, "halvings (on a logarithmic scale) between the two d that bracket d_90", low=0, high=12
    )
    share: float = setting(0.9, "of full fine-tuning's metric that has to be reached", low=0.01, high=1.0)
    seeds: int = setting(1, "searches under different seeds; two give a spread", low=1, high=10)
    rates: int = setting(2, "learning rates tried per d, on validation, from the law's own outwards", low=1, high=5)
    steps: int = setting(100, "optimizer steps of every run, full fine-tuning's too", low=1, high=1_000_000)
    batch_size: int = setting(16, "examples per optimizer step", low=1, high=65_536)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the field."""
        check_settings(self)
        if self.low > self.high:
            raise BadInputError(f"low is {self.low} and high is {self.high}; the grid needs low at or below high.")

    def grid(self, largest: int) -> tuple[int, ...]:
        """Return the grid: two values per decade (1 and 3) from low to high, none above `largest`, ends included."""
        high = min(self.high, largest)
        steps = (lead * 10**power for power in range(11) for lead in (1, 3))
        return tuple(sorted({min(self.low, high), high, *(d for d in steps if self.low <= d <= high)}))


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

    def with_point(self, point: Point) -> "Curve":
        """Return the curve with one point more."""
        return replace(self, points=(*self.points, point))


@dataclass(frozen=True)
class Study:
    """d_90 of one task, as far as it is known."""

    model: str
    """`bundled`, a local folder, or a Hugging Face id."""
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
    schema_version: int = field(default=SCHEMA_VERSION)

    def of(self, method: str) -> tuple[Curve, ...]:
        """Return a method's curves."""
        return tuple(curve for curve in self.curves if curve.method == method)

    def to_json(self) -> dict[str, Any]:
        """Return the study as plain JSON values."""
        return {**asdict(self), "plan": self.plan.to_json()}

    def save(self, path: Path) -> None:
        """Write it, whole or not at all."""
        write_json(path, self.to_json())


def load_study(path: Path) -> Study:
    """Read a study.

    Raises:
        BadInputError: not JSON, another schema version, or a field is missing or unknown.
    """
    return parse_study(read_json(path, "a study of dimensions"), str(path))


def parse_study(value: Any, where: str) -> Study:
    """Build a study from JSON values; `where` names them in errors.

    Raises:
        BadInputError: another schema version, or a field is missing or unknown.
    """
    try:
        if value["schema_version"] != SCHEMA_VERSION:
            raise BadInputError(f"{where} has schema_version {value['schema_version']}; 1 was expected.")
        curves = [{**one, "points": tuple(Point(**point) for point in one["points"])} for one in value["curves"]]
        return Study(
            **{
                **value,
                "plan": parse_plan(value["plan"], where),
                "settings": DimensionSettings(**value["settings"]),
                "full": tuple(Point(**point) for point in value["full"]),
                "curves": tuple(Curve(**one) for one in curves),
            }
        )
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{where} is not a whole study of dimensions: {error}.") from None


def smallest(values: Mapping[int, float], target: float) -> int | None:
    """Return the smallest d whose value reaches the target; None where none does."""
    return min((d for d, value in values.items() if value >= target), default=None)


def next_d(values: Mapping[int, float], target: float, grid: tuple[int, ...], bisections: int) -> int | None:
    """Return the d to be measured next; None where the search has ended.

    The grid from its smallest d upwards until the target is reached, then the middle (of logarithms) between the
    smallest d that reaches it and the largest below that does not.

    Args:
        values: d -> metric, measured so far.
        target: to be reached.
        grid: ascending.
        bisections: middles measured at most.
    """
    found = smallest(values, target)
    if found is None:
        return next((d for d in grid if d not in values), None)
    below = max((d for d in values if d < found), default=None)
    if below is None or len([d for d in values if d not in grid]) >= bisections:
        return None
    middle = round(math.sqrt(below * found))
    return middle if below < middle < found else None


def rates_for(d: int, total: int, count: int) -> tuple[float, ...]:
    """Return the rates tried at d, the likeliest first: RATE x sqrt(D / d), then 0.4, 2.5, 0.16 and 6.3 times it.

    Our choice: AdamW moves each of d numbers by about the rate, so that theta moves by the rate times sqrt(d).

    Args:
        d: numbers tuned.
        total: D, the planned values.
        count: how many, 1 to 5.
    """
    base = RATE * math.sqrt(total / d)
    return tuple(min(1.0, float(f"{base * times:.2g}")) for times in (1.0, 0.4, 2.5, 0.16, 6.3)[:count])


def bound(d: int, n_train: int) -> float:
    """Return sqrt(d / m), which the generalisation gap is bounded by up to a factor and a logarithm.

    Source: Arora et al. 2018, arXiv 1802.05296, as used by Aghajanyan et al. 2020.
    """
    return math.sqrt(d / n_train)
