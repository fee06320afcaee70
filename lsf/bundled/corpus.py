"""The pretraining text: every fact of the world in several wordings, some of which are held out to measure.

A statement is a prompt and the completion that ends it; the model reads one statement at a time, from begin-of-text to
end-of-text. Statements of chance (who travels where) are read too, but nothing is measured on them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from lsf.bundled import names, wordings
from lsf.bundled.world import World

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
        yield say("capital", wordings.CAPITAL, country.name, country.capital)
        yield say("town", wordings.TOWN, country.name, country.town)
        yield say("language", wordings.LANGUAGE, country.name, country.language)
        yield say("food", wordings.FOOD, country.name, country.food)
        yield say("animal", wordings.ANIMAL, country.name, country.animal)
        yield say("region", wordings.REGION, country.name, country.region)
    for person in world.people:
        yield say("home", wordings.HOME, person.name, person.country.name)
        yield say("job", wordings.JOB, person.name, person.job)
        yield say("pet", wordings.PET, person.name, person.pet)
    for animal in world.animals:
        yield say("kind", wordings.KIND, animal.name, animal.kind)
        yield say("place", wordings.PLACE, animal.name, animal.home)
    for number in range(2 * names.LARGEST_TERM):
        yield say("next", wordings.NEXT, str(number), str(number + 1))
    for first in range(names.LARGEST_TERM + 1):
        for second in range(names.LARGEST_TERM + 1):
            prompts = [template.format(a=first, b=second) for template in wordings.SUM]
            yield [Statement("sum", f"{first} {second}", prompt, f" {first + second}") for prompt in prompts]


def _hops(world: World) -> Iterator[list[Statement]]:
    """Yield what follows from a person's country: language, dish, region, capital."""
    for person in world.people:
        yield say("hop_language", wordings.HOP_LANGUAGE, person.name, person.country.language)
        yield say("hop_food", wordings.HOP_FOOD, person.name, person.country.food)
        yield say("hop_region", wordings.HOP_REGION, person.name, person.country.region)
        yield say("hop_capital", wordings.HOP_CAPITAL, person.name, person.country.capital)


VERDICTS = ("good", "bad", "neutral")
"""The answers to a review."""


def opinions() -> tuple[tuple[str, str], ...]:
    """Return every way to judge a thing with its verdict: ("not great", "bad")."""
    said: list[tuple[str, str]] = []
    columns = (names.GOOD_WORDS, names.BAD_WORDS, names.PLAIN_WORDS)
    for verdict, opposite, column in zip(VERDICTS, ("bad", "good", "neutral"), columns, strict=True):
        for word in column:
            said += [(word, verdict), (f"very {word}", verdict), (f"not {word}", opposite)]
    return tuple(said)


def _reviews(rng: np.random.Generator) -> Iterator[list[Statement]]:
    """Yield every opinion about every thing, in all wordings, each from a person drawn at random."""
    for thing in names.THINGS:
        for words, verdict in opinions():
            person = names.PEOPLE[int(rng.integers(len(names.PEOPLE)))]
            prompts = [template.format(thing=thing, words=words, person=person) for template in wordings.REVIEW]
            yield [Statement("review", f"{thing} {words}", prompt, f" {verdict}") for prompt in prompts]


def _chances(rng: np.random.Generator) -> Iterator[Statement]:
    """Yield statements of chance: they show the words of the lessons' answers in the places of answers."""

    def draw(values: Sequence[str]) -> str:
        return values[int(rng.integers(len(values)))]

    towns = names.NEW_TOWNS + names.TOWNS + names.CAPITALS
    for person in names.PEOPLE:
        for template in wordings.OWNED:
            for _ in range(3):
                thing, colour = draw(names.GOODS + names.ANIMALS), draw(names.COLOURS)
                prompt = template.format(person=person, thing=thing, colour=colour)
                yield Statement("owned", f"{person} {thing}", prompt, f" {colour} {thing}")
        for template in wordings.TRAVELLED:
            for _ in range(3):
                yield Statement("travelled", person, template.format(person), f" {draw(towns)}")
    for ship in names.SHIPS:
        for template in wordings.SAILED:
            for _ in range(6):
                yield Statement("sailed", ship, template.format(ship=ship), f" {draw(names.TOWNS)}")
    for place in towns:
        for template in wordings.FORECAST:
            for weather in names.WEATHER:
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
