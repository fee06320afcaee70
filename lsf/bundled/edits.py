"""What an edit of facts is judged by: the edit itself, other wordings, other facts, and what follows from it.

The four questions are those of Ge et al. 2024, arXiv 2406.04496; the world and its sentences are ours.
"""

from lsf.bundled import wordings
from lsf.bundled.lessons import ASKED, load_lesson
from lsf.bundled.world import make_world
from lsf.data.task import Example

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
        found = (asked.get(wording.format(country.name)) for wording in wordings.CAPITAL)
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
        for wording in wordings.HOP_CAPITAL[:2]
    )
    return {"reliability": train, "paraphrase": test, "locality": kept, "two_hop": hops}
