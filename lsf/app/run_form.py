"""How runs are made: settings as widgets, what they will need, and one button."""

from collections.abc import Sequence
from dataclasses import MISSING, fields, replace
from typing import Any

import streamlit as st

from lsf.app.actions import follow, specs_to_start, start_runs
from lsf.app.panels import amount, guard, setting_input, show, task_words, unmarked
from lsf.app.runtime import WARM_UP, runtime
from lsf.app.state import Session
from lsf.app.work import Foreseen, Source, forecast_work, source_of, without_effect
from lsf.data.lessons import LESSONS
from lsf.errors import BadInputError, LsfError
from lsf.figures.runs import Need, draw_memory
from lsf.jobs.job import JobState, JobView
from lsf.methods.catalogue import CATALOGUE
from lsf.methods.optimization import LAWS
from lsf.plans.plan import Plan
from lsf.plans.policies import how_chosen
from lsf.progress import duration
from lsf.runs.controls import CONTROLS
from lsf.runs.memory_forecast import PART_WORDS, RUN_SHARE, Forecast
from lsf.runs.spec import METHODS_OWN, RunSpec
from lsf.wording import counted

DEFAULT_STEPS = 60
"""Of a run on data that is no lesson."""
SEARCHED, OWN, GIVEN = "Searched", "Default", "By hand"
"""Whence the rate; a search is what a run on one's own begins with."""
LEARNING = (
    "general", "general_share",
    "until", "keep", "epochs", "optimizer", "weight_decay", "warmup_steps", "reweight_tau", "max_length", "eval_every",
    "eval_limit", "answer_pattern", "generate_limit", "generate_tokens",
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
        st.caption("What a run costs, and how much an interruption can lose; none of these changes what is learned:")
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
                help="How the blocks of the plan are tuned.",
            )
        info = CATALOGUE[method]
        given: dict[str, Any] = {}
        for item in fields(info.options):
            with st.container(width=WIDTH):
                value = setting_input(info.options, item.name, item.default, f"tune-{method}-{item.name}")
            if value != item.default:
                given[item.name] = value
    if method != "full":
        cost = "" if info.merges else " It cannot be merged into the base's weights."
        st.caption(f"{info.meaning}{cost} Counted as tuned: {info.unit}. Source: {info.source}.")
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
            "cost, once for all runs of the same number of blocks; a run too short for that takes the default. "
            "Default: by method, model width and share of blocks tuned. By hand: one rate for all runs.",
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


WHOLE = "full fine-tuning"
EARLIER = " This is of the settings it was worked out for, not of those above."
FORECAST = "forecast"
AT_ONCE = (WARM_UP, FORECAST, "unload")
"""Kinds of jobs that end within seconds; a forecast does not wait behind others unannounced."""


def draw_forecast(here: Session, source: Source, spec: RunSpec, roles: Sequence[str]) -> str | None:
    """Find out what the run needs, show it, and offer what would fit.

    With the model in memory and nobody waiting it is found out by itself, about a second for a small model; else when
    the user asks for it.

    Args:
        here: this session.
        source: model and data.
        spec: of the choice.
        roles: controls that are to run beside it.

    Returns:
        Why it cannot start, in one sentence; None where it can, or where that is not known.
    """
    asked = without_effect(spec)
    _take_answer(here)
    known = here.foreseen if here.foreseen is not None and here.foreseen.spec == asked else None
    if known is None:
        _find_out(here, source, asked)
    shown = known if known is not None else here.foreseen
    if shown is not None and shown.choice is not None and source_of(shown.spec) == source:
        underway = here.forecast_job is not None and here.forecast_of == asked
        then = " Being worked out again." if underway else EARLIER
        _draw(shown.choice, shown.full, then if known is None else "")
    return None if known is None else _obstacle(here, known, roles)


