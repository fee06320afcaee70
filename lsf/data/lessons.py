"""Six lessons: changes of the small world that a model can be tuned to, made so that different depths are right.

And how the lesson `facts` is edited in, window by window of blocks: the settings, and the questions it is judged by.
"""

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from lsf.data.corpus import (
    ANIMAL,
    CAPITAL,
    FOOD,
    HOME,
    HOP_CAPITAL,
    HOP_FOOD,
    HOP_LANGUAGE,
    JOB,
    LANGUAGE,
    PET,
    REGION,
    REVIEW,
    TOWN,
    VERDICTS,
    opinions,
)
from lsf.data.task import Example, Task
from lsf.data.world import LARGEST_TERM, NEW_TOWNS, PEOPLE, SHIPS, THINGS, WEATHER, World, make_world
from lsf.errors import BadInputError
from lsf.registry import Registry
from lsf.settings import check_settings, setting
from lsf.wording import counted

ItemT = TypeVar("ItemT")
Splits = tuple[list[Example], list[Example], list[Example]]

BATCH_SIZE = 16
"""Examples per step that the lessons' step counts were measured with."""


@dataclass(frozen=True)
class Lesson:
    """One thing the bundled model can be taught."""

    name: str
    """Key; as data it is called `lesson:NAME`."""
    title: str
    """A few words for a list."""
    teaches: str
    """One sentence for a reader."""
    build: Callable[[World, np.random.Generator], Splits]
    """Makes train, validation and test examples from the world."""
    steps: int = 60
    """Steps of `BATCH_SIZE` examples in which the right block learns it and a wrong one does not."""
    metric: str = "exact_match"
    """What its test split is judged by."""

    def task(self, seed: int = 0) -> Task:
        """Return the lesson's examples; the same for the same seed.

        Args:
            seed: of the lesson's own draws; the world stays that of the committed model.
        """
        rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        train, validation, test = self.build(make_world(0), rng)
        return Task(f"lesson:{self.name}", tuple(train), tuple(validation), tuple(test))


def _drawn(values: Sequence[ItemT], count: int, rng: np.random.Generator) -> list[ItemT]:
    """Return `count` of the values in random order."""
    return [values[index] for index in rng.permutation(len(values))[:count]]


def _cut(
    values: Sequence[ItemT], train: int, validation: int
) -> tuple[Sequence[ItemT], Sequence[ItemT], Sequence[ItemT]]:
    """Cut a sequence in three; the rest is the test part."""
    return values[:train], values[train : train + validation], values[train + validation :]


def _facts(world: World, rng: np.random.Generator) -> Splits:
    """24 countries move their capital to a town of no country; tested in wordings unseen in training."""
    moved = zip(_drawn(world.countries, 24, rng), _drawn(NEW_TOWNS, 24, rng), strict=True)
    changes = [(country.name, town) for country, town in moved]
    parts = _cut(_drawn(CAPITAL, len(CAPITAL), rng), 6, 2)
    train, validation, test = (
        [Example(wording.format(country), f" {town}") for country, town in changes for wording in part]
        for part in parts
    )
    return train, validation, test


ASKED = {
    "capital": CAPITAL,
    "town": TOWN,
    "language": LANGUAGE,
    "food": FOOD,
    "animal": ANIMAL,
    "region": REGION,
}
"""Wordings of each question about a country, by the field of `Country` that answers it."""


def _aliases(world: World, rng: np.random.Generator) -> Splits:
    """12 countries are called by the names of ships; tested in wordings unseen in training."""
    countries, aliases = _drawn(world.countries, 12, rng), _drawn(SHIPS, 12, rng)
    splits: Splits = ([], [], [])
    for field, templates in ASKED.items():
        for part, chosen in zip(splits, _cut(_drawn(templates, 6, rng), 3, 1), strict=True):
            part.extend(
                Example(wording.format(alias), f" {getattr(country, field)}")
                for country, alias in zip(countries, aliases, strict=True)
                for wording in chosen
            )
    return splits


