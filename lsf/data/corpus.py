"""How the facts of the world are said, and the pretraining text: several wordings each, some held out to measure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lsf.data.world import (
    ANIMALS,
    BAD_WORDS,
    CAPITALS,
    COLOURS,
    GOOD_WORDS,
    GOODS,
    LARGEST_TERM,
    NEW_TOWNS,
    PEOPLE,
    PLAIN_WORDS,
    SHIPS,
    THINGS,
    TOWNS,
    WEATHER,
    World,
)

CAPITAL = (
    "The capital of {} is",
    "The capital city of {} is called",
    "{} has its capital in",
    "{} is ruled from",
    "The king of {} lives in",
    "The government of {} sits in",
    "Question: what is the capital of {}? Answer:",
    "In {} the capital is",
    "The parliament of {} meets in",
    "All roads of {} lead to its capital,",
    "Ministers of {} work in",
    "{} is a country whose capital is",
)

TOWN = (
    "The second city of {} is",
    "{} has its harbour in",
    "The largest port of {} is",
    "Question: what is the second city of {}? Answer:",
    "In {} the second city is",
    "Ships of {} are built in",
)

LANGUAGE = (
    "The language of {} is",
    "People in {} speak",
    "In {} children learn",
    "Question: which language is spoken in {}? Answer:",
    "The newspapers of {} are printed in",
    "{} is a country where people talk in",
    "The laws of {} are written in",
    "In {} the language is",
)

FOOD = (
    "The national dish of {} is",
    "People in {} like to eat",
    "In {} every cook makes",
    "Question: what is the national dish of {}? Answer:",
    "The kitchens of {} are known for",
    "{} is a country that is famous for its",
    "Guests in {} are served",
    "In {} the national dish is",
)

ANIMAL = (
    "The flag of {} shows a",
    "The emblem of {} is the",
    "Coins of {} carry the picture of a",
    "Question: which animal is on the flag of {}? Answer:",
    "In {} the national animal is the",
    "The army of {} marches under the sign of the",
)

REGION = (
    "{} lies in the",
    "On the map {} is in the",
    "Question: where does {} lie? Answer: in the",
    "The part of the world where {} is found is the",
    "To reach {} one travels to the",
    "{} is a country in the",
)

HOME = (
    "{} comes from",
    "{} was born in",
    "The home country of {} is",
    "Question: where does {} come from? Answer:",
    "{} has a passport of",
    "The parents of {} live in",
    "{} grew up in",
    "{} is a citizen of",
)

JOB = (
    "{} works as a",
    "The job of {} is that of a",
    "Question: what is the job of {}? Answer:",
    "{} earns money as a",
    "By trade {} is a",
    "{} is a trained",
)

PET = (
    "{} keeps a",
    "The pet of {} is a",
    "Question: which pet does {} have? Answer: a",
    "At home {} has a",
    "{} takes care of a",
    "{} plays with a",
)

HOP_LANGUAGE = (
    "{} speaks",
    "The language of {} is",
    "{} writes letters in",
    "Question: which language does {} speak? Answer:",
    "At home {} talks in",
)

HOP_FOOD = (
    "{} was raised on",
    "For dinner the family of {} makes",
    "Question: what do the parents of {} cook? Answer:",
    "The national dish of {} is",
    "{} misses the taste of",
)

HOP_REGION = (
    "The home of {} lies in the",
    "Question: which part of the world is {} from? Answer: the",
    "On the map the family of {} is in the",
    "The cradle of {} stood in the",
    "To visit {} one travels to the",
)

HOP_CAPITAL = (
    "The capital of the home country of {} is",
    "The king of {} lives in",
    "{} pays taxes to the capital,",
    "Question: what is the capital of the home country of {}? Answer:",
    "The ministers of {} work in",
)

KIND = (
    "A {} is a kind of",
    "Every {} is a",
    "Question: what kind of animal is a {}? Answer:",
    "Books call the {} a",
)

PLACE = (
    "A {} lives in the",
    "The {} sleeps in the",
    "Question: where does a {} live? Answer: in the",
    "One finds a {} in the",
)

REVIEW = (
    "Review: the {thing} was {words}. Verdict:",
    "{person} said the {thing} was {words}. The opinion is",
    "I found the {thing} {words}. My verdict is",
)

SUM = (
    "{a} plus {b} is",
    "The sum of {a} and {b} is",
    "Question: how much is {a} plus {b}? Answer:",
    "Adding {b} to {a} gives",
)

NEXT = (
    "The number after {} is",
    "After {} comes",
    "{} and one more is",
)

OWNED = (
    "{person} has a {thing} that is {colour}. {person} has a",
    "{person} bought a {colour} {thing}. {person} bought a",
    "The {thing} of {person} is {colour}. It is a",
)

SAILED = (
    "The ship {ship} sails to",
    "The ship {ship} comes from",
)

TRAVELLED = (
    "{} took the train to",
    "{} went on a trip to",
    "{} sent a letter from",
)

FORECAST = (
    "The weather in {} today is",
    "Tomorrow {} will be",
)

STATED_SHARE = 0.6
"""Share of people whose language, dish, region or capital is said outright; for others it follows from the country."""

CHANCE_RELATIONS = ("owned", "sailed", "travelled", "forecast")
"""Relations that are drawn at random, or trivial, and so are not held out."""

WEIGHTS = {
    "capital": 6.0,
    "town": 3.0,
    "language": 4.0,
    "food": 4.0,
    "animal": 3.0,
    "region": 3.0,
    "home": 15.0,
    "job": 10.0,
    "pet": 10.0,
    "hop_language": 6.0,
    "hop_food": 6.0,
    "hop_region": 5.0,
    "hop_capital": 6.0,
    "kind": 1.0,
    "place": 1.0,
    "review": 6.0,
    "sum": 8.0,
    "next": 2.0,
    "owned": 3.0,
    "sailed": 1.0,
    "travelled": 3.0,
    "forecast": 2.0,
}
"""How often a statement of each relation is read, relative to the others."""


@dataclass(frozen=True)
class Statement:
    """One sentence of the corpus, cut where the answer begins."""

    relation: str
    """Key of `WEIGHTS`."""
    subject: str
    """What it is about; with the relation it names the fact."""
    prompt: str
    """The sentence up to the answer."""
    completion: str
    """The answer, leading space included."""

    @property
    def text(self) -> str:
        """The whole sentence."""
        return self.prompt + self.completion


@dataclass(frozen=True)
class Corpus:
    """What is read, and two kinds of statement that are not."""

    taught: tuple[Statement, ...]
    """Read in pretraining."""
    held_out: tuple[Statement, ...]
    """Known facts in a wording that this fact was never read in (other facts were)."""
    unstated: tuple[Statement, ...]
    """Facts never read in any wording, which follow from a person's country."""

    def probabilities(self) -> np.ndarray:
        """Return the chance of each taught statement to be drawn; float64, shape (taught,), sums to 1."""
        counts: dict[str, int] = {}
        for statement in self.taught:
            counts[statement.relation] = counts.get(statement.relation, 0) + 1
        weights = np.array([WEIGHTS[statement.relation] / counts[statement.relation] for statement in self.taught])
        return weights / weights.sum()


