"""The search of one d_90 for `benchmarks/dimension.py`; every tuning is kept in a file and not done again.

At every d the law's own rate (lsf.jobs.dimensions.rates_for) and 0.4 times it are tried under seed 0, 0.16 times it too
where the lower of the two was better on validation, and the best on validation counts; the grid is walked from d = 1000
until the target lies between two neighbours, whose middle is tried once. Checkpoints of a pre-training choose among the
same rates at the first d only.
"""

import math
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.cells import rows_of
from lsf.analysis.plan import Plan, full_plan
from lsf.bundled.lessons import BATCH_SIZE, load_lesson
from lsf.data.encode import encode
from lsf.files import read_json, write_json
from lsf.jobs.dimensions import Curve, DimensionSettings, Point, Study, rates_for
from lsf.measure.loading import LoadedModel, load_model
from lsf.training.catalogue import options_of
from lsf.training.dimension import SEEN
from lsf.training.evaluation import evaluate, spread_out
from lsf.training.fitting import DivergedError, FitSettings, fit
from lsf.training.methods import METHODS, Scene

SETTINGS = DimensionSettings(steps=100, rates=3, bisections=1)
GRID = (30, 100, 300, 1000, 3000, 10000, 30000)
START = 1000
DOWNWARDS = (0, 1, 3)
"""Places of the rates 1, 0.4 and 0.16 times the law's own in what `rates_for` returns."""
ALONG_START = {"facts": 1000, "sums": 300}
"""Lessons of the checkpoints along pre-training, and the first d tried; no middle is, for the time it takes."""
Cell = dict[str, Any]


@cache
def base(model: str) -> LoadedModel:
    """Return a model in float32, loaded once."""
    return load_model(model, "float32", "cpu")


@cache
def seen_of(lesson: str) -> tuple[Any, ...]:
    """Return training examples without end-of-text, for the generalisation gap."""
    train, known = load_lesson(lesson).train, base("bundled")
    return encode(known.tokenizer, [train[i] for i in spread_out(len(train), SEEN)], known.context).rows


def plan_of(blocks: str) -> Plan:
    """Return the plan that `all` or `6,7` stands for."""
    return full_plan("bundled", 8) if blocks == "all" else Plan("bundled", 8, tuple(map(int, blocks.split(","))))


@dataclass
class Cells:
    """Every tuning done so far, kept in a file."""

    path: Path
    """Where."""
    only_kept: bool = False
    """True: what is not there is not measured."""
    known: dict[str, Cell] = field(default_factory=dict)
    """Key -> what it came to."""

    def __post_init__(self) -> None:
        """Take up what is there."""
        if self.path.exists():
            self.known = read_json(self.path, "the tunings of a study")

    def get(self, model: str, lesson: str, blocks: str, method: str, d: int, rate: float, seed: int) -> Cell:
        """Return one tuning, done where it is not known.

        Raises:
            LookupError: it is not known, and nothing is to be measured.
        """
        key = f"{Path(model).name}|{lesson}|{blocks}|{method}|{d}|{rate:.6g}|{seed}|{SETTINGS.steps}"
        if key not in self.known:
            if self.only_kept:
                raise LookupError(key)
            started = time.perf_counter()
            self.known[key] = {**tuned(model, lesson, blocks, method, d, rate, seed), "seconds": 0.0}
            self.known[key]["seconds"] = round(time.perf_counter() - started, 1)
            write_json(self.path, self.known)
            sys.stderr.write(f"{key} {self.known[key]['test']:.3f}\n")
        return self.known[key]