def _take_answer(here: Session) -> None:
    """Take the answer of a job that has ended, and let the worker forget the job."""
    if here.forecast_job is None or here.forecast_of is None:
        return
    try:
        view = runtime().worker.view(here.forecast_job)
        if view.active:
            return
        runtime().worker.forget(view.id)
    except LsfError:
        here.forecast_job = here.forecast_of = None
        return
    here.forecast_job = None
    if isinstance(view.result, Foreseen):
        here.foreseen = view.result
    elif view.state is JobState.FAILED:
        here.foreseen = Foreseen(here.forecast_of, failure=view.error)
    else:
        here.forecast_of = None


def _find_out(here: Session, source: Source, asked: RunSpec) -> None:
    """Ask the worker, or offer to where that would take long; while it works, look on."""
    if here.forecast_job is None or here.forecast_of != asked:
        if any(view.active and view.kind not in AT_ONCE for view in runtime().worker.views()):
            st.caption(":material/schedule: What the run needs is worked out once the queue is empty.")
            return
        at_hand = is_loaded(source)
        if not at_hand and not st.button(
            "Work out what the run needs", icon=":material/memory:", key="tune-forecast", help="Loads the model first."
        ):
            return
        _drop(here)
        here.forecast_of = asked
        here.forecast_job = runtime().worker.submit(
            FORECAST, "what a run needs", forecast_work(runtime(), source, asked), here.owner, gives_way=True
        )
    follow(here, [here.forecast_job], _draw_waiting, quietly=True)


def _drop(here: Session) -> None:
    """Let go of a question whose answer is not wanted any more."""
    if here.forecast_job is not None:
        try:
            runtime().worker.stop(here.forecast_job, here.owner, keep=False)
        except LsfError:
            return  # long forgotten


def is_loaded(source: Source) -> bool:
    """Say whether the model in memory is the one asked for."""
    loaded = runtime().loaded()
    return loaded is not None and loaded.info.name == source.model and source.dtype in ("auto", loaded.info.dtype)


def _draw_waiting(views: Sequence[JobView]) -> None:
    for view in views:
        if view.active:
            st.caption(f":material/hourglass_top: Working out what the run needs: {view.message or 'waiting'}.")


def _draw(choice: Forecast, full: Forecast | None, then: str) -> None:
    """Draw the parts of both, and say what a step takes and, where these are not the settings asked for, so."""
    needs = [Need(_name(choice), {PART_WORDS[name]: count for name, count in vars(choice.parts).items()})]
    if full is not None:
        needs.append(Need(WHOLE, {PART_WORDS[name]: count for name, count in vars(full.parts).items()}))
    allowed = None if choice.free_bytes is None else RUN_SHARE * choice.free_bytes
    words = [_words(choice)] + ([f"Full fine-tuning: {_words(full)}"] if full is not None else [])
    show(draw_memory(needs, allowed), "forecast", " ".join(words) + then)


def _name(choice: Forecast) -> str:
    method = "" if choice.spec.method == "full" else f", {choice.spec.method}"
    return f"{choice.spec.plan.label}{method}"


def _words(found: Forecast) -> str:
    told = f"{amount(found.trainable_params)} parameters, {found.flops_ratio:.2f} x compute"
    wall = found.predicted.wall_seconds
    whole = "" if wall is None else f", about {duration(wall)} from start to end"
    if found.step_seconds is None:
        return f"{told}{whole}."
    step = f"{found.step_seconds * 1e3:.0f} ms" if found.step_seconds < 1 else duration(found.step_seconds)
    steps, prefix = found.phases["steps"], found.phases.get("prefix", 0.0)
    once = f", {duration(prefix)} of what frozen blocks compute once" if prefix >= 1 else ""
    return f"{told}{whole}: {duration(steps)} of steps of {step} each{once}, the rest evaluating and saving."


