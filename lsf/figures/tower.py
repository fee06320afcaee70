"""The tower: a model drawn as its stack of blocks, with their scores, what is tuned, and what a step costs in each."""

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from lsf.criteria.result import Analysis
from lsf.plans.cost import block_flops
from lsf.plans.plan import format_blocks
from lsf.runs.graft import WAYS, Graft, Way
from lsf.wording import counted

Work = tuple[float, float, float]
"""Forward, backward and weight-gradient part of one block's step, as shares of the most any block can take."""


@dataclass(frozen=True)
class TowerBlock:
    """One block as it is drawn."""

    block: int
    """b."""
    shade: float | None
    """Its score between the least (0) and the greatest (1) of the model; None where it was not measured."""
    value: str
    """Its score as it is written beside it; empty where it was not measured."""
    tuned: bool
    """Whether the plan tunes it."""
    work: Work | None
    """What a step takes in it; None where the blocks' sizes are not known."""
    words: str
    """All of this in one sentence."""


@dataclass(frozen=True)
class Tower:
    """A model as a stack of blocks, block 0 first; what the component draws, and nothing else."""

    title: str
    """What is seen, in one short sentence."""
    alt: str
    """The finding in words and numbers."""
    score: str
    """What the colours are; empty where nothing was measured."""
    blocks: tuple[TowerBlock, ...]
    """From the embedding up."""
    reach: int | None
    """The lowest tuned block, where the backward pass ends; None where nothing is tuned."""
    ends: tuple[str, str] = ("low", "high")
    """What the palest and the strongest colour are."""

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


def draw_tower(
    n_blocks: int,
    chosen: Collection[int],
    scores: Sequence[float | None] | None = None,
    label: str = "",
    work: Sequence[Work] | None = None,
) -> Tower:
    """Draw the stack of blocks of a model.

    Args:
        n_blocks: L.
        chosen: blocks that the plan tunes; empty while there is none.
        scores: of each block by the chosen criterion, None where not measured (yet); None where there are none at all.
        label: of the criterion.
        work: of each block in one step of the plan; see `step_work`.
    """
    found = list(scores or [None] * n_blocks)
    known = [score for score in found if score is not None]
    blocks = tuple(
        TowerBlock(
            block=block,
            shade=_shade(found[block], known),
            value=written(found[block], known),
            tuned=block in chosen,
            work=None if work is None else work[block],
            words=_words(block, n_blocks, written(found[block], known), label, chosen),
        )
        for block in range(n_blocks)
    )
    title = f"{counted(n_blocks, 'block')}, none chosen" if not chosen else f"Tune {_named(chosen)} of 0-{n_blocks - 1}"
    return Tower(title, _alt(found, label, chosen), label if known else "", blocks, min(chosen, default=None))


GRAFT_SCORES: dict[Way, str] = {
    "alone": "Nats over the floor that the block brings alone",
    "without": "Nats that are lost without the block",
}
"""Way of grafting -> what the colours of its tower are."""


def draw_graft(n_blocks: int, graft: Graft, way: Way) -> Tower:
    """Draw the stack of blocks of a run, each tuned one coloured by what it does alone, or by what is lost without it.

    The colours run from nothing to all that tuning gained, or, where that cannot be told from zero, to the most that
    any block does; a block that brings less than nothing is as pale as can be.

    Args:
        n_blocks: L.
        graft: of the run, whole or as far as it is measured.
        way: which of the two.
    """
    parts = {part.block: part.effect(way) for part in graft.parts if part.block is not None}
    known = {block: effect.by_loss for block, effect in parts.items() if effect.by_loss is not None}
    values = [one.mean for one in known.values()]
    gained = graft.gain is not None and graft.gain.side > 0
    most = graft.gain.mean if graft.gain is not None and gained else max(values, default=0.0)
    blocks = []
    for block in range(n_blocks):
        found = known.get(block)
        shade = None if found is None else 0.0 if most <= 0 else min(1.0, max(0.0, found.mean / most))
        value = "" if found is None else written(found.mean, values)
        told = "not tuned" if block not in parts else "not finite" if found is None else f"{value} ({found.words})"
        words = f"Block {block} of {n_blocks}: {told if found is None else f'{GRAFT_SCORES[way]}, {told}'}"
        blocks.append(TowerBlock(block, shade, value, False, None, words))
    alt = f"The model as a stack of {counted(n_blocks, 'block')}. {GRAFT_SCORES[way]}: " + (
        "; ".join(f"block {block} {one.mean:.3g} ({one.words})" for block, one in known.items()) or "not measured yet"
    )
    ends = "none", f"{'all of the gain' if gained else 'most'} ({most:.3g})" if most > 0 else "none above zero"
    return Tower(WAYS[way], f"{alt}.", GRAFT_SCORES[way], tuple(blocks), None, ends)


def step_work(analysis: Analysis, chosen: Collection[int]) -> list[Work]:
    """Return what one training step of a plan takes in each block, over what the greatest tuned block takes.

    Args:
        analysis: knows the blocks' sizes and the length of the texts.
        chosen: blocks that the plan tunes; empty for a forward pass alone.
    """
    most = max(sum(parts) for parts in block_flops(analysis, range(analysis.model.n_blocks)))
    return [
        (forward / most, backward / most, weights / most)
        for forward, backward, weights in block_flops(analysis, chosen)
    ]


def written(score: float | None, known: Sequence[float]) -> str:
    """Write a score in at most six characters, with the digits that its range asks for.

    Args:
        score: None where it was not measured.
        known: all that were.
    """
    if score is None:
        return ""
    most = max(abs(value) for value in known)
    if most == 0 or 0.01 <= most < 1000:
        return f"{score:.{3 if most < 0.1 else 2 if most < 10 else 0}f}"
    return f"{score:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _shade(score: float | None, known: Sequence[float]) -> float | None:
    if score is None:
        return None
    low, high = min(known), max(known)
    return 0.5 if high == low else (score - low) / (high - low)


def _named(chosen: Collection[int]) -> str:
    return f"block{'s' if len(chosen) > 1 else ''} {format_blocks(chosen)}"


def _words(block: int, n_blocks: int, value: str, label: str, chosen: Collection[int]) -> str:
    score = f"{label} {value}" if value else "not measured"
    side = "tuned" if block in chosen else "frozen"
    if chosen and block not in chosen:
        side += ", gradients pass" if block > min(chosen) else ", no gradient"
    return f"Block {block} of {n_blocks}, from state {block} to state {block + 1}: {score}; {side}"


def _alt(scores: Sequence[float | None], label: str, chosen: Collection[int]) -> str:
    known = [(score, block) for block, score in enumerate(scores) if score is not None]
    text = f"The model as a stack of {counted(len(scores), 'block')}, the embedding below and the head above."
    if known:
        (best, top), (least, low) = max(known), min(known)
        text += f" {label} is highest at block {top} ({best:.3g}) and lowest at block {low} ({least:.3g})."
    if not chosen:
        return f"{text} No block is chosen yet."
    return f"{text} Tuned: {_named(chosen)}; the backward pass runs from the head down to block {min(chosen)}."
