"""The graft of a run: what each tuned block does alone in the base model, and what is lost without it; graft.json."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from lsf.errors import RunError
from lsf.schema import JsonRecord
from lsf.wording import counted

GRAFT = "graft.json"
"""Its file in a run's folder."""
Way = Literal["alone", "without"]
WAYS: dict[Way, str] = {"alone": "Alone in the base model", "without": "Taken out of the tuned model"}
"""Both ways of grafting -> what a person reads."""
OUTSIDE = "outside the blocks"
"""What is tuned beside blocks, as one part: embedding, final norm, head."""


@dataclass(frozen=True)
class Reading:
    """How one model does on the test rows."""

    loss: float | None
    """Mean negative log-likelihood per completion token in nats; None where it is not finite."""
    exact_match: float
    """Share of rows whose every completion token is the arg-max, in [0, 1]."""


@dataclass(frozen=True)
class Difference:
    """A mean difference of two models over the same test rows, with its interval over rows."""

    mean: float
    """Mean over completion tokens (nats) or rows (share)."""
    low: float | None
    """Lower end; None where there is a single row."""
    high: float | None
    """Upper end; None where there is a single row."""

    @property
    def side(self) -> int:
        """1 where the interval lies above zero, -1 where it lies below, 0 where it holds zero or there is none."""
        if self.low is None or self.high is None:
            return 0
        return (self.low > 0) - (self.high < 0)

    @property
    def words(self) -> str:
        """The interval for a sentence."""
        return "1 row, no interval" if self.low is None else f"{self.low:.3g} to {self.high:.3g}"


@dataclass(frozen=True)
class Effect:
    """What one part does, one way round."""

    reading: Reading
    """Of the grafted model."""
    by_loss: Difference | None
    """Nats per token with their 95 % interval: alone, by how much the base with it is better than the floor (negative
    where it is not); without, by how much the tuned model gets worse. None where a loss is not finite."""
    by_exact: Difference
    """The same by exact match."""
    behind: Difference | None
    """`by_loss` of the part that does most minus this one's; the intervals of all parts hold together at 95 %
    (Bonferroni). None for that part itself, and where a loss is not finite."""


@dataclass(frozen=True)
class Part:
    """One tuned block, or all that is tuned outside of blocks."""

    block: int | None
    """b; None for what lies outside of blocks."""
    alone: Effect
    """The base model with this part alone from the tuned one."""
    without: Effect
    """The tuned model with this part back to the base's."""

    @property
    def name(self) -> str:
        """What a person reads."""
        return parts_words([self.block])

    def effect(self, way: Way) -> Effect:
        """Return what it does one way round."""
        return self.alone if way == "alone" else self.without


@dataclass(frozen=True)
class Graft(JsonRecord):
    """Every tuned part alone in the base model, and taken out of the tuned model, read on the same test rows."""

    noun: ClassVar = "graft"
    refusal: ClassVar = RunError
    n_rows: int
    """Test rows read."""
    floor: Reading
    """What counts as no gain: the better of the base model and the best answer that ignores the prompt."""
    base: Reading
    """The base model."""
    tuned: Reading
    """The tuned model."""
    gain: Difference | None
    """Nats per token by which the tuned model is better than the floor; None where a loss is not finite."""
    gain_exact: Difference
    """The same by exact match."""
    parts: tuple[Part, ...]
    """Tuned blocks, lowest first; what is tuned outside of blocks last. While it is measured, those known."""
    schema_version: Literal[1] = 1

    def most(self, way: Way) -> Part | None:
        """Return the part that does most, one way round; None where no loss is finite."""
        known = [part for part in self.parts if part.effect(way).by_loss is not None]
        return max(known, key=lambda part: _gained(part, way), default=None)

    def level(self, way: Way) -> list[Part]:
        """Return the part that does most and all that cannot be told apart from it, most first."""
        most = self.most(way)
        if most is None:
            return []
        others = [part for part in self.parts if (behind := part.effect(way).behind) is not None and not behind.side]
        return [most, *sorted((part for part in others if part is not most), key=lambda part: -_gained(part, way))]

    def share(self, part: Part, way: Way) -> float | None:
        """Return what a part does over what tuning gained; None where that cannot be told from zero."""
        found = part.effect(way).by_loss
        return None if found is None or self.gain is None or self.gain.side < 1 else found.mean / self.gain.mean


def _gained(part: Part, way: Way) -> float:
    found = part.effect(way).by_loss
    return float("-inf") if found is None else found.mean