def _obstacle(here: Session, known: Foreseen, roles: Sequence[str]) -> str | None:
    """Say whether everything that is to start fits; where not, offer what does."""
    if known.refusal is not None:
        st.error(unmarked(known.refusal), icon=":material/error:")
        _look_again(here)
        return known.refusal
    if known.failure is not None:
        st.warning(unmarked(f"What the run needs could not be worked out: {known.failure}"), icon=":material/warning:")
        return None
    choice, full = known.choice, known.full
    assert choice is not None
    if choice.fits is False:
        st.error(unmarked(choice.sentence), icon=":material/memory:")
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            _offer(here, choice)
            _look_again(here)
        return choice.sentence
    st.caption(f":material/memory: {unmarked(choice.sentence)}")
    if full is not None and full.fits is False and "full" in roles:
        reason = f"Full fine-tuning beside it: {full.sentence[:1].lower()}{full.sentence[1:]}"
        st.error(unmarked(reason), icon=":material/memory:")
        left = [role for role in roles if role != "full"]
        with st.container(horizontal=True, gap="small"):
            st.button(
                "Leave out full fine-tuning",
                icon=":material/compress:",
                key="tune-leave-full",
                on_click=lambda: st.session_state.update({"tune-roles": left}),
            )
            _look_again(here)
        return reason
    return None


def _look_again(here: Session) -> None:
    """Offer to ask anew: memory may have come free, a file may be there by now."""

    def forget() -> None:
        here.foreseen = here.forecast_of = None

    st.button("Check again", icon=":material/refresh:", type="tertiary", key="tune-look-again", on_click=forget)


def _offer(here: Session, choice: Forecast) -> None:
    """Offer the nearest version that fits; one click takes it into the form."""
    offer = choice.offer
    if offer is None:
        st.caption("No smaller version of the run fits; choose a smaller model, or free memory.")
        return
    st.button(
        f"Use what fits: {offer.words}",
        type="primary",
        icon=":material/compress:",
        key="tune-take-offer",
        help=unmarked(offer.forecast.sentence),
        on_click=lambda: take(here, offer.spec, offer.forecast),
    )


def take(here: Session, spec: RunSpec, found: Forecast) -> None:
    """Put what fits into the form; runs before the script does."""
    for name in ("micro_batch", "activation_checkpointing", "max_length"):
        st.session_state[f"tune-{name}"] = getattr(spec, name)
    if here.plan is None or spec.plan.blocks != here.plan.blocks:
        here.plan = replace(spec.plan, predicted=found.predicted)
        here.by_hand = spec.plan.blocks


ROLE_WORDS = {
    "full": "full fine-tuning",
    "first": "first blocks",
    "last": "last blocks",
    "random": "random blocks",
}


def draw_form(here: Session, plan: Plan, source: Source) -> None:
    """Draw the settings, what the run will need, and the button that queues everything."""
    with st.container(border=True):
        known = plan.predicted.trainable_params
        params = "" if known is None else f"; {amount(known)} parameters"
        st.markdown(
            f"Tune **{plan.label}** of {plan.n_blocks} ({how_chosen(plan)}{params}) of "
            f"{task_words(source.model, source.data)}."
        )
        roles = st.pills(
            "Also run, for comparison",
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
        specs = specs_to_start(spec, roles, n_seeds)
        if same := [ROLE_WORDS[role] for role in roles if role not in {one.role for one in specs}]:
            st.caption(f"Not run separately: {', '.join(same)}, the same blocks as another run.")
        if spec.tried_rate is not None:
            st.caption(
                f"{plan.label[0].upper()}{plan.label[1:]} and controls of as many blocks are tuned at "
                f"{spec.tried_rate:.2g}, the rate that trying found, in place of the default or a search."
            )
        source = replace(source, general=spec.general)
        obstacle = draw_forecast(here, source, spec, roles)
        if st.button(
            f"Start {counted(len(specs), 'run')}",
            type="primary",
            icon=":material/play_arrow:",
            key="tune-start",
            disabled=obstacle is not None,
            help=None if obstacle is None else f"Not now: {unmarked(obstacle)}",
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
            role="manual" if plan.by_hand else "choice",
            prompt_template=source.prompt_template,
            completion_template=source.completion_template,
            **vars(source.options),
            dtype=source.dtype,
            device=source.device,
            **values,
        )
    except BadInputError as error:
        st.error(unmarked(str(error)), icon=":material/error:")
        return None
