"""The tower beside every page: the model as its stack of blocks, with their scores, and what is chosen of it.

Drawn with what is tuned and what a step costs in each block, or with what each does in a graft; on one page it chooses.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
import streamlit.components.v2 as components

from lsf.app.choose import wanted_criteria
from lsf.app.panels import amount, memory_words
from lsf.app.runtime import runtime
from lsf.app.state import Session, by_method, looked_at, predicted_of, source_here
from lsf.app.work import Source
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.errors import LsfError
from lsf.evidence.packed import packed_evidence
from lsf.plans.cost import block_flops
from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import RECOMMENDED
from lsf.runs.graft import WAYS, Graft, Way
from lsf.wording import counted

HTML = """<div class="tower"><p class="title"></p><svg xmlns="http://www.w3.org/2000/svg"></svg><div class="legend">
<span class="scale"><span class="score"></span></span>
<span><span class="scale"><span class="low"></span><span class="ramp"></span><span class="high"></span> </span><span
class="sides"><span class="key tuned"></span>tuned<span class="key frozen"></span>frozen</span></span>
<span class="parts"><span class="key forward"></span>forward<span class="key backward"></span>backward<span
class="key weights"></span>weights</span>
<span class="how"></span></div>
<div class="notes"></div></div>"""
CHOOSE = "Click a block, or drag over several; on the keyboard, use the arrows and space."
PICK = "Click a block for its numbers; on the keyboard, use the arrows and space. Dashed blocks were not tuned."
STUDY = "Scores from the study that comes with LSF; your own take their place once you analyse."
LACKED = "Chosen by {}, which this analysis did not measure: the colours are those of another criterion."
REPLAYED = "Chosen by {}, which is not part of the replay: the colours are those of another criterion."
KEY = "tower"
"""Names the component from one script run to the next."""
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


@cache
def _tower() -> Any:
    css, js = (Path(__file__).with_suffix(ending).read_text(encoding="utf-8") for ending in (".css", ".js"))
    return components.component("lsf_tower", html=HTML, css=css, js=js)


def show_tower(
    tower: Tower,
    notes: tuple[str, ...],
    on_brush: Callable[[int, int], None] | None,
    key: str = KEY,
    picked: int | None = None,
) -> None:
    """Draw a tower, or update the one that is there.

    Args:
        tower: what is drawn.
        notes: a few short lines under it.
        on_brush: called before the script run that a click, a drag or a key starts, with the first and the last block
            it went over; None where nothing can be chosen.
        key: names the tower; one other than that beside the pages is one on which a single block is picked.
        picked: that block; None for none.
    """
    picks = key != KEY

    def brushed() -> None:
        span = st.session_state[key].brushed
        if on_brush is not None and span is not None:
            on_brush(int(span["first"]), int(span["last"]))

    data = {**tower.to_json(), "notes": list(notes), "editable": on_brush is not None}
    data |= {"picks": picks, "picked": picked, "how": PICK if picks else CHOOSE}
    _tower()(key=key, data=data, on_brushed_change=brushed)


def current_tower(here: Session) -> tuple[Tower, tuple[str, ...]] | None:
    """Return the tower of the model being looked at, as far as it is known, and its notes; None where nothing is."""
    measured = looked_at(here)
    if measured is not None:
        return measured_tower(here, here.moment or measured.analysis)
    if here.plan is not None:
        return draw_tower(here.plan.n_blocks, here.plan.blocks), _cost_notes(here, here.plan)
    source = source_here(here)
    for one in packed_evidence():
        if one.setting.model == source.model and source.data in (f"lesson:{one.setting.task}", one.setting.task):
            (criterion, *_) = RECOMMENDED
            scores, label = one.setting.scores[criterion], CRITERIA[criterion].label
            return draw_tower(one.setting.truth.n_blocks, (), scores, label), (STUDY,)
    n_blocks = _known_blocks(source)
    return None if n_blocks is None else (draw_tower(n_blocks, ()), ())


def measured_tower(here: Session, analysis: Analysis) -> tuple[Tower, tuple[str, ...]]:
    """Return the tower of an analysis, with the plan at hand, and its notes."""
    n_blocks = analysis.model.n_blocks
    plan = here.plan if here.plan is not None and here.plan.n_blocks == n_blocks else None
    name = next(iter(wanted_criteria(here, analysis)), "deviation")
    chosen = () if plan is None else plan.blocks
    tower = draw_tower(n_blocks, chosen, analysis.scores(name), CRITERIA[name].label, step_work(analysis, chosen))
    if plan is None:
        return tower, ()
    chosen_by = plan.criterion
    words = LACKED if here.moment is None else REPLAYED
    lacked = () if chosen_by is None or chosen_by in analysis.criteria else (words.format(CRITERIA[chosen_by].label),)
    return tower, (*lacked, *_cost_notes(here, plan))


def _cost_notes(here: Session, plan: Plan) -> tuple[str, ...]:
    (cost, _), by = predicted_of(here, plan), by_method(here, plan)
    compute = "" if cost.flops_ratio is None else f"{cost.flops_ratio:.2f} x the compute of a full step{by}"
    parts = (
        ""
        if cost.trainable_params is None
        else f"{amount(cost.trainable_params)} parameters tuned, {memory_words(cost)} beyond the model"
    )
    return tuple(filter(None, (compute, parts)))


def _known_blocks(source: Source) -> int | None:
    """Return how many blocks a model has, where that can be told without loading or fetching it."""
    shared = runtime()
    loaded = shared.loaded()
    if loaded is not None and loaded.info.name == source.model:
        return loaded.info.n_blocks
    for one in packed_evidence():
        if one.setting.model == source.model:
            return one.setting.truth.n_blocks
    if not shared.ready:
        return None
    from lsf.models.supported import at_hand, find_model  # noqa: PLC0415 - imports torch, which is in memory by now

    try:
        return find_model(source.model).n_blocks if at_hand(source.model) else None
    except LsfError:  # said where the model is chosen
        return None
