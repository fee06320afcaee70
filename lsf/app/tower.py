"""The tower beside every page: the model as its stack of blocks, and what is chosen of it; on one page it chooses."""

from collections.abc import Callable
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
from lsf.figures.tower import Tower, draw_tower, step_work
from lsf.plans.plan import Plan
from lsf.plans.recommend import RECOMMENDED

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
