"""Tuned models at hand, on the page Compare: asked in your own words, and taken along as files.

Your own words: a prompt answered by the base model and by tuned ones side by side, with the lens of each below. The
files of one: its weights as they were stored, or the whole model merged in the base's dtype.
"""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

import streamlit as st

from lsf.app.actions import follow, stop_buttons
from lsf.app.panels import download, guard, progress, size, unmarked
from lsf.app.runs import label, labels
from lsf.app.runtime import runtime
from lsf.app.state import Session
from lsf.app.work import Asked, Source, ask_work, merge_work, source_of
from lsf.figures.palette import visible
from lsf.jobs.job import JobState, JobView
from lsf.methods.catalogue import CATALOGUE
from lsf.runs.answers import Answer, AnswerSettings, LensToken, Voice
from lsf.runs.formats import zip_folder
from lsf.runs.lock import MERGED, WEIGHTS
from lsf.runs.store import Run, bytes_of

KIND, MERGE_KIND = "ask", "merge"
PROMPT, SUGGESTED = "own-prompt", "own-prompt-suggested"
"""Key of the box, and where the session keeps what was put into it."""
STREAM_SECONDS = 0.4
"""Between two looks at answers that are being written."""
MOST_RUNS = 3
"""Tuned models that answer beside the base model."""
MOST = 2 << 30
"""Bytes that are handed to a browser, which come through the server's memory; what is larger stays on the disk."""
STYLE = """
<style>
.lsf-answer { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 0.4rem; }
.lsf-answer span { opacity: 0.72; }
.lsf-answer b { font-weight: 600; }
.lsf-lens { display: flex; flex-wrap: wrap; gap: 3px; font-size: 0.8rem; }
.lsf-lens span { padding: 1px 5px; border-radius: 3px; white-space: nowrap; max-width: 9rem; overflow: hidden;
  text-overflow: ellipsis; border: 1px solid color-mix(in srgb, currentColor 22%, transparent);
  background: color-mix(in srgb, #0072B2 var(--share), transparent); }
.lsf-lens .said { border: 2px solid #D55E00; }
.lsf-lens small { opacity: 0.8; margin-right: 3px; }
</style>
"""
LENS_NOTE = (
    "Under each answer: the token that would come next if the model stopped at that point, from the embedding (E) "
    "through every block to the last; the deeper the colour, the more likely; framed where the answer begins with it."
)


def with_weights(runs: Sequence[Run]) -> list[Run]:
    """Return the runs whose tuned weights are there and whose base is that of the first of them."""
    there = [run for run in runs if run.spec is not None and run.result is not None and (run.folder / WEIGHTS).is_dir()]
    first = next((run.result.weights for run in there if run.result is not None), None)
    return [run for run in there if run.result is not None and run.result.kept and run.result.weights == first]


def pick_run(words: str, runs: Sequence[Run], key: str, first: Run | None = None) -> Run:
    """Draw a box that names one of several runs, and return that run.

    Args:
        words: above the box.
        runs: at least one.
        key: of the box.
        first: shown before anything was picked; None for the first of the runs.
    """
    named = dict(zip([run.id for run in runs], labels(runs), strict=True))
    index = 0 if first is None else runs.index(first)
    chosen = st.selectbox(
        words, list(named), index, format_func=named.__getitem__, key=key, persist_state="session", width=320
    )
    return next(run for run in runs if run.id == chosen)


def first_prompt(run: Run) -> str:
    """Return a prompt that suits a run: of the first test example it kept that tuning put right, else of the first.

    Empty where it kept none.
    """
    samples = () if run.result is None else run.result.samples
    put_right = (one for one in samples if (one.after or "").strip() == one.target.strip() != one.before.strip())
    first = next(put_right, next(iter(samples), None))
    return "" if first is None else first.prompt


def draw_own_words(here: Session, picked: Sequence[Run]) -> None:
    """Offer a box for prompts and show the answers to what was asked last, also while they are written.

    Args:
        here: this session.
        picked: the runs compared.
    """
    runs = with_weights(picked)
    if not runs:
        return
    st.subheader("Your own words", anchor=False)
    st.html(STYLE)
    st.caption(
        "Give the base model and the tuned ones a prompt of your own. A second prompt is answered below the first."
    )
    _form(here, runs)
    view = latest(here, KIND, picked)
    if view is None:
        return
    names = dict(zip([run.folder for run in picked], labels(picked), strict=True))
    follow(here, [view.id], lambda views: _draw(here, views, names), quietly=True, every=lambda now: STREAM_SECONDS)


