"""The world and the text made from it."""

from collections import Counter

import pytest

from lsf.data import world as names
from lsf.data.corpus import CHANCE_RELATIONS, WEIGHTS, Corpus, make_corpus
from lsf.data.world import World, make_world


@pytest.fixture(scope="module")
def world() -> World:
    return make_world(0)


@pytest.fixture(scope="module")
def corpus(world: World) -> Corpus:
    return make_corpus(world)


def test_same_seed_same_world_other_seed_another() -> None:
    assert make_world(0) == make_world(0)
    assert make_world(0).countries != make_world(1).countries


def test_same_world_same_corpus(world: World, corpus: Corpus) -> None:
    assert make_corpus(world) == corpus


def test_no_two_countries_share_a_city_and_no_two_people_a_name(world: World) -> None:
    cities = [city for country in world.countries for city in (country.capital, country.town)]
    assert len(set(cities)) == len(cities)
    assert len({person.name for person in world.people}) == len(world.people) == len(names.PEOPLE)


def test_every_country_is_home_to_about_as_many_people(world: World) -> None:
    homes = Counter(person.country.name for person in world.people)
    assert len(homes) == len(world.countries)
    assert max(homes.values()) - min(homes.values()) <= 1


def test_held_out_wordings_are_not_taught_but_their_facts_and_their_wordings_are(corpus: Corpus) -> None:
    taught_texts = {statement.text for statement in corpus.taught}
    assert not taught_texts & {statement.text for statement in corpus.held_out}
    taught_facts = {(statement.relation, statement.subject) for statement in corpus.taught}
    assert {(statement.relation, statement.subject) for statement in corpus.held_out} <= taught_facts


def test_unstated_facts_are_not_taught_in_any_wording(corpus: Corpus) -> None:
    taught = {(statement.relation, statement.subject) for statement in corpus.taught}
    assert corpus.unstated
    assert not taught & {(statement.relation, statement.subject) for statement in corpus.unstated}


def test_a_prompt_has_one_answer_unless_it_is_left_to_chance(corpus: Corpus) -> None:
    answers: dict[str, set[str]] = {}
    for statement in corpus.taught + corpus.held_out + corpus.unstated:
        if statement.relation not in CHANCE_RELATIONS:
            answers.setdefault(statement.prompt, set()).add(statement.completion)
    assert {prompt: said for prompt, said in answers.items() if len(said) > 1} == {}


def test_each_relation_is_read_as_often_as_its_weight_says(corpus: Corpus) -> None:
    chances = corpus.probabilities()
    assert chances.sum() == pytest.approx(1.0)
    totals: Counter[str] = Counter()
    for statement, chance in zip(corpus.taught, chances, strict=True):
        totals[statement.relation] += chance
    assert dict(totals) == pytest.approx({name: weight / sum(WEIGHTS.values()) for name, weight in WEIGHTS.items()})