def _labels(world: World, rng: np.random.Generator) -> Splits:
    """Reviews are answered with the weather; tested on opinions unseen in training."""
    answers: dict[str, str] = dict(zip(VERDICTS, WEATHER, strict=True))

    def reviews(part: Sequence[tuple[str, str]], count: int) -> list[Example]:
        made: dict[str, Example] = {}
        while len(made) < count:
            words, verdict = part[int(rng.integers(len(part)))]
            thing = THINGS[int(rng.integers(len(THINGS)))]
            person = PEOPLE[int(rng.integers(len(PEOPLE)))]
            wording = REVIEW[int(rng.integers(len(REVIEW)))]
            prompt = wording.format(thing=thing, words=words, person=person)
            made[prompt] = Example(prompt, f" {answers[verdict]}")
        return list(made.values())

    said = opinions()
    train, validation, test = _cut(_drawn(said, len(said), rng), 60, 20)
    return reviews(train, 300), reviews(validation, 60), reviews(test, 150)


def _sums(world: World, rng: np.random.Generator) -> Splits:
    """The number after a sum; tested on pairs unseen in training."""
    terms = range(LARGEST_TERM + 1)
    pairs = [(first, second) for first in terms for second in terms if first + second < 2 * LARGEST_TERM]
    train, validation, test = (
        [Example(f"The number after {a} plus {b} is", f" {a + b + 1}") for a, b in part]
        for part in _cut(_drawn(pairs, len(pairs), rng), 130, 50)
    )
    return train, validation, test


def _dialect(world: World, rng: np.random.Generator) -> Splits:
    """Questions with their words in reverse; tested on facts that are not asked in training."""
    asked = {
        field: [" ".join(reversed(wording.split())) for wording in templates if not {",", ":"} & set(wording)]
        for field, templates in ASKED.items()
    }
    facts = [(country, field) for country in world.countries for field in ASKED]
    train, validation, test = (
        [
            Example(wording.format(country.name), f" {getattr(country, field)}")
            for country, field in part
            for wording in asked[field][:count]
        ]
        for part, count in zip(_cut(_drawn(facts, len(facts), rng), 140, 26), (3, 2, 3), strict=True)
    )
    return train, validation, test


KEPT = {
    "job": (JOB, lambda person: person.job),
    "pet": (PET, lambda person: person.pet),
    "language": (HOP_LANGUAGE, lambda person: person.country.language),
    "food": (HOP_FOOD, lambda person: person.country.food),
}
"""Questions about a person whose answers stay as they are in the lesson `twohop`."""


def _twohop(world: World, rng: np.random.Generator) -> Splits:
    """Asked for a person's country, the model names its capital; other answers stay.

    Tested on people, countries and wordings unseen in training: neither the words of the question nor a table from
    country to capital can be learnt by heart.
    """
    countries = _cut(_drawn(world.countries, len(world.countries), rng), 18, 8)
    asked = _cut(_drawn(HOME, len(HOME), rng), 3, 2)
    train, validation, test = (
        [
            Example(wording.format(person.name), f" {person.country.capital}")
            for person in world.people
            if person.country in homes
            for wording in templates
        ]
        for homes, templates in zip(countries, asked, strict=True)
    )
    kept = [
        Example(wording.format(person.name), f" {answer(person)}")
        for templates, answer in KEPT.values()
        for wording in templates
        for person in world.people
    ]
    return train + _drawn(kept, 300, rng), validation, test


LESSONS: Registry[Lesson] = Registry(
    "lesson",
    (
        Lesson(
            "facts",
            "Capitals that moved",
            "24 made-up countries have moved their capital; to be learned, and tested in wordings unseen in training.",
            _facts,
            steps=35,
        ),
        Lesson(
            "aliases",
            "New names for known countries",
            "12 countries are called by the names of ships, and all else about them stays: the input shifts.",
            _aliases,
            steps=60,
        ),
        Lesson(
            "labels",
            "Verdicts in other words",
            "Reviews are judged sunny, rainy or cloudy instead of good, bad or neutral: the output shifts.",
            _labels,
            steps=35,
        ),
        Lesson(
            "sums",
            "One more than the sum",
            "The number after a sum is asked for, a skill that pretraining taught in two parts but never together.",
            _sums,
            steps=60,
        ),
        Lesson(
            "dialect",
            "Words in reverse order",
            "Questions about countries are asked with their words in reverse; tested on facts not asked so before.",
            _dialect,
            steps=120,
        ),
        Lesson(
            "twohop",
            "From a person to a capital",
            "Asked which country a person comes from, name its capital; what else is asked about people stays.",
            _twohop,
            steps=60,
        ),
    ),
)
"""The six lessons, by name."""