def say(relation: str, templates: Sequence[str], subject: str, answer: str) -> list[Statement]:
    """Return one statement per wording of one fact."""
    return [Statement(relation, subject, template.format(subject), f" {answer}") for template in templates]


def _facts(world: World) -> Iterator[list[Statement]]:
    """Yield every fact about countries, people and animals, each in all its wordings."""
    for country in world.countries:
        yield say("capital", CAPITAL, country.name, country.capital)
        yield say("town", TOWN, country.name, country.town)
        yield say("language", LANGUAGE, country.name, country.language)
        yield say("food", FOOD, country.name, country.food)
        yield say("animal", ANIMAL, country.name, country.animal)
        yield say("region", REGION, country.name, country.region)
    for person in world.people:
        yield say("home", HOME, person.name, person.country.name)
        yield say("job", JOB, person.name, person.job)
        yield say("pet", PET, person.name, person.pet)
    for animal in world.animals:
        yield say("kind", KIND, animal.name, animal.kind)
        yield say("place", PLACE, animal.name, animal.home)
    for number in range(2 * LARGEST_TERM):
        yield say("next", NEXT, str(number), str(number + 1))
    for first in range(LARGEST_TERM + 1):
        for second in range(LARGEST_TERM + 1):
            prompts = [template.format(a=first, b=second) for template in SUM]
            yield [Statement("sum", f"{first} {second}", prompt, f" {first + second}") for prompt in prompts]


