"""Evidence: what was measured on other models and tasks, and a small sweep on one's own."""

import streamlit as st

from lsf.app.actions import on_your_own_task
from lsf.app.evidence import judged_table, not_decided, own_panel, real_panel, record_panel, sweep_pictures
from lsf.app.findings import of_truth
from lsf.app.frame import page
from lsf.app.panels import finding
from lsf.app.state import Session
from lsf.app.truth import truth_panel
from lsf.data.lessons import LESSONS
from lsf.evidence.own import all_evidence
from lsf.evidence.packed import Measured
from lsf.evidence.study import budgets_of, judge_choices


def draw(here: Session) -> None:
    """Draw the page."""
    elsewhere, own = st.tabs(["Measured elsewhere", "Measure it here"], key="evidence-tab", on_change="rerun")
    if own.open:
        with own:
            truth_panel(here)
    else:
        with elsewhere:
            _elsewhere()
    on_your_own_task(here)


def _elsewhere() -> None:
    settings = {one.setting.name: one for one in all_evidence()}
    real_panel()
    st.header("The study on small models", anchor=False)
    record_panel(list(settings.values()))
    own_panel()
    st.header("One model and task", anchor=False)
    left, right = st.columns([2, 1], gap="medium")
    name = left.selectbox(
        "Model and task",
        list(settings),
        format_func=lambda key: _label(settings[key]),
        key="setting",
        persist_state="session",
    )
    one = settings[name]
    budgets = budgets_of(one.setting)
    budget = int(
        right.segmented_control(
            "Blocks tuned",
            budgets,
            default=budgets[0],
            required=True,
            key=f"setting-budget-{name}",
            persist_state="session",
        )
    )
    truth, ways = one.setting.truth, judge_choices(one.setting.truth, one.setting.scores, budget)
    not_decided(truth, budget)
    sweep_pictures(truth, one.metric, "setting")
    judged_table(
        ways,
        one.metric,
        "verdicts",
        "Regret: how far a plan falls short of the best measured one of its size. Relative: as a share of what the "
        f"best of all gains. Every run took {one.steps} steps; criteria read {_read(one)}.",
    )
    finding(*of_truth(truth, ways, budget))


def _read(one: Measured) -> str:
    if one.weights is None:
        return "as many examples as cost about 8 % of a run"
    return f"{min(one.examples.values())} to {max(one.examples.values())} examples"


def _task(name: str) -> str:
    return LESSONS[name].title if name in LESSONS else name


def _label(one: Measured) -> str:
    here = one.setting
    own = "" if one.weights is None else "your own: "
    return f"{own}{here.model}, {_task(here.task)} ({here.truth.n_blocks} blocks, {len(here.truth.full)} seeds)"


page(
    "Evidence",
    "Is the recommended choice right? What was measured, what every way of choosing lost, and the same on your task.",
    draw,
)
