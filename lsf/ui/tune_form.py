"""How the runs are made: the plan, the controls beside it, settings, what they will need, one button."""

from typing import Any

import streamlit as st

from lsf.analysis.plan import Plan
from lsf.errors import BadInputError
from lsf.jobs.controls import CONTROLS, with_controls
from lsf.jobs.spec import RunSpec
from lsf.ui.actions import start_runs
from lsf.ui.guard import guard
from lsf.ui.panels import amount
from lsf.ui.planner import draw_forecast
from lsf.ui.run_settings import draw_settings
from lsf.ui.state import Session
from lsf.ui.work import Source

ROLE_WORDS = {
    "full": "full fine-tuning",
    "first": "first blocks",
    "last": "last blocks",
    "random": "random blocks",
}


def draw_form(here: Session, plan: Plan, source: Source) -> None:
    """Draw the settings, what the run will need, and the button that queues everything."""
    with st.container(border=True):
        chosen_by = "by hand" if plan.criterion is None else f"by {plan.criterion.replace('_', ' ')}"
        known = plan.predicted.trainable_params
        params = "" if known is None else f"; {amount(known)} parameters"
        st.markdown(
            f"Tune **{plan.label}** of {plan.n_blocks} (chosen {chosen_by}{params}) of **{source.model}** on "
            f"**{source.data}**."
        )
        roles = st.pills(
            "Run beside it, for comparison",
            CONTROLS,
            format_func=ROLE_WORDS.__getitem__,
            selection_mode="multi",
            default=list(CONTROLS),
            key="tune-roles",
            persist_state="session",
            help="Controls tune as many blocks as the choice; one that equals another run is left out.",
        )
        values, n_seeds = draw_settings(source.data)
        spec = _spec(plan, source, values)
        if spec is None:
            return
        if same := [ROLE_WORDS[role] for role in roles if role not in {one.role for one in with_controls(spec, roles)}]:
            st.caption(f"No run of its own: {', '.join(same)}, the same blocks as another run.")
        obstacle = draw_forecast(here, source, spec, roles)
        count = n_seeds * len(with_controls(spec, roles))
        if st.button(
            f"Start {count} run{'s' if count > 1 else ''}",
            type="primary",
            icon=":material/play_arrow:",
            key="tune-start",
            disabled=obstacle is not None,
            help=None if obstacle is None else f"Not now: {obstacle}",
        ):
            with guard():
                start_runs(here, source, spec, roles, n_seeds)
                st.rerun()


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