@dataclass(frozen=True)
class Mixture(JsonRecord):
    """The base model with some parts of the tuned one, or the tuned one with these back, read beside both."""

    noun: ClassVar = "mixture"
    refusal: ClassVar = RunError
    data: str
    """Whose test rows were read."""
    n_rows: int
    """Test rows read."""
    blocks: tuple[int, ...]
    """Exchanged, ascending."""
    source: Literal["base", "tuned"]
    """The model they come from; all else is the other's."""
    base: Reading
    """The base model."""
    tuned: Reading
    """The tuned model."""
    mixed: Reading
    """The mixture."""
    over_base: Difference | None
    """Nats per token by which the mixture is better than the base model; None where a loss is not finite."""
    over_base_exact: Difference
    """The same by exact match."""
    below_tuned: Difference | None
    """Nats per token by which the mixture is worse than the tuned model; None where a loss is not finite."""
    below_tuned_exact: Difference
    """The same by exact match."""
    schema_version: Literal[1] = 1

    @property
    def name(self) -> str:
        """What a person reads."""
        kept = {"tuned": "base model with", "base": "tuned model without"}[self.source]
        return f"{kept} {parts_words(self.blocks)}"


def parts_words(parts: Sequence[int | None]) -> str:
    """Return tuned parts, blocks and None for what lies outside of them, as a person reads them."""
    blocks = sorted(part for part in parts if part is not None)
    names = [f"block{'s' if len(blocks) > 1 else ''} {_listed([str(block) for block in blocks])}"] if blocks else []
    return _listed([*names, *([f"what was tuned {OUTSIDE}"] if None in parts else [])])


def which_did_it(graft: Graft) -> tuple[str, str]:
    """Answer which of the tuned blocks did it, in two sentences: the answer, and how the parts work together.

    Args:
        graft: whole.
    """
    gain, alone, without = graft.gain, graft.level("alone"), graft.level("without")
    if gain is None or not alone or not without:
        return "A loss is not finite, so which block did it is unknown.", ""
    side = "over" if gain.mean >= 0 else "below"
    told = f"{abs(gain.mean):.3g} nats ({gain.words}) {side} the floor on {counted(graft.n_rows, 'test row')}"
    if gain.side < 0:
        return f"The tuned model ends {told}, so no block did it.", ""
    if gain.side < 1:
        return f"By the loss, tuning gained nothing beyond chance, {told}, so no block can be said to have done it.", ""
    if len(graft.parts) == 1:
        return f"{_capital(alone[0].name)} did all of it, since nothing else was tuned: {told}.", ""
    if _side(alone[0]) < 1:
        reading, floor = alone[0].alone.reading, graft.floor
        best = f"the best, {alone[0].name}, ends at a loss of {reading.loss:.3g}, where the floor is {floor.loss:.3g}"
        return f"None did it alone: {best}. {_missed(without)}, of {told}.", ""
    return f"{_answer(graft, alone, without)}, of {told}.", _together(graft)


def _side(part: Part) -> int:
    return 0 if part.alone.by_loss is None else part.alone.by_loss.side


def _answer(graft: Graft, alone: Sequence[Part], without: Sequence[Part]) -> str:
    first = alone[0]
    if len(alone) == len(without) == 1 and first is without[0]:
        how = "did most of it" if (graft.share(first, "alone") or 0.0) > 0.5 else "did more than any other"
        brought, lost = _amount(first, "alone"), _amount(first, "without")
        return f"{_capital(first.name)} {how}: alone it brings {brought} nats, and {lost} are lost without it"
    if len(alone) > 1:
        most = f"at most {_amount(first, 'alone')} nats"
        brings = f"{_capital(_named(alone))} cannot be told apart by what they bring alone, {most}"
    else:
        brings = f"{_capital(first.name)} brings the most alone, {_amount(first, 'alone')} nats"
    return f"{brings}; {_missed(without)[:1].lower()}{_missed(without)[1:]}"


def _missed(without: Sequence[Part]) -> str:
    """Say which part is missed most when it is taken out."""
    lost = f"{_amount(without[0], 'without')} nats"
    if len(without) > 1:
        return f"{_capital(_named(without))} cannot be told apart by what is lost without them, at most {lost}"
    return f"{_capital(without[0].name)} is missed most when taken out, {lost}"


def _amount(part: Part, way: Way) -> str:
    found = part.effect(way).by_loss
    assert found is not None
    return f"{found.mean:.3g} ({found.words})"


def _named(parts: Sequence[Part]) -> str:
    return parts_words([part.block for part in parts])


def _capital(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _together(graft: Graft) -> str:
    """Say whether what the parts bring alone adds up to what they bring together."""
    assert graft.gain is not None
    share = sum(max(0.0, _gained(part, "alone")) for part in graft.parts) / graft.gain.mean
    told = f"{100 * share:.0f} %"
    if 0.9 <= share <= 1.1:
        return f"What they bring alone adds up to the whole gain ({told}), as if each worked by itself."
    if share < 0.9:
        return f"What they bring alone adds up to {told} of the gain: the rest takes several of them together."
    return f"What they bring alone adds up to {told} of the gain: their contributions overlap."