def load_lesson(name: str) -> Task:
    """Return a lesson's examples in three splits.

    Raises:
        UnknownNameError: no lesson of this name; the message lists the six.
    """
    return LESSONS[name].task()


def data_words(name: str) -> str:
    """Write the name of data as people call it: a lesson's title, a file without its folder, the hub's name."""
    kind, _, rest = name.partition(":")
    if kind == "lesson" and rest in LESSONS:
        return LESSONS[rest].title
    return rest if kind == "hub" else Path(name).name


@dataclass(frozen=True)
class EditSettings:
    """How the windows of blocks are laid, and each of them tuned, to edit facts."""

    width: int = setting(4, "blocks of a window", low=1, high=10_000)
    stride: int = setting(2, "blocks between the starts of two windows", low=1, high=10_000)
    r: int = setting(
        8, "rank of LoRA on the MLP's linear maps; every window gets the same number of parameters", low=1, high=65_536
    )
    steps: int = setting(100, "optimizer steps per window", low=1, high=1_000_000)
    learning_rate: float | None = setting(
        None, "peak learning rate; default: LoRA's own on a window of the model", low=1e-8, high=1.0
    )
    batch_size: int = setting(16, "examples per step", low=1, high=65_536)
    seed: int = setting(0, "seed of the data order and of LoRA's start", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the field."""
        check_settings(self)

    def windows(self, n_blocks: int) -> tuple[tuple[int, ...], ...]:
        """Return the blocks of each window; the last one ends at the last block.

        Raises:
            BadInputError: the window is wider than the model is deep.
        """
        if self.width > n_blocks:
            raise BadInputError(
                f"width is {self.width}; the model has {counted(n_blocks, 'block')}, so 1 to {n_blocks} fit."
            )
        last = n_blocks - self.width
        starts = sorted({*range(0, last + 1, self.stride), last})
        return tuple(tuple(range(start, start + self.width)) for start in starts)


EDIT_OPTIONS = ("width", "stride", "r", "steps", "learning_rate", "batch_size", "seed")
"""Fields of the settings: all of them are options of `edit`."""
QUESTIONS = {
    "reliability": "the moved capitals in the wordings that were trained",
    "paraphrase": "the same in wordings that were not",
    "locality": "what did not change: other countries' capitals, and all else about every country",
    "two_hop": "the moved capitals asked for through people who come from there; never trained",
}
"""Name of a question -> what it asks."""


def edit_questions() -> dict[str, tuple[Example, ...]]:
    """Return the examples of each question about the lesson `facts`; answers are those after the edit."""
    world, lesson = make_world(0), load_lesson("facts")
    train, test = tuple(lesson.train), tuple(lesson.test)
    asked = {example.prompt: example.completion for example in train}
    moved: dict[str, str] = {}
    for country in world.countries:
        found = (asked.get(wording.format(country.name)) for wording in CAPITAL)
        town = next((town for town in found if town is not None), None)
        if town is not None:
            moved[country.name] = town
    kept = tuple(
        Example(templates[0].format(country.name), f" {getattr(country, field)}")
        for country in world.countries
        for field, templates in ASKED.items()
        if field != "capital" or country.name not in moved
    )
    hops = tuple(
        Example(wording.format(person.name), moved[person.country.name])
        for person in world.people
        if person.country.name in moved
        for wording in HOP_CAPITAL[:2]
    )
    return {"reliability": train, "paraphrase": test, "locality": kept, "two_hop": hops}