def latest(here: Session, kind: str, picked: Sequence[Run]) -> JobView | None:
    """Return the job of this kind that this person last had runs of a comparison answer; found after a reload too."""
    folders, sources = {run.folder for run in picked}, [source_of(run.spec) for run in picked if run.spec is not None]

    def ours(view: JobView) -> bool:
        source, voices = view.about or (None, ())
        return source in sources and all(voice.run is None or voice.run in folders for voice in voices)

    return next((view for view in reversed(runtime().jobs(kind)) if view.owner == here.owner and ours(view)), None)


def _suggest(prompt: str) -> None:
    """Put a prompt that suits the runs into the box, unless a person wrote one: that of other data would not suit."""
    if st.session_state.get(PROMPT) in (None, st.session_state.get(SUGGESTED)):
        st.session_state[PROMPT] = prompt
    st.session_state[SUGGESTED] = prompt


def _form(here: Session, runs: Sequence[Run]) -> None:
    by_id = {run.id: name for run, name in zip(runs, labels(runs), strict=True)}
    told = [run.id for role in ("choice", "manual", "full") for run in runs if run.spec and run.spec.role == role]
    default = list(dict.fromkeys([*told, *by_id]))[:2]
    _suggest(first_prompt(runs[0]))
    with st.form("own-words", border=True):
        columns = st.columns(2)
        written = [
            columns[0].text_area("Prompt", height=80, key=PROMPT, persist_state="session"),
            columns[1].text_area("Second prompt (optional)", height=80, key="own-second", persist_state="session"),
        ]
        chosen = st.multiselect(
            "Answer with the base model and", list(by_id), default=default, format_func=by_id.__getitem__,
            max_selections=MOST_RUNS, key=f"own-runs-{'-'.join(default)}", persist_state="session",
        )  # fmt: skip
        with st.container(horizontal=True, gap="small", vertical_alignment="bottom"):
            tokens = st.number_input("Maximum tokens", 1, 512, 32, key="own-tokens", width=130, persist_state="session")
            seed = st.number_input(
                "Seed", 0, 2**31 - 1, None, key="own-seed", width=130, placeholder="greedy",
                help="Empty: always the most likely token. A number: tokens are sampled with this seed.",
                persist_state="session",
            )  # fmt: skip
        asked = st.form_submit_button("Ask", icon=":material/forum:")
    prompts = tuple(text for text in written if text.strip())
    if asked and not prompts:
        st.info("Write a prompt first.", icon=":material/info:")
    elif asked:
        with guard():
            settings = AnswerSettings(int(tokens), None if seed is None else int(seed))
            by_name = {run.id: run for run in runs}
            voices = (Voice(), *(Voice(by_name[name].folder) for name in chosen))
            here.prompts, here.prompts_of = prompts, source_of(runs[0].spec) if runs[0].spec else None
            start_asking(here, runs[0], Asked(voices, prompts, settings))


def start_asking(here: Session, run: Run, asked: Asked, kind: str = KIND, gives_way: bool = False) -> str:
    """Put prompts into the queue and return the job; `gives_way`: where nothing else is to be done.

    Raises:
        BadInputError: the worker was closed.
    """
    assert run.spec is not None
    source: Source = source_of(run.spec)
    work = ask_work(runtime(), source, asked)
    about = source, asked.voices
    return runtime().worker.submit(kind, "answers to a prompt", work, here.owner, gives_way=gives_way, about=about)


def _draw(here: Session, views: Sequence[JobView], names: Mapping[Path, str]) -> None:
    for view in views:
        asked = view.result or view.partial
        if view.active:
            progress(view)
            stop_buttons(here, view)
        if view.error is not None:
            st.error(unmarked(view.error), icon=":material/error:")
        if isinstance(asked, Asked):
            show_answers(asked, names)


def show_answers(asked: Asked, names: Mapping[Path, str]) -> None:
    """Show answers side by side, a row per prompt and a column per model.

    Args:
        asked: as far as it is written.
        names: folder of a run -> what it is called; others are told as the tuned model.
    """
    for number, prompt in enumerate(asked.prompts):
        for column, voice in zip(st.columns(len(asked.voices)), asked.voices, strict=True):
            with column.container(border=True):
                named = None if voice.run is None or voice.way is not None else names.get(voice.run)
                st.markdown(f"**{unmarked(named or voice.words)}**")
                st.html(answer_html(prompt, asked.answer(voice, number)))
    ways = {answer.rendering for answer in asked.answers}
    given = "" if not ways else f" Each prompt was given {'; '.join(sorted(ways))}."
    st.caption(f"{LENS_NOTE} Tokens: {asked.settings.words}, {asked.settings.tokens} at most.{given}")


