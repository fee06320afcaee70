"""Single searches of d_90 for `benchmarks/dimension.py`, by `lsf.dimension.search`; every tuning is kept in a file.

A search that was ended goes on from what the file holds, and one that is whole is put together again in a second.
"""

import sys
from collections.abc import Iterator, MutableMapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from lsf.data.lessons import load_lesson
from lsf.dimension.search import Key, next_d, study_dimension
from lsf.dimension.study import ASKED, DimensionSettings, Study, Try
from lsf.errors import BadInputError, RunError
from lsf.files import read_json, write_records
from lsf.models.loading import LoadedModel, load_model, weights_hash
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Silent

SETTINGS = DimensionSettings()
"""Of the whole bundled model: 100 steps, d from 30 to 30,000, one middle, rates until the best is inside."""
ALONG = replace(SETTINGS, low=100, steps=300)
"""Of checkpoints along a pre-training: in 100 steps full fine-tuning of early ones does not come to its end."""


@cache
def base(model: str) -> LoadedModel:
    """Return a model in float32, loaded once."""
    return load_model(model, "float32", "cpu")


def plan_of(blocks: str) -> Plan:
    """Return the plan that `all` or `6,7` stands for."""
    return full_plan("bundled", 8) if blocks == "all" else Plan("bundled", 8, tuple(map(int, blocks.split(","))))


class Watch(Silent):
    """Tells every tuning, and can be told to end the study."""

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Tell it."""
        if self.stop is None:
            sys.stderr.write(f"{message}\n")


@dataclass
class Store:
    """A file with single tunings of many studies."""

    path: Path
    """Where."""
    only_kept: bool = False
    """True: what is not there is not measured."""
    known: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Key -> what it came to."""
    weights: dict[str, str] = field(default_factory=dict)
    """Name of a base -> SHA-256 of the weights that were tuned under it."""

    def __post_init__(self) -> None:
        """Take up what is there."""
        if self.path.exists():
            kept = read_json(self.path, "the tunings of a study")
            self.known, self.weights = kept["tunings"], kept["weights"]

    def belongs(self, name: str, found: str) -> None:
        """Refuse a base of other weights than those of the tunings that are kept under its name."""
        if self.weights.setdefault(name, found) != found:
            raise BadInputError(f"{self.path} holds tunings of another {name}; take another file with --cells.")

    def keep(self, key: str, found: Try) -> None:
        """Put one tuning in, and write the file."""
        self.known[key] = {**asdict(found), "seconds": round(found.seconds, 1)}
        write_records(self.path, {"weights": self.weights, "tunings": self.known})


@dataclass
class Tunings(MutableMapping[Key, Try]):
    """The tunings of one base, lesson, place and number of steps, as a study asks for them."""

    store: Store
    """Where they are."""
    before: str
    """Model, lesson and blocks."""
    steps: int
    """Of every run."""
    watch: Watch
    """Told to end the study where only what is kept counts and a tuning is not there."""

    def name(self, key: Key) -> str:
        """Return the key in the file."""
        method, d, rate, seed = key
        return f"{self.before}|{method}|{0 if method == 'full' else d}|{rate:.6g}|{seed}|{self.steps}"

    def __contains__(self, key: object) -> bool:
        """Say whether a tuning is kept."""
        found = self.name(key) in self.store.known  # type: ignore[arg-type]
        if not found and self.store.only_kept:
            self.watch.stop = "keep"
        return found

    def __getitem__(self, key: Key) -> Try:
        """Return a tuning."""
        return Try(**self.store.known[self.name(key)])

    def __setitem__(self, key: Key, value: Try) -> None:
        """Keep a tuning."""
        self.store.keep(self.name(key), value)

    def __delitem__(self, key: Key) -> None:
        """Forget a tuning."""
        del self.store.known[self.name(key)]

    def __iter__(self) -> Iterator[Key]:
        """Return the keys that are kept; d is 0 where all values were tuned."""
        for name in self.store.known:
            *before, method, d, rate, seed, steps = name.split("|")
            if "|".join(before) == self.before and int(steps) == self.steps:
                yield method, int(d), float(rate), int(seed)

    def __len__(self) -> int:
        """Return how many are kept."""
        return sum(1 for _ in self)


def search(
    store: Store,
    model: str,
    lesson: str,
    blocks: str = "all",
    methods: tuple[str, ...] = ASKED,
    settings: DimensionSettings = SETTINGS,
) -> Study | None:
    """Carry out one study, or put it together from what is kept; without curves whose search has not ended.

    Returns:
        None where not even full fine-tuning is known, or where it gets nothing right.
    """
    watch = Watch()
    store.belongs(Path(model).name, weights_hash(base(model).model))
    tunings = Tunings(store, f"{Path(model).name}|{lesson}|{blocks}", settings.steps, watch)
    try:
        study = study_dimension(
            base(model), load_lesson(lesson), plan_of(blocks), settings, watch, methods, known=tunings
        )
    except RunError as error:
        sys.stderr.write(f"{model} {lesson} {blocks}: {error}\n")
        return None
    if not study.full:
        return None
    grid = settings.grid(study.full[0].d)
    ended = [
        curve
        for curve in study.curves
        if next_d({point.d: point.test for point in curve.points}, curve.target, grid, settings.bisections) is None
    ]
    return replace(study, curves=tuple(ended))