def tuned(model: str, lesson: str, blocks: str, method: str, d: int, rate: float, seed: int) -> Cell:
    """Tune once and read validation, test and training examples."""
    rows, plan = rows_of(lesson), plan_of(blocks)
    scene = Scene(options_of(method, {"d": d} if d else {}), rows.train, seed, BATCH_SIZE, keep_draws=True)
    prepared = METHODS[method].prepare(base(model), plan, scene)
    steps = SETTINGS.steps
    settings = FitSettings(rate, steps, BATCH_SIZE, steps // 10, 0.0, seed, "float32")
    folder = Path("/tmp")
    try:
        fit(prepared, rows.train, settings, folder, lambda _row: None, lambda: None)
    except DivergedError:
        return {"validation": 0.0, "validation_loss": None, "test": 0.0, "train": 0.0}
    read = {"validation": rows.validation, "test": rows.test, "train": seen_of(lesson)}
    found = {name: evaluate(prepared, part, 64) for name, part in read.items()}
    right = {name: one.exact_match or 0.0 for name, one in found.items()}
    loss = found["validation"].loss
    return {**right, "validation_loss": loss if loss is not None and math.isfinite(loss) else None}


def better(found: dict[Any, Cell]) -> Any:
    """Return the key of the best on validation: exact match, then loss."""
    return max(found, key=lambda key: (found[key]["validation"], -(found[key]["validation_loss"] or math.inf)))


@dataclass
class Search:
    """The searches of one model, lesson and place."""

    cells: Cells
    """What is known."""
    model: str
    """bundled, or a folder."""
    lesson: str
    """Its name."""
    blocks: str
    """`all`, or blocks that may move."""

    def cell(self, method: str, d: int, rate: float, seed: int) -> Cell:
        """Return one tuning."""
        return self.cells.get(self.model, self.lesson, self.blocks, method, d, rate, seed)

    @property
    def total(self) -> int:
        """D, the values that may move."""
        return METHODS["full"].count(base("bundled"), plan_of(self.blocks), None)

    def full(self, seed: int) -> Point:
        """Return full fine-tuning at the rate that is best on validation under seed 0."""
        if self.blocks != "all":
            rates = (3e-3, 1e-2)
        else:
            rates = (1e-4, 3e-4, 1e-3, 3e-3) if self.model == "bundled" else (3e-4, 1e-3, 3e-3)
        rate = better(self.known({rate: ("full", 0, rate) for rate in rates}))
        return point_of(self.total, rate, self.cell("full", 0, rate, seed))

    def known(self, asked: dict[Any, tuple[str, int, float]]) -> dict[Any, Cell]:
        """Return tunings under seed 0; where nothing is to be measured, those that are known.

        Raises:
            LookupError: nothing is to be measured, and none is known.
        """
        found: dict[Any, Cell] = {}
        for key, (method, d, rate) in asked.items():
            with suppress(LookupError):
                found[key] = self.cell(method, d, rate, 0)
        if not found:
            raise LookupError(f"{self.model}, {self.lesson}: {asked}")
        return found

    @property
    def learnt(self) -> float | None:
        """Test exact match of full fine-tuning under seed 0; None where it is not known and not to be measured."""
        try:
            return self.full(0).test
        except LookupError:
            return None

    def place(self, method: str, d: int) -> int:
        """Return which of the law's rates is best on validation under seed 0, tried from the highest down."""
        places = {place: (method, d, self.rate(d, place)) for place in DOWNWARDS}
        found = self.known({place: places[place] for place in DOWNWARDS[:2]})
        if better(found) == DOWNWARDS[1]:
            found = self.known(places)
        return better(found)

    def rate(self, d: int, place: int) -> float:
        """Return one of the law's rates at d."""
        return rates_for(d, self.total, 5)[place]

    def curve(self, method: str, seed: int) -> Curve:
        """Return one search, carried out to its end or as far as it is known."""
        full = self.full(seed)
        curve = Curve(method, seed, SETTINGS.share * full.test)
        along = self.model != "bundled"
        start = ALONG_START[self.lesson] if along else START

        def reaches(d: int) -> bool:
            nonlocal curve
            rate = self.rate(d, self.place(method, start if along else d))
            found = next((p for p in curve.points if p.d == d), None)
            if found is None:
                found = point_of(d, rate, self.cell(method, d, rate, seed))
                curve = curve.with_point(found)
            return found.test >= curve.target

        try:
            walk(reaches, start, not along)
        except LookupError:
            sys.stderr.write(f"{self.model} {self.lesson} {self.blocks} {method} seed {seed} is not finished\n")
            return Curve(method, seed, curve.target)
        return curve

    def study(self, name: str, methods: tuple[str, ...], seeds: int) -> Study | None:
        """Return the study of finished curves; None where there is none."""
        full: list[Point] = []
        curves: list[Curve] = []
        for seed in range(seeds):
            try:
                full.append(self.full(seed))
                curves += [self.curve(method, seed) for method in methods]
            except LookupError:
                break
        ended = tuple(curve for curve in curves if curve.points)
        if not ended:
            return None
        train = len(load_lesson(self.lesson).train)
        return Study(name, f"lesson:{self.lesson}", plan_of(self.blocks), SETTINGS, train, tuple(full), ended)


def point_of(d: int, rate: float, cell: Cell) -> Point:
    """Return a tuning as a point."""
    return Point(d, rate, cell["test"], cell["validation"], cell["train"], cell["seconds"])


def walk(reaches: Callable[[int], bool], start: int, middle: bool) -> None:
    """Walk the grid from `start` until the target lies between two neighbours, then try their middle once, if asked."""
    place = GRID.index(start)
    if reaches(GRID[place]):
        while place > 0 and reaches(GRID[place - 1]):
            place -= 1
        if place == 0:
            return
    else:
        while not reaches(GRID[place]):
            place += 1
            if place == len(GRID):
                return
    if middle:
        reaches(int(float(f"{math.sqrt(GRID[place - 1] * GRID[place]):.2g}")))
