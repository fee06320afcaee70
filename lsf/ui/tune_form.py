"""How the runs are made: settings from the spec's own fields, the controls beside the choice, one button."""

from dataclasses import fields
from typing import Any

import streamlit as st

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError
from lsf.jobs.controls import CONTROLS, with_controls
from lsf.jobs.spec import RunSpec
from lsf.training.catalogue import CATALOGUE
from lsf.ui.actions import start_runs
from lsf.ui.forms import setting_input
from lsf.ui.guard import guard
from lsf.ui.panels import amount
from lsf.ui.state import Session
from lsf.ui.work import Source

DEFAULT_STEPS = 60
SAME, OWN = "Same rate for all", "Each at its own best"
ROLE_WORDS = {
    "full": "full fine-tuning",
    "first": "first blocks",
    "last": "last blocks",
    "random": "random blocks",
}
MORE = ("weight_decay", "warmup_steps", "max_length", "eval_every", "eval_limit")


def draw_form(here: Session, plan: Plan, source: Source) -> None:
    """Draw the settings and the button that queues everything."""
    with st.container(border=True):
        chosen_by = "by hand" if plan.criterion is None else f"by {plan.criterion.replace('_', ' ')}"
        params = amount(plan.predicted.trainable_params)
        st.markdown(
            f"Tune **{plan.label}** of {plan.n_blocks} (chosen {chosen_by}; {params} parameters) of **{source.model}** "
            f"on **{source.data}**."
        )
        roles = st.pills(
            "Run beside it, for comparison",
            CONTROLS,
            format_func=ROLE_WORDS.__getitem__,
            selection_mode="multi",
            default=list(CONTROLS),
            key="tune-roles",
            persist_state="session",
            help="Controls tune as many blocks as the choice; a control equal to the choice is left out.",
        )
        values, n_seeds = _settings()
        spec = _spec(plan, source, values)
        if spec is None:
            return
        count = n_seeds * len(with_controls(spec, roles))
        if st.button(
            f"Start {count} run{'s' if count > 1 else ''}",
            type="primary",
            icon=":material/play_arrow:",
            key="tune-start",
        ):
            with guard():
                start_runs(here, source, spec, roles, n_seeds)
                st.rerun()


def _settings() -> tuple[dict[str, Any], int]:
    defaults = {item.name: item.default for item in fields(RunSpec)}
    defaults |= {"steps": DEFAULT_STEPS, "learning_rate": CATALOGUE["full"].learning_rate}
    values: dict[str, Any] = {}

    def ask(name: str, label: str | None = None) -> None:
        with st.container(width=170):
            values[name] = setting_input(RunSpec, name, defaults[name], f"tune-{name}", label)

    with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
        ask("steps")
        ask("batch_size")
        with st.container(width="content"):
            mode = st.segmented_control(
                "Learning rate",
                [SAME, OWN],
                default=SAME,
                required=True,
                key="tune-rate-mode",
                persist_state="session",
                help="A single block often wants 3 to 10 times the rate of the whole model. Its own best is found by a "
                "short search on the validation split, which is counted and shown.",
            )
        if mode == SAME:
            ask("learning_rate", "Rate")
        else:
            values["learning_rate"] = None
    with st.expander("More settings", icon=":material/settings:"), st.container(horizontal=True, gap="small"):
        with st.container(width=170):
            n_seeds = st.number_input(
                "Seeds",
                1,
                10,
                1,
                key="tune-seeds",
                persist_state="session",
                help="Runs of each kind; two give a spread.",
            )
        ask("seed")
        for name in MORE:
            ask(name)
    return values, int(n_seeds)


def _spec(plan: Plan, source: Source, values: dict[str, Any]) -> RunSpec | None:
    """Return the choice's spec, or show why it cannot be."""
    try:
        return RunSpec(
            model=source.model,
            data=source.data,
            plan=plan,
            role="manual" if plan.criterion is None else "choice",
            prompt_template=source.prompt_template,
            completion_template=source.completion_template,
            dtype=source.dtype,
            device=source.device,
            **values,
        )
    except BadInputError as error:
        st.error(str(error), icon=":material/error:")
        return None