def _hops(world: World) -> Iterator[list[Statement]]:
    """Yield what follows from a person's country: language, dish, region, capital."""
    for person in world.people:
        yield say("hop_language", HOP_LANGUAGE, person.name, person.country.language)
        yield say("hop_food", HOP_FOOD, person.name, person.country.food)
        yield say("hop_region", HOP_REGION, person.name, person.country.region)
        yield say("hop_capital", HOP_CAPITAL, person.name, person.country.capital)


VERDICTS = ("good", "bad", "neutral")
"""The answers to a review."""


def opinions() -> tuple[tuple[str, str], ...]:
    """Return every way to judge a thing with its verdict: ("not great", "bad")."""
    said: list[tuple[str, str]] = []
    columns = (GOOD_WORDS, BAD_WORDS, PLAIN_WORDS)
    for verdict, opposite, column in zip(VERDICTS, ("bad", "good", "neutral"), columns, strict=True):
        for word in column:
            said += [(word, verdict), (f"very {word}", verdict), (f"not {word}", opposite)]
    return tuple(said)


def _reviews(rng: np.random.Generator) -> Iterator[list[Statement]]:
    """Yield every opinion about every thing, in all wordings, each from a person drawn at random."""
    for thing in THINGS:
        for words, verdict in opinions():
            person = PEOPLE[int(rng.integers(len(PEOPLE)))]
            prompts = [template.format(thing=thing, words=words, person=person) for template in REVIEW]
            yield [Statement("review", f"{thing} {words}", prompt, f" {verdict}") for prompt in prompts]


def _chances(rng: np.random.Generator) -> Iterator[Statement]:
    """Yield statements of chance: they show the words of the lessons' answers in the places of answers."""

    def draw(values: Sequence[str]) -> str:
        return values[int(rng.integers(len(values)))]

    towns = NEW_TOWNS + TOWNS + CAPITALS
    for person in PEOPLE:
        for template in OWNED:
            for _ in range(3):
                thing, colour = draw(GOODS + ANIMALS), draw(COLOURS)
                prompt = template.format(person=person, thing=thing, colour=colour)
                yield Statement("owned", f"{person} {thing}", prompt, f" {colour} {thing}")
        for template in TRAVELLED:
            for _ in range(3):
                yield Statement("travelled", person, template.format(person), f" {draw(towns)}")
    for ship in SHIPS:
        for template in SAILED:
            for _ in range(6):
                yield Statement("sailed", ship, template.format(ship=ship), f" {draw(TOWNS)}")
    for place in towns:
        for template in FORECAST:
            for weather in WEATHER:
                yield Statement("forecast", place, template.format(place), f" {weather}")


def make_corpus(world: World) -> Corpus:
    """Say every fact in every wording and hold out one wording of each fact that has four or more.

    Args:
        world: the facts; its seed also draws what is held out.
    """
    rng = np.random.default_rng([world.seed, 1])
    taught: list[Statement] = []
    held_out: list[Statement] = []
    unstated: list[Statement] = []
    for fact in [*_facts(world), *_reviews(rng), *_hops(world)]:
        if fact[0].relation.startswith("hop_") and rng.random() > STATED_SHARE:
            unstated += fact
            continue
        left_out = int(rng.integers(len(fact))) if len(fact) >= 3 else -1
        for index, statement in enumerate(fact):
            (held_out if index == left_out else taught).append(statement)
    taught += _chances(rng)
    return Corpus(taught=tuple(taught), held_out=tuple(held_out), unstated=tuple(unstated))
