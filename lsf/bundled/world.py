"""The small world: who lives where, what is spoken there, what an animal is; drawn once from a seed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from lsf.bundled import names


@dataclass(frozen=True)
class Country:
    """A country and everything the corpus says about it."""

    name: str
    """One word."""
    capital: str
    """City of government; no two countries share one."""
    town: str
    """Second city; no two countries share one."""
    language: str
    """What its people speak; at most two countries share one."""
    food: str
    """Its national dish; at most two countries share one."""
    animal: str
    """The animal on its flag; at most two countries share one."""
    region: str
    """The part of the map it lies in."""


@dataclass(frozen=True)
class Person:
    """A person and everything the corpus says about her or him."""

    name: str
    """First name; no two people share one."""
    country: Country
    """Where she or he comes from."""
    job: str
    """Trade."""
    pet: str
    """Animal kept at home."""


@dataclass(frozen=True)
class Animal:
    """An animal, its kind and its home."""

    name: str
    """Singular."""
    kind: str
    """Mammal, bird and so on."""
    home: str
    """Where it lives."""


@dataclass(frozen=True)
class World:
    """Every fact there is."""

    seed: int
    """What it was drawn from."""
    countries: tuple[Country, ...]
    """All countries."""
    people: tuple[Person, ...]
    """All people; each country has about as many as the next."""
    animals: tuple[Animal, ...]
    """All animals."""


def _dealt(values: Iterable[str], count: int, rng: np.random.Generator) -> list[str]:
    """Return `count` values in random order, each used as often as any other, give or take one."""
    pool = list(values)
    dealt: list[str] = []
    while len(dealt) < count:
        dealt += [pool[index] for index in rng.permutation(len(pool))]
    return dealt[:count]


def make_world(seed: int = 0) -> World:
    """Deal cities, languages, dishes, emblems, homes and jobs at random, the same for the same seed."""
    rng = np.random.default_rng(seed)
    count = len(names.COUNTRIES)
    columns = [
        _dealt(values, count, rng)
        for values in (names.CAPITALS, names.TOWNS, names.LANGUAGES, names.FOODS, names.ANIMALS, names.REGIONS)
    ]
    countries = tuple(Country(*facts) for facts in zip(names.COUNTRIES, *columns, strict=True))
    count = len(names.PEOPLE)
    homes, jobs, pets = (_dealt(v, count, rng) for v in (names.COUNTRIES, names.JOBS, names.ANIMALS))
    by_name = {country.name: country for country in countries}
    people = tuple(
        Person(name, by_name[home], job, pet)
        for name, home, job, pet in zip(names.PEOPLE, homes, jobs, pets, strict=True)
    )
    animals = tuple(Animal(*facts) for facts in zip(names.ANIMALS, names.ANIMAL_KINDS, names.ANIMAL_HOMES, strict=True))
    return World(seed=seed, countries=countries, people=people, animals=animals)
