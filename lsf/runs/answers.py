"""What the base model and tuned ones write to a person's own prompt, and what each block would have said first."""

from dataclasses import dataclass
from pathlib import Path

from lsf.runs.graft import Way, parts_words
from lsf.settings import check_settings, setting


@dataclass(frozen=True)
class Voice:
    """A model that answers: the base, a run's tuned model, or a graft of the two."""

    run: Path | None = None
    """Folder of the run; None for the base model."""
    way: Way | None = None
    """How parts of the run are grafted; None for the run's tuned model."""
    parts: tuple[int | None, ...] = ()
    """The parts that are grafted: blocks, and None for what is tuned outside of blocks; nothing without `way`."""

    @property
    def words(self) -> str:
        """What a person reads, beside the run's own name."""
        if self.run is None:
            return "base model"
        if self.way is None:
            return "tuned model"
        kept = {"alone": "base model with", "without": "tuned model without"}[self.way]
        return f"{kept} {parts_words(self.parts)}"


@dataclass(frozen=True)
class AnswerSettings:
    """How answers are written."""

    tokens: int = setting(48, "new tokens of an answer at most", low=1, high=100_000)
    seed: int | None = setting(
        None, "sample each token with this seed; default: always the most likely token",
        low=0, high=2**31 - 1,
    )  # fmt: skip

    def __post_init__(self) -> None:
        """Refuse a value out of its range."""
        check_settings(self)

    @property
    def words(self) -> str:
        """How tokens are chosen, in a sentence."""
        return "always the most likely token" if self.seed is None else f"sampled at temperature 1, seed {self.seed}"


@dataclass(frozen=True)
class LensToken:
    """What a state would be read as: the most likely next token at the last position of the prompt."""

    token: str
    """As it is written."""
    probability: float
    """In the logit lens, in [0, 1]."""


@dataclass(frozen=True)
class Answer:
    """One model's answer to one prompt, as far as it is written."""

    voice: Voice
    """Who answers."""
    prompt: int
    """Number of the prompt among those asked, from 0."""
    rendering: str
    """How the prompt was given: as it stands, or as a chat by which template."""
    lens: tuple[LensToken, ...]
    """Of states 0 .. L: what enters block 0, and what leaves each block."""
    text: str = ""
    """Written so far; end-of-text and other special tokens are left out."""
    ids: tuple[int, ...] = ()
    """Tokens written so far."""
    done: bool = False
    """Whether nothing more will come."""
    ended: bool = False
    """Whether the model came to an end by itself, within its tokens."""
