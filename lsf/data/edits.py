"""Facts to be edited, how the windows are laid, and the four questions an edit is judged by; no torch."""

from dataclasses import dataclass

from lsf.data.corpus import CAPITAL, HOP_CAPITAL
from lsf.data.lessons import ASKED, load_lesson
from lsf.data.task import Example
from lsf.data.world import make_world
from lsf.errors import BadInputError
from lsf.settings import check_settings, setting
from lsf.wording import counted

OWN = ("width", "stride", "r", "steps", "learning_rate", "batch_size", "seed")
"""Fields of the settings: all of them are options of `edit`."""


@dataclass(frozen=True)
class EditSettings:
    """How the windows are laid and tuned."""

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