def answer_html(prompt: str, answer: Answer | None) -> str:
    """Return a prompt with its answer and the lens below it as HTML in which nothing of either is markup."""
    if answer is None:
        return f'<p class="lsf-answer"><span>{escape(prompt)}</span> …</p>'
    more = "" if answer.ended else " …"
    said = f'<p class="lsf-answer"><span>{escape(prompt)}</span><b>{escape(answer.text)}</b>{more}</p>'
    first = answer.lens[-1].token if answer.lens else None
    cells = "".join(_cell(state, one, one.token == first) for state, one in enumerate(answer.lens))
    return f'{said}<div class="lsf-lens" role="list">{cells}</div>'


def _cell(state: int, one: LensToken, said: bool) -> str:
    place = "E" if state == 0 else str(state - 1)
    where = "the embedding" if state == 0 else f"block {state - 1}"
    told = escape(f"After {where}: {visible(one.token)}, {one.probability:.0%}", quote=True)
    strength = f"--share: {round(8 + 47 * one.probability)}%"
    kind = ' class="said"' if said else ""
    token = f"<small>{place}</small>{escape(visible(one.token))}"
    return f'<span role="listitem"{kind} style="{strength}" title="{told}">{token}</span>'


def draw_take_along(here: Session, picked: Sequence[Run]) -> None:
    """Offer what one of the runs compared has tuned, as files.

    Args:
        here: this session.
        picked: the runs compared.
    """
    runs = with_weights(picked)
    if not runs:
        return
    st.subheader("Take it along", anchor=False)
    run = pick_run("Model to take", runs, "take-run")
    assert run.spec is not None
    views = [view for view in runtime().jobs(MERGE_KIND) if view.title == _title(run)]

    def merge() -> None:
        assert run.spec is not None
        with guard():
            work = merge_work(runtime(), source_of(run.spec), run.folder)
            runtime().worker.submit(MERGE_KIND, _title(run), work, here.owner)

    with st.container(horizontal=True, gap="small"):
        by_peft = run.spec.method == "lora"
        _offer(run, WEIGHTS, "Adapter (ZIP)" if by_peft else "Tuned weights (ZIP)")
        if (run.folder / MERGED).is_dir():
            _offer(run, MERGED, "Whole model, merged (ZIP)")
        elif CATALOGUE[run.spec.method].merges and not (views and views[-1].active):
            st.button("Merge the whole model", icon=":material/merge:", key="take-merge", on_click=merge)
    if views:
        follow(here, [views[-1].id], lambda seen: _merging(here, seen), quietly=True)
    st.caption(_how(run, by_peft))


def _title(run: Run) -> str:
    return f"whole model of {label(run)} ({run.id[-4:]})"


def _offer(run: Run, part: str, words: str) -> None:
    """Offer a part of the run's folder, or say where it lies if it is too large for a browser."""
    folder = run.folder / part
    if (held := bytes_of(folder)) > MOST:
        st.markdown(unmarked(f"{words.removesuffix(' (ZIP)')}, {size(held)}: {folder}"))
    else:
        download(words, lambda: zip_folder(folder), f"{run.id}-{part}.zip", "application/zip", f"take-{part}")


def _merging(here: Session, views: Sequence[JobView]) -> None:
    """Show how far merging is, and what it changed."""
    for view in views:
        if view.active:
            progress(view)
            stop_buttons(here, view)
        elif view.error is not None:
            st.error(unmarked(view.error), icon=":material/error:")
        elif view.state is JobState.SUCCEEDED and view.result:
            st.markdown(unmarked(view.result))


def _how(run: Run, by_peft: bool) -> str:
    """Say what reads the files, and where they lie on this machine."""
    assert run.spec is not None
    if by_peft:
        reads = "The adapter is peft's own format: PeftModel.from_pretrained(base, folder)."
    else:
        reads = "The tuned weights are those that changed, for LSF and its base model."
    if CATALOGUE[run.spec.method].merges:
        reads += " The whole model is for AutoModelForCausalLM.from_pretrained(folder), without LSF."
    else:
        reads += " Its steps between the base's layers cannot be merged into the base."
    return unmarked(f"{reads} On this machine: {run.folder}.")
