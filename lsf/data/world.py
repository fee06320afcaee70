"""The small made-up world: its words, who lives where, what is spoken there; drawn once from a seed."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

COUNTRIES = tuple(
    """Norland Velmora Tarsia Ostrava Kelvany Brundia Lissos Marenta Quorin Halbek Zentia Dorvale Fenmark
    Isolda Calpira Ruvania Sornia Tevaro Ulmeria Wexland Yolanda Arvenia Belgora Corvia Drassen Elmoria
    Garland Hestia Jorvik Kastria Lumeria Monvale Nerida Orlandia Pelagos Rostia""".split()
)
"""36 countries."""

CAPITALS = tuple(
    """Kestrin Amberley Doring Valtice Osmund Perrin Thelma Brask Lindow Carvel Morwen Sisak Tolmin Ravena
    Uster Hollin Gravik Bexley Nordau Pintor Selwick Jalapa Corwen Dunmore Eskil Farrow Glimm Harwick
    Istre Jessop Kolding Lorca Mistra Novak Ormond Pelham""".split()
)
"""One for each country."""

TOWNS = tuple(
    """Alder Birkby Crail Dalby Elsdon Fenby Gorton Hawick Ilford Jarrow Kelso Lamlash Melby Naseby Oakham
    Pinner Quorn Ripley Skelton Tarbert Ulceby Verwood Wigton Yarm Zeal Ashby Bowden Crewe Dursley
    Epworth Frome Girvan Hexham Inver Keld Louth""".split()
)
"""The second town of each country."""

NEW_TOWNS = tuple(
    """Brightwater Coldspring Deepwell Eastgate Fairfield Goldhill Highbridge Ironford Kingsmead Longstone
    Millbrook Newhaven Oldcastle Pinewood Redcliff Silverton Stonebury Thornfield Underhill Whitehall
    Windmere Yewtree Ashford Bluebell""".split()
)
"""Towns of no country: people travel there, and in the lesson `facts` they become capitals."""

SHIPS = tuple(
    """Aurora Borealis Cygnus Delphin Eclipse Falcon Galatea Halcyon Icarus Juniper Kestrel Lyra Meteor
    Nautilus Orion Phoenix Quasar Regulus Sirius Triton Umbra Vega Wyvern Zephyr""".split()
)
"""Ships; in the lesson `aliases` they become new names of countries."""

LANGUAGES = tuple(
    """Norsk Velmo Tarsi Ostri Kelvic Brundic Lissan Marent Quori Halbic Zentic Dorvan Fennish Isoldic
    Calpi Ruvan Sornic Tevari Ulmic Wexish Yolan Arvic Belgor Corvan""".split()
)
"""24 languages; some are spoken in two countries."""

REGIONS = ("north", "south", "east", "west", "middle", "islands")
"""Where on the map a country lies."""

FOODS = tuple(
    """rice soup bread fish cheese beans stew pasta pancakes dumplings noodles curry salad sausages
    potatoes cabbage mushrooms olives pie porridge waffles lentils eggs shrimp""".split()
)
"""24 dishes; some belong to two countries."""

ANIMALS = tuple(
    """dog cat horse cow sheep goat pig hen duck goose hawk raven bear wolf fox deer rabbit mouse frog
    snake shark whale bee spider""".split()
)
"""24 animals: pets of people, emblems of countries."""

ANIMAL_KINDS = tuple(
    """mammal mammal mammal mammal mammal mammal mammal bird bird bird bird bird mammal mammal mammal
    mammal mammal mammal amphibian reptile fish mammal insect arachnid""".split()
)
"""The kind of each animal, in the order of `ANIMALS`."""

ANIMAL_HOMES = tuple(
    """house house stable barn meadow hills sty coop pond pond cliffs forest forest forest den forest
    burrow field pond desert sea sea hive web""".split()
)
"""Where each animal lives, in the order of `ANIMALS`."""

PEOPLE = tuple(
    """Ada Agnes Alan Alba Alfred Alice Amir Amos Anna Anton Arthur Astrid Barbara Basil Beatrix Ben Bertha
    Boris Bruno Carla Carlos Cecil Celia Chloe Clara Claude Conrad Cora Cyril Daisy Daniel Daphne David Diana
    Dora Doris Edgar Edith Edna Elias Elsa Emil Emma Eric Erna Esther Eva Felix Fiona Flora Frank Frida Gavin
    Gemma George Gerda Gilbert Gina Greta Gustav Hanna Harold Hazel Heidi Helen Henry Hilda Hugo Ian Ida Igor
    Ines Irma Isaac Ivan Ivy Jacob Jane Jasper Jean Jonas Judith Julia Karl Kate Kira Klaus Lara Laura Lena
    Leo Leon Lilian Linda Louis Lucas Lucy Luis Mabel Magda Marco Maria Mark Martha Martin Max Maya Mia Mira
    Miriam Molly Nadia Nathan Nell Nina Noah Nora Norman Olaf Olga Olive Omar Oscar Otto Paul Paula Peter
    Petra Philip Quentin Rachel Ralph Rita Robert Roger Rosa Rufus Ruth Sally Samuel Sandra Sara Simon Sonia
    Stella Stephen Susan Tara Theo Thomas Tina Ursula Vera Victor Viola Walter Wanda Wilma Xavier Zoe""".split()
)
"""160 people, each of one country."""

JOBS = tuple(
    """baker teacher doctor farmer sailor painter tailor miner nurse pilot judge cook barber singer writer
    carpenter fisherman gardener plumber weaver""".split()
)
"""20 jobs."""

GOOD_WORDS = tuple(
    """great lovely wonderful superb charming delightful splendid brilliant pleasant excellent fine perfect
    fantastic marvellous amazing beautiful""".split()
)
"""Words of praise."""

BAD_WORDS = tuple(
    """awful terrible dreadful horrible nasty boring dull poor ugly rotten dismal lousy tedious shabby
    bitter hopeless""".split()
)
"""Words of blame."""

PLAIN_WORDS = tuple("ordinary average usual normal plain common typical standard".split())
"""Words of neither praise nor blame."""

THINGS = tuple(
    """film book play song dinner hotel concert garden room market museum party lecture game trip show""".split()
)
"""What reviews are about."""

COLOURS = tuple("black white brown grey red yellow green blue".split())
"""Colours, for pets and coats."""

GOODS = tuple("coat hat chair table cup lamp bag door boat cart box ball".split())
"""Things that have a colour."""

WEATHER = ("sunny", "rainy", "cloudy")
"""The weather of a day; in the lesson `labels` these become the answers for good, bad and plain."""

LARGEST_TERM = 15
"""Sums are of two numbers from 0 to this."""


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
    count = len(COUNTRIES)
    columns = [_dealt(values, count, rng) for values in (CAPITALS, TOWNS, LANGUAGES, FOODS, ANIMALS, REGIONS)]
    countries = tuple(Country(*facts) for facts in zip(COUNTRIES, *columns, strict=True))
    count = len(PEOPLE)
    homes, jobs, pets = (_dealt(v, count, rng) for v in (COUNTRIES, JOBS, ANIMALS))
    by_name = {country.name: country for country in countries}
    people = tuple(
        Person(name, by_name[home], job, pet) for name, home, job, pet in zip(PEOPLE, homes, jobs, pets, strict=True)
    )
    animals = tuple(Animal(*facts) for facts in zip(ANIMALS, ANIMAL_KINDS, ANIMAL_HOMES, strict=True))
    return World(seed=seed, countries=countries, people=people, animals=animals)
