"""The settings of a run as widgets, made of the spec's own fields and of the method's options."""

from dataclasses import MISSING, fields
from typing import Any

import streamlit as st

from lsf.bundled.lessons import LESSONS
from lsf.jobs.spec import METHODS_OWN, RunSpec
from lsf.training.catalogue import CATALOGUE
from lsf.training.default_rates import LAWS
from lsf.ui.forms import setting_input

DEFAULT_STEPS = 60
"""Of a run on data that is no lesson."""
SEARCHED, OWN, GIVEN = "Searched", "Default", "By hand"
"""Whence the rate; a search is what a run on one's own begins with."""
LEARNING = (
    "until", "keep", "epochs", "optimizer", "weight_decay", "warmup_steps", "reweight_tau", "max_length", "eval_every",
    "eval_limit",
)  # fmt: skip
"""Settings that change what is learned, or how it is read."""
COST = (
    "cache", "micro_batch", "activation_checkpointing", "checkpoint_seconds", "checkpoint_steps", "proof", "latency",
    "threads",
)  # fmt: skip
"""Settings that change what a run costs and how little of it can be lost, and nothing else."""
WIDTH = 178
"""Pixels of a number's widget."""


def usual_steps(data: str, form: str) -> tuple[int, str]:
    """Return the steps a form starts with, those in which a bundled lesson tells depths apart, and its widget's key.

    Args:
        data: name of the data.
        form: what the key begins with.
    """
    kind, _, name = data.partition(":")
    if kind != "lesson" or name not in LESSONS:
        return DEFAULT_STEPS, f"{form}-steps"
    return LESSONS[name].steps, f"{form}-steps-{name}"


def draw_settings(data: str) -> tuple[dict[str, Any], int]:
    """Draw all settings.

    Args:
        data: name of the data that is tuned on.

    Returns:
        Fields of a `RunSpec` with what they hold, and how many seeds are wanted.
    """
    values: dict[str, Any] = {}
    method = _method(values)
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        _ask(values, "steps", *usual_steps(data, "tune"))
        _ask(values, "batch_size")
        _rate(values, method)
    with st.expander("More settings", icon=":material/settings:"):
        with st.container(horizontal=True, gap="small"):
            with st.container(width=WIDTH):
                n_seeds = st.number_input(
                    "Seeds",
                    1,
                    10,
                    1,
                    key="tune-seeds",
                    persist_state="session",
                    help="Runs of each kind; two give a spread.",
                )
            for name in ("seed", *LEARNING):
                _ask(values, name)
        st.caption("What a run costs, and how little of it can be lost; none of these changes what is learned:")
        with st.container(horizontal=True, gap="small"):
            for name in COST:
                _ask(values, name)
    return values, int(n_seeds)


def _method(values: dict[str, Any]) -> str:
    """Draw the methods and the options of the chosen one; return its name."""
    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        with st.container(width=2 * WIDTH):
            method = st.selectbox(
                "Method",
                list(CATALOGUE),
                format_func=lambda name: CATALOGUE[name].label,
                key="tune-method",
                persist_state="session",
                help="How the planned blocks are tuned, where the plan says where.",
            )
        way = CATALOGUE[method]
        given: dict[str, Any] = {}
        for item in fields(way.options):
            with st.container(width=WIDTH):
                value = setting_input(way.options, item.name, item.default, f"tune-{method}-{item.name}")
            if value != item.default:
                given[item.name] = value
    if method != "full":
        cost = "" if way.merges else " It costs time at inference, since it cannot be merged."
        st.caption(f"{way.meaning}{cost} Counted as tuned: {way.unit}. Source: {way.source}.")
    values |= {"method": method, "options": given}
    return method


def _rate(values: dict[str, Any], method: str) -> None:
    with st.container(width="content"):
        mode = st.segmented_control(
            "Learning rate",
            [SEARCHED, OWN, GIVEN],
            default=SEARCHED,
            required=True,
            key="tune-rate-mode",
            persist_state="session",
            help="Searched: short runs around the default, judged on validation and forgetting, at most a fifth of "
            "the run's "
            "cost, once for all runs that tune as many blocks; a run too short for that takes the default. Default: by "
            "method, the model's width and the share of blocks tuned. By hand: one rate for all runs.",
        )
    if mode != GIVEN:
        values["learning_rate"] = None if mode == SEARCHED else METHODS_OWN
        return
    own = "" if method == "full" else f"-{method}"  # a rate by hand is meant for one method
    _ask(values, "learning_rate", LAWS[method].rate, f"tune-learning_rate{own}", "Rate")


def _ask(
    values: dict[str, Any], name: str, shown: Any = MISSING, key: str | None = None, label: str | None = None
) -> None:
    """Draw the widget of one field of the spec and note what it holds."""
    default = next(item.default for item in fields(RunSpec) if item.name == name)
    with st.container(width=WIDTH):
        start = default if shown is MISSING else shown
        values[name] = setting_input(RunSpec, name, start, key or f"tune-{name}", label)
