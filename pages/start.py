"""The first page: what this is, and two ways to begin."""

from html import escape

import numpy as np
import streamlit as st

from lsf.app.frame import page
from lsf.app.panels import NEXT
from lsf.app.state import Session
from lsf.app.tour import start_tour
from lsf.app.work import Source
from lsf.data.lessons import LESSONS, data_words
from lsf.evidence.packed import packed_evidence, words
from lsf.evidence.study import Rule
from lsf.figures.palette import CHOSEN, NEUTRAL, UNCHOSEN
from lsf.models.info import LABEL, NAME, smollm2_packaged, smollm2_place
from lsf.plans.policies import ENDS_FROM, RECOMMENDED

HERO = f"""<style>
h1 {{ font-size: 3.4rem !important; padding-bottom: 0 !important; }}
.lsf-line {{ font-size: 1.45rem; line-height: 1.35; margin: 0; max-width: 46rem; }}
.lsf-kept {{ display: grid; grid-template-columns: max-content 1fr; gap: 0.35rem 0.8rem; max-width: 46rem; }}
.lsf-kept i {{ display: inline-block; height: 1.05rem; border-radius: 2px; vertical-align: -0.15rem;
  margin-right: 0.4rem; background: {NEUTRAL.color}; }}
.lsf-kept .whole {{ background: {UNCHOSEN.color}; }}
.lsf-kept .chosen {{ border: 1.5px solid {CHOSEN.color};
  background: repeating-linear-gradient(45deg, {CHOSEN.color} 0 3px, transparent 3px 6px); }}
</style>
<p>Layer freezing by semantics</p>
<p class="lsf-line">Find the layers worth fine-tuning, tune only those, see what you lose.</p>"""
STEPS = (
    ("1 Measure", "Read some examples and score every block of the model: the colours of the tower on the left."),
    ("2 Tune", "Fine-tune the chosen blocks only. What lies below them needs no gradient."),
    ("3 Compare", "What was kept and what was saved, beside the whole model and blocks chosen at random."),
)
REAL_MINUTES = 10  # python -m benchmarks.tour --real, on 2 cores
LONGEST = 60  # percent of the column that the longest bar takes; the rest is for its number


def draw(here: Session) -> None:
    """Draw the page."""
    st.html(HERO)
    with st.container(horizontal=True, gap="small"):
        if st.button("Show me in 60 seconds", type="primary", icon=":material/play_arrow:", key="tour"):
            start_tour(here)
        if st.button("Use my own model and data", icon=":material/folder_open:", key="own"):
            st.switch_page(NEXT["model"][0])
    st.caption(
        "A live run on the small model that comes with LSF, from measurement to comparison. Right after the server "
        "starts it takes half a minute longer, while libraries load."
    )
    _on_a_real_model(here)
    for column, (name, told) in zip(st.columns(3, gap="small"), STEPS, strict=True):
        with column, st.container(border=True, height="stretch", gap="xsmall"):
            st.subheader(name, anchor=False)
            st.caption(told)
    _example()


def _on_a_real_model(here: Session) -> None:
    """Offer the same on the real model, where it is here: nothing is fetched by this button."""
    made = smollm2_place().is_dir()
    if not made and smollm2_packaged() is None:
        return
    once = "" if made else " The model is unpacked first, once, which takes a minute more."
    if st.button(
        f"Show me on {LABEL} in {REAL_MINUTES} minutes",
        type="tertiary",
        icon=":material/play_arrow:",
        key="real-tour",
        help="The same journey on a published language model of 30 blocks and 135 M parameters. Nothing is downloaded, "
        f"and no GPU is needed: the time is that of 2 cores.{once}",
    ):
        start_tour(here, model=NAME)


def _example() -> None:
    """Show what the study measured of the recommended block on the bundled model and its first lesson."""
    lesson = Source().data.partition(":")[2]
    one = next(one for one in packed_evidence() if (one.setting.model, one.setting.task) == ("bundled", lesson))
    truth = one.setting.truth
    choice = Rule(RECOMMENDED, ENDS_FROM is not None).choose(one.setting.scores, 1, truth.n_blocks)
    if choice is None or (whole := truth.full_mean - truth.floor) <= 0:
        return
    at_random = float(np.mean([truth.mean(blocks) for blocks in truth.plans(1)]))
    gains = [
        ("whole", "the whole model", 1.0),
        ("chosen", f"{words(choice)} alone", (truth.mean(choice) - truth.floor) / whole),
        ("", "one block at random", (at_random - truth.floor) / whole),
    ]
    most = max(gain for _, _, gain in gains)
    bars = "".join(
        f"<span>{escape(name)}</span><span><i class='{kind}' style='width:{LONGEST * max(0, gain) / most:.0f}%'></i>"
        f"{100 * gain:.0f} %</span>"
        for kind, name, gain in gains
    )
    st.subheader(f"For example: {data_words(Source().data)}, learned by tuning", anchor=False)
    st.caption(LESSONS[lesson].teaches)
    st.html(f"<div class='lsf-kept'>{bars}</div>")
    st.caption(
        "How many of the right answers that tuning the whole model gains, counted from what the untuned model, or one "
        "and the same answer to everything, gets right. Blocks are the model's layers, "
        f"0 to {truth.n_blocks - 1} from the embedding up. Mean of {len(truth.full)} seeds, from the study that comes "
        "with LSF; the page Evidence has other tasks and models, and where it fails."
    )


page("LSF", "", draw, charts=False)
