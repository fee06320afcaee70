"""A person's own prompt, answered by the base model, by tuned ones and by grafts; tokens are told as they come."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.generation.streamers import BaseStreamer

from lsf.data.contents import DataOptions, make_chat
from lsf.data.encode import CHAT_WORDS, EncodedExample, encode
from lsf.data.spans import tokenised
from lsf.data.task import Example
from lsf.errors import BadInputError, OutOfMemoryError
from lsf.lens.analyze import TokenText
from lsf.lens.forward import most_likely
from lsf.methods.parametrization import held_still
from lsf.models.batches import autocasting
from lsf.models.devices import input_device, is_out_of_memory
from lsf.models.layout import resolve
from lsf.models.loading import LoadedModel, check_ids
from lsf.models.writing import Drawn, generate
from lsf.progress import do_nothing
from lsf.runs.answers import Answer, AnswerSettings, LensToken, Voice
from lsf.runs.store import Run, tuned_run
from lsf.training.artefacts import load_tuned
from lsf.training.evaluation import ends_of
from lsf.training.graft import Grafts
from lsf.wording import counted

AS_IT_STANDS = "as it stands"
SAID = "A"
"""What an assistant says where a chat is rendered to find where its answer begins and what ends it."""


@torch.no_grad()
def ask(
    loaded: LoadedModel,
    voices: Sequence[Voice],
    prompts: Sequence[str],
    settings: AnswerSettings,
    tell: Callable[[Answer], None],
    check: Callable[[], None] = do_nothing,
) -> tuple[Answer, ...]:
    """Let models answer prompts, one after the other, each prompt given as the run's data was.

    The base model is given prompts as the first run's data was.

    Args:
        loaded: the base of all of them; it is not changed.
        voices: who answers; those of one run next to each other, since one tuned model is held at a time.
        prompts: at least one, none empty.
        settings: tokens at most, and how they are chosen.
        tell: called with an answer once its lens is read, after each token, and when it is done.
        check: called before each token; may raise to end the writing.

    Returns:
        An answer for every voice and prompt, prompts of one voice next to each other.

    Raises:
        BadInputError: an empty prompt, one too long, a part that a run did not tune, or weights of another base.
        RunError: a run that has no tuned model.
        OutOfMemoryError: it does not fit the device.
    """
    if not prompts or not all(prompt.strip() for prompt in prompts):
        raise BadInputError("A prompt is empty; write what the models are to answer.")
    runs = {voice.run: tuned_run(voice.run)[0] for voice in voices if voice.run is not None}
    first = next(iter(runs.values()), None)
    answers: list[Answer] = []
    held: dict[Path, Grafts] = {}
    for voice in voices:
        run = first if voice.run is None else runs[voice.run]
        rows = [prompt_row(loaded, prompt, run) for prompt in prompts]
        try:
            with _speaking(loaded, voice, held) as model:
                for number, (row, rendering) in enumerate(rows):
                    start = Answer(voice, number, rendering, _lens(model, loaded, row))
                    answers.append(_answer(model, loaded, row, start, settings, tell, check))
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, OutOfMemoryError) or not is_out_of_memory(error):
                raise
            raise OutOfMemoryError(
                f"{loaded.info.device} has too little memory for the {voice.words} beside its base; ask fewer at a "
                "time, or close other programs."
            ) from None
    return tuple(answers)


@contextmanager
def _speaking(loaded: LoadedModel, voice: Voice, held: dict[Path, Grafts]) -> Iterator[Any]:
    """Yield the model of a voice; `held` keeps the run that was loaded last."""
    if voice.run is None:
        yield loaded.model
        return
    if voice.run not in held:
        held.clear()
        held[voice.run] = Grafts(loaded, load_tuned(voice.run, loaded))
    grafts = held[voice.run]
    with grafts.model(grafts.parts if voice.way is None else grafts.parts_of(voice.parts, voice.way)) as model:
        yield model


def prompt_row(loaded: LoadedModel, prompt: str, run: Run | None) -> tuple[EncodedExample, str]:
    """Return a prompt as a run's model was given them in training, and how that is told.

    Args:
        loaded: the base: tokenizer, context.
        prompt: what a person wrote; in a chat, what the user says.
        run: with its result; None gives the prompt as it stands.

    Returns:
        A row of which the first `asked` ids are the prompt, and the words.

    Raises:
        DataError: the run's chat template cannot be filled, or a token has no embedding.
        BadInputError: the prompt leaves no room for an answer.
    """
    result, spec = (None, None) if run is None else (run.result, run.spec)
    how = "" if result is None else result.rendering or ""
    chat = next((words for words in CHAT_WORDS.values() if words in how), None)
    if chat is None:
        ids = tuple(next(tokenised(loaded.tokenizer, [prompt])).ids)
        row = EncodedExample(ids, len(ids), 0, Example(prompt, ""))
    else:
        options = DataOptions(chat_template=spec and spec.chat_template)
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": SAID}]
        example = Example(prompt, SAID, content=make_chat(turns, options))
        row = encode(loaded.tokenizer, [example], 10**9).rows[0]
    check_ids(loaded, [row])
    if row.asked >= loaded.context:
        raise BadInputError(
            f"The prompt has {counted(row.asked, 'token')} and {loaded.info.name} reads {loaded.context}; a shorter "
            "one leaves room for an answer."
        )
    return row, AS_IT_STANDS if chat is None else chat


def _lens(model: Any, loaded: LoadedModel, row: EncodedExample) -> tuple[LensToken, ...]:
    layout, ids = resolve(model, loaded.layout.family), torch.tensor(row.ids[: row.asked], device=input_device(model))
    with held_still(model), autocasting(model, loaded.info.dtype):
        found = most_likely(layout, ids)
    text = TokenText(loaded.tokenizer)
    return tuple(LensToken(text(token), share) for token, share in found)


class _Told(BaseStreamer):
    """Takes tokens from `generate` and tells the answer so far."""

    def __init__(self, tokenizer: Any, given: Sequence[int], answer: Answer, tell: Callable[[Answer], None]) -> None:
        self._tokenizer, self._given, self._tell = tokenizer, list(given), tell
        self._before = len(self._text(()))
        self._begun = False
        self.answer = answer
        tell(answer)

    def _text(self, ids: Sequence[int]) -> str:
        return self._tokenizer.decode([*self._given, *ids], skip_special_tokens=True)

    def put(self, value: torch.Tensor) -> None:
        """Take the prompt, which comes first, or a token."""
        if not self._begun:
            self._begun = True
            return
        ids = (*self.answer.ids, *value.flatten().tolist())
        text = self._text(ids)[self._before :].rstrip("\ufffd")  # a character whose bytes have not all come
        self.answer = replace(self.answer, ids=ids, text=text)
        self._tell(self.answer)

    def end(self) -> None:
        """Do nothing: whether it came to an end is told where the ends are known."""


def _answer(
    model: Any,
    loaded: LoadedModel,
    row: EncodedExample,
    start: Answer,
    settings: AnswerSettings,
    tell: Callable[[Answer], None],
    check: Callable[[], None],
) -> Answer:
    given, ends = row.ids[: row.asked], ends_of(row, loaded.tokenizer)
    told = _Told(loaded.tokenizer, given, start, tell)
    prompt = torch.tensor([given], device=input_device(model))
    room = min(settings.tokens, loaded.context - row.asked)
    drawn = [] if settings.seed is None else [Drawn(settings.seed)]
    with held_still(model), autocasting(model, loaded.info.dtype):
        generate(model, prompt, room, list(ends) or None, drawn, check, streamer=told)
    whole = replace(told.answer, done=True, ended=bool(told.answer.ids) and told.answer.ids[-1] in ends)
    tell(whole)
    return whole
