"""A chat as the text a model reads, and where its targets lie in it: by the template's own marks, else by its turns."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from lsf.data.contents import Chat, is_answer
from lsf.data.spans import (
    CALLED,
    PROBE,
    Span,
    TurnFinder,
    UnclearTurnError,
    called,
    marked_spans,
    takes_text,
    with_arguments,
)
from lsf.errors import DataError, first_line

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'][0] | upper }}{{ message['role'][1:] }}:"
    "{% if message['content'] %} {{ message['content'] }}{% endif %}"
    "{% if message['tool_calls'] %} {{ message['tool_calls'] | tojson }}{% endif %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)
"""Of chats on a model without a template: a line per turn, and end-of-text behind what the assistant says."""


@dataclass(frozen=True)
class Rendered:
    """One chat as text."""

    text: str
    """The exact string given to the model."""
    spans: tuple[Span, ...]
    """Characters of the targets, ascending; of every token where all of it is trained."""
    turns: tuple[Span, ...]
    """Characters of each trained turn of the assistant."""


@dataclass(frozen=True)
class Fact:
    """Something that a template did to rows."""

    words: str
    """What it did, without capital and full stop."""
    first: str | None
    """The first row of which it is true; None where rows have no place in a source."""
    count: int
    """Rows of which it is true."""

    def __str__(self) -> str:
        """Return the sentence."""
        more = f" and {self.count - 1:,} more" if self.count > 1 else ""
        where = f" ({self.first}{more})" if self.first else ""
        return f"{self.words[:1].upper()}{self.words[1:]}{where}."


def joined_facts(facts: Iterable[Fact]) -> tuple[Fact, ...]:
    """Return facts of several splits as one each: the first row of all, and the sum of the counts."""
    found: dict[str, Fact] = {}
    for fact in facts:
        known = found.get(fact.words)
        found[fact.words] = fact if known is None else Fact(fact.words, known.first, known.count + fact.count)
    return tuple(found.values())


@dataclass
class Renderer:
    """Renders chats by one template, and keeps what has to be told of it."""

    tokenizer: Any
    """A transformers tokenizer."""
    template: str | None
    """Text of a Jinja template; None for the tokenizer's own, else the plain one."""
    facts: dict[str, Fact] = field(default_factory=dict)
    """Words of what has to be told -> the fact."""

    def __post_init__(self) -> None:
        """Decide which template it is, and which strings end a turn."""
        own = template_of(self.tokenizer)
        self.source = "given" if self.template else "own" if own else "plain"
        words = sorted((re.escape(word) for word in special_tokens(self.tokenizer).values()), key=len, reverse=True)
        self._special = re.compile("|".join(words)) if words else None
        self._default: str | None = None  # not known yet
        self._as_text: bool | None = None  # how it wants arguments of calls: not known yet
        self._dropped: dict[bool | str, bool] = {}  # calls beside content, or alone; descriptions: asked once of each
        self._frames: dict[tuple[str, bool], tuple[str, str]] = {}
        written = self.template or own or PLAIN_TEMPLATE
        self._asks = "add_generation_prompt" in str(written)
        self._written = str(written.get("default") if isinstance(written, dict) else written)
        self._dated = None if "strftime_now" in self._written else False  # whether it writes the day: asked once

    def render_all(self, chats: Sequence[Chat], rows: Sequence[str | None]) -> list[Rendered]:
        """Return the texts and targets of some chats.

        Args:
            chats: each with at least one assistant's turn.
            rows: where each is in the source, for sentences.

        Raises:
            DataError: the template refuses one, or renders earlier turns otherwise once later ones follow.
        """
        parsed = [self._argued(json.loads(chat.text)) for chat in chats]
        plain = [index for index, whole in enumerate(parsed) if not whole.get("tools")]
        try:
            texts = self._filled([parsed[index]["messages"] for index in plain], None, False)
        except Exception:  # noqa: BLE001 - one of them; which, and why, is found in turn
            texts = []
        known = dict(zip(plain, texts, strict=False))
        return [
            self._rendered(chat, whole["messages"], whole.get("tools"), row, known.get(index))
            for index, (chat, whole, row) in enumerate(zip(chats, parsed, rows, strict=True))
        ]

    def answers(self, chat: Chat) -> list[int]:
        """Return the indices of the messages that are trained, ascending; where all is, those of the assistant."""
        whole = self._argued(json.loads(chat.text))
        return self._answers(chat, whole["messages"], whole.get("tools"))

    def _argued(self, whole: dict[str, Any]) -> dict[str, Any]:
        """Return a parsed chat with the arguments of its calls as the template wants them."""
        messages, tools = whole["messages"], whole.get("tools")
        if not any(turn.get("tool_calls") for turn in messages):
            return whole
        if self._as_text is None:
            self._as_text = takes_text(lambda some: self._filled([some], tools, False)[0], messages)
        return {**whole, "messages": with_arguments(messages, self._as_text)}

    def _answers(self, chat: Chat, messages: list[dict[str, Any]], tools: Any) -> list[int]:
        found = [
            index
            for index, turn in enumerate(messages)
            if is_answer(turn)
            and index >= chat.given
            and (turn["content"] or not self._drops_calls(messages, tools, index))
        ]
        return found[-1:] if chat.train_on == "last" else found

    def _rendered(
        self, chat: Chat, messages: list[dict[str, Any]], tools: Any, row: str | None, whole: str | None
    ) -> Rendered:
        """Return one chat's text, where it is not rendered yet, and its targets."""
        whole = self._text(messages, tools, False, row) if whole is None else whole
        sly = self._note(messages, tools, whole, row)
        answers = self._answers(chat, messages, tools)
        if not answers:
            raise DataError(
                f"{_where(row)}: the chat template leaves out all that would be trained, the calls of tools."
            )
        marked = self._marked(messages, tools)
        framed = None if sly or marked is not None else self._framed(messages, whole)
        if framed is not None:
            own: list[Span | None] = [framed[i] for i in answers]
        else:
            found = self._turn if marked is None else self._turn_or_none
            own = [found(messages, tools, whole, i, row) for i in answers]
            for i, span in zip(answers, own, strict=True):
                if span is not None and not sly:
                    self._learn(messages, whole, i, span)
        turns = [span for span in own if span is not None]
        if marked is not None:
            try:
                marked = self._finder(tools, row).wanted(messages, whole, answers, marked)
            except UnclearTurnError as error:
                raise DataError(f"{_where(row)}: {error}") from None
            if _bare(whole, marked) != _bare(whole, turns):
                self._fact("the template's own marks and its turns differ; the marks are followed", row)
            turns = marked
        spans = [(0, len(whole))] if chat.train_on == "all" else turns
        if not spans:
            raise DataError(
                f"{_where(row)}: the chat template marks nothing of what would be trained as generated; accepted are a "
                "template whose generation marks stand around answers, or one without such marks."
            )
        return Rendered(whole, tuple(spans), tuple(turns))

    def _text(self, messages: list[Any], tools: Any, asking: bool, row: str | None) -> str:
        try:
            return self._filled([messages], tools, asking)[0]
        except Exception as error:  # noqa: BLE001 - a template is a program of its own: whatever it raises is the row's
            raise DataError(
                f"{_where(row)}: the chat template cannot be filled ({first_line(error).rstrip('.')})."
            ) from None

    def _filled(self, chats: list[list[Any]], tools: Any, asking: bool, template: str | None = None) -> list[str]:
        """Return the template filled with each of some chats; raises whatever the template does."""
        return self.tokenizer.apply_chat_template(
            chats,
            tools=tools,
            chat_template=template or self.template or (PLAIN_TEMPLATE if self.source == "plain" else None),
            add_generation_prompt=asking,
            tokenize=False,
        )

    def _is_dated(self, messages: list[Any], tools: Any) -> bool:
        """Say whether a chat's text has the day on which the template is filled: it differs on days 1 and 2."""
        days = ("{% macro strftime_now(form) %}" + day + "{% endmacro %}" for day in "12")
        one, two = (self._filled([messages], tools, False, day + self._written) for day in days)
        return one != two

    def _finder(self, tools: Any, row: str | None) -> TurnFinder:
        return TurnFinder(lambda some, asking: self._text(some, tools, asking, row), self._special, self._asks)

    def _turn(self, messages: list[Any], tools: Any, whole: str, index: int, row: str | None) -> Span:
        """Return the characters an assistant's turn adds behind the generation prompt, its end-of-turn included."""
        try:
            return self._finder(tools, row).span(messages, whole, index)
        except UnclearTurnError as error:
            raise DataError(f"{_where(row)}: {error}") from None

    def _turn_or_none(self, messages: list[Any], tools: Any, whole: str, index: int, row: str | None) -> Span | None:
        """Return the same; None where it cannot be told, as where a template's own marks tell it."""
        try:
            return self._finder(tools, row).span(messages, whole, index)
        except UnclearTurnError:
            return None

    def _marked(self, messages: list[Any], tools: Any) -> list[Span] | None:
        """Return what the template marks as generated, a span per stretch; None where it marks nothing."""
        template = self.template or (PLAIN_TEMPLATE if self.source == "plain" else template_of(self.tokenizer))
        return marked_spans(self.tokenizer, messages, tools, template)

    def _learn(self, messages: list[Any], whole: str, index: int, span: Span) -> None:
        """Keep what stands around an answer, so that the next chats need not be rendered turn by turn."""
        start, end = span
        said, asked = messages[index]["content"], messages[index - 1]["content"] if index else ""
        at = whole.rfind(asked, 0, start) if asked else -1
        tail = whole[start + len(said) : end]
        if (
            at < 0
            or not said
            or not whole.startswith(said, start)
            or not (self._special and self._special.search(tail))
        ):
            return
        head = whole[at + len(asked) : start]
        if self._special.search(head):
            self._frames[_place(messages, index)] = head, tail

    def _framed(self, messages: list[Any], whole: str) -> dict[int, Span] | None:
        """Return the span of every answer by what stood around earlier ones; None where one of them is not there so.

        What stands around holds special tokens, which no message does here, so that nothing else can be taken for it.
        """
        found, behind = dict[int, Span](), 0
        for index, turn in enumerate(messages):
            if turn["role"] != "assistant":
                continue
            frame = self._frames.get(_place(messages, index))
            if frame is None or not turn["content"] or turn.get("tool_calls"):
                return None
            asked = messages[index - 1]["content"]
            at = whole.find(f"{asked}{frame[0]}{turn['content']}{frame[1]}", behind)
            if at < 0:
                return None
            start = at + len(asked) + len(frame[0])
            behind = start + len(turn["content"]) + len(frame[1])
            found[index] = start, behind
        return found

    def _note(self, messages: list[Any], tools: Any, whole: str, row: str | None) -> bool:
        """Note what of the messages the template left out, or added; say whether one holds a special token."""
        for turn in messages:
            if turn["content"].strip() and turn["content"].strip() not in whole:
                self._fact(f"the chat template leaves out, or changes, what the {turn['role']} says", row)
        if any(self._drops_calls(messages, tools, index) for index in range(len(messages))):
            self._fact("the chat template leaves out the calls of tools, which are then no targets", row)
        if tools and self._drops_tools(messages, tools):
            self._fact("the chat template leaves out the descriptions of tools", row)
        if self._dated is None:
            self._dated = self._is_dated(messages, tools)
        if self._dated:
            self._fact(
                "the chat template writes the day on which it is filled: on another day, as in a run that is resumed, "
                "the texts differ",
                row,
            )
        sly = self._special is not None and any(self._special.search(turn["content"]) for turn in messages)
        if sly:
            self._fact("a special token is written in a message, and read as that token", row)
        if messages[0]["role"] != "system":
            if self._default is None:
                self._default = self._default_system(messages, tools, whole)
            if self._default and self._default in whole:
                self._fact(f"the chat template adds the system prompt {self._default!r} to chats without one", row)
        return sly

    def _drops_calls(self, messages: list[dict[str, Any]], tools: Any, index: int) -> bool:
        """Tell whether the template leaves out the calls of tools of a turn, which may say something else too."""
        kind = bool(messages[index]["content"])
        if not messages[index].get("tool_calls"):
            return False
        if kind not in self._dropped:
            self._dropped[kind] = self._finder(tools, None).drops_calls(messages, index)
        return self._dropped[kind]

    def _drops_tools(self, messages: list[Any], tools: list[Any]) -> bool:
        """Tell whether the template leaves out descriptions of tools."""
        if "tools" not in self._dropped:
            try:
                text = self._text(messages, [called(tool) for tool in tools], False, None)
                self._dropped["tools"] = CALLED not in text
            except DataError:  # it refuses that name, so it reads names
                self._dropped["tools"] = False
        return self._dropped["tools"]

    def _default_system(self, messages: list[Any], tools: Any, whole: str) -> str:
        """Return the system prompt that the template adds where there is none; empty where it adds none."""
        try:
            asked = self._text([{"role": "system", "content": PROBE}, *messages], tools, False, None)
        except DataError:
            return ""
        head, found, tail = asked.partition(PROBE)
        if not found or not whole.startswith(head) or not whole.endswith(tail):
            return ""
        return whole[len(head) : len(whole) - len(tail)].strip()

    def _fact(self, words: str, row: str | None) -> None:
        known = self.facts.get(words)
        self.facts[words] = Fact(words, row, 1) if known is None else replace(known, count=known.count + 1)


def _place(messages: list[Any], index: int) -> tuple[str, bool]:
    """Return what the frame of an answer may hang on: who spoke before, and whether it is the last turn."""
    return messages[index - 1]["role"] if index else "", index == len(messages) - 1


def _where(row: str | None) -> str:
    return (row or "a chat").capitalize()


def template_of(tokenizer: Any) -> str | dict[str, str] | None:
    """Return a tokenizer's own chat template; None where it has none."""
    return getattr(tokenizer, "chat_template", None) or None


def special_tokens(tokenizer: Any) -> dict[int, str]:
    """Return id and text of every special token: those with a name, such as end-of-text, and those that were added."""
    named = dict(zip(tokenizer.all_special_ids, map(str, tokenizer.all_special_tokens), strict=True))
    added = {index: str(token.content) for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    return {index: word for index, word in (named | added).items() if word.strip()}


def _bare(text: str, spans: list[Span]) -> list[Span]:
    """Return spans without blanks at their ends, which templates put here or there."""
    found = []
    for start, end in spans:
        inside = text[start:end]
        found.append((start + len(inside) - len(inside.lstrip()), end - len(inside) + len(inside.rstrip())))
    return found
