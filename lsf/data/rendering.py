"""A chat as the text a model reads, and where its targets lie in it: by the template's own marks, else by its turns."""

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from lsf.data.contents import Chat
from lsf.data.turns import is_answer
from lsf.errors import DataError, first_line

Span = tuple[int, int]
"""[start, end), in characters or tokens."""
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
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
PROBE = "\ue000system\ue001"
OPEN = re.compile(r"[<\[][^>\]\s]*$")
"""A tag at the end of a text that is not closed in it."""
CALLED = "zq_called_qz"
"""Name of a tool by which it is seen whether a template writes calls and descriptions."""


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
        self._dropped: dict[bool | str, bool] = {}
        self._frames: dict[tuple[str, bool], tuple[str, str]] = {}
        self._asks = "add_generation_prompt" in str(self.template or own or PLAIN_TEMPLATE)

    def render_all(self, chats: Sequence[Chat], rows: Sequence[str | None]) -> list[Rendered]:
        """Return the texts and targets of some chats.

        Args:
            chats: each with at least one assistant's turn.
            rows: where each is in the source, for sentences.

        Raises:
            DataError: the template refuses one, or renders earlier turns otherwise once later ones follow.
        """
        parsed = [json.loads(chat.text) for chat in chats]
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

    def _rendered(
        self, chat: Chat, messages: list[dict[str, Any]], tools: Any, row: str | None, whole: str | None
    ) -> Rendered:
        """Return one chat's text, where it is not rendered yet, and its targets."""
        whole = self._text(messages, tools, False, row) if whole is None else whole
        sly = self._note(messages, tools, whole, row)
        answers = [
            index
            for index, turn in enumerate(messages)
            if is_answer(turn)
            and index >= chat.given
            and (turn["content"] or not self._drops_calls(messages, tools, index))
        ]
        if not answers:
            raise DataError(
                f"{_where(row)}: the chat template leaves out all that would be trained, the calls of tools."
            )
        if chat.train_on == "last":
            answers = answers[-1:]
        marked = self._marked(messages, tools, row)
        framed = None if sly or marked is not None else self._framed(messages, whole)
        if framed is not None:
            own: list[Span | None] = [framed[i] for i in answers]
        else:
            own = [self._turn(messages, tools, whole, i, row, marked is not None) for i in answers]
            for i, span in zip(answers, own, strict=True):
                if span is not None and not sly:
                    self._learn(messages, whole, i, span)
        turns = [span for span in own if span is not None]
        if marked is not None:
            for index in range(answers[0] + 1, len(messages)):  # answers that are not to be learned are marked too
                if messages[index]["role"] == "assistant" and index not in answers:
                    start, end = self._turn(messages, tools, whole, index, row, True) or self._refuse(index, row)
                    marked = [span for span in marked if span[1] <= start or span[0] >= end]
            first = own[0][0] if own[0] else marked[-len(answers) :][0][0] if marked else 0
            marked = [span for span in marked if span[1] > first]
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

    def _filled(self, chats: list[list[Any]], tools: Any, asking: bool) -> list[str]:
        """Return the template filled with each of some chats; raises whatever the template does."""
        return self.tokenizer.apply_chat_template(
            chats,
            tools=tools,
            chat_template=self.template or (PLAIN_TEMPLATE if self.source == "plain" else None),
            add_generation_prompt=asking,
            tokenize=False,
        )

    def _turn(
        self, messages: list[Any], tools: Any, whole: str, index: int, row: str | None, marked: bool
    ) -> Span | None:
        """Return the characters an assistant's turn adds behind the generation prompt, its end-of-turn included."""
        before = self._text(messages[:index], tools, True, row) if index else self._opening(messages, tools, whole, row)
        if not whole.startswith(before):
            return None if marked else self._refuse(index, row)
        found = self._until(messages, tools, whole, index, row)
        if found is None:
            return None if marked else self._refuse(index, row)
        (until, said), start = found, len(before)
        said = self._said(messages[: index + 1], tools, until, start) if said is None else said
        if not self._asks and messages[index]["content"].strip():  # what it writes ahead of an answer is no target
            start = max(start, said[0])
        end = self._end(until, start, max(start, said[1]))
        return (start, end) if end > start or marked else self._refuse(index, row)

    def _until(
        self, messages: list[Any], tools: Any, whole: str, index: int, row: str | None
    ) -> tuple[str, Span | None] | None:
        """Return the whole text up to where a turn ends, or a little further, and what it says where that was found.

        A template may write a turn otherwise once others follow (Qwen3's puts an empty think block before the last
        one), so that a beginning which both share says nothing: what was said has to be found in both, and what stands
        behind it alike is the turn's own. None where the template does not write what was said.
        """
        if index + 1 == len(messages):
            return whole, None
        alone = messages[: index + 1]
        last = self._text(alone, tools, False, row)
        if whole.startswith(last):
            return last, None
        here, there = self._written(messages, tools, whole, index), self._written(alone, tools, last, index)
        if here is None or there is None:
            return None
        tail, last_tail = whole[here[1] :], last[there[1] :]
        behind = len(_shared(tail, last_tail))
        own, other = (self._special.search(text) if self._special else None for text in (tail, last_tail))
        if own and other and own[0] != other[0] and own.start() == other.start() <= behind:
            # Two tokens in one place: the earlier turn's own end, unless it begins the next one.
            asked, unasked = (self._text(messages[: max(index, 1)], tools, ask, row) for ask in (True, False))
            user = next((turn["content"] for turn in messages if turn["role"] == "user"), "")
            begins = own[0] in asked[len(_common(asked, unasked)) :]
            if not begins and self._special and not self._special.match(tail[own.end() :].lstrip()):
                begins = own[0] in whole[: whole.find(user)]
            behind = behind if begins else own.end()
        return whole[: here[1] + behind], here

    def _said(self, messages: list[Any], tools: Any, text: str, start: int) -> Span:
        """Return where a chat's text, from `start` on, has what its last turn says; [start, start) where it has not.

        What stands there once needs no second look; a short answer may stand in the template's own words too.
        """
        turn = messages[-1]
        said = turn["content"].strip()
        texts = [part for part in (said, *map(_name, turn.get("tool_calls") or [])) if part]
        written = None
        if any(text.count(part, start) > 1 for part in texts):
            written = self._written(messages, tools, text, len(messages) - 1)
        places = [(at, at + len(part)) for part in texts if (at := text.find(part, start)) >= 0]
        begun, end = (places[0][0], max(end for _, end in places)) if places else (start, start)
        if written is None or written[0] < start:
            return begun, end
        return (begun, written[1]) if turn.get("tool_calls") else written

    def _written(self, messages: list[Any], tools: Any, text: str, index: int) -> Span | None:
        """Return where a chat's text has what a turn says, or its calls' names; None where that cannot be seen.

        It is seen by filling the template once more, with other words in their place.
        """
        turn = messages[index]
        names = [_name(call) for call in turn.get("tool_calls") or []]
        other = {"tool_calls": [_called(call) for call in turn["tool_calls"]]} if names else {"content": PROBE}
        try:
            asked = self._text([*messages[:index], {**turn, **other}, *messages[index + 1 :]], tools, False, None)
        except DataError:
            return None
        if not names:
            head, found, tail = asked.partition(PROBE)
            start, end = len(_common(text, head)), len(text) - len(tail)
            if not found or start > end or not text.endswith(tail):
                return None
            return end - len(text[start:end].lstrip()), end
        at, begun, parts = 0, 0, asked.split(CALLED)
        if len(parts) <= len(names):
            return None
        for part, name in zip(parts, names, strict=False):  # a later turn may name them too
            if not text.startswith(part + name, at):
                return None
            begun, at = begun or at + len(part), at + len(part) + len(name)
        return begun, at

    def _opening(self, messages: list[Any], tools: Any, whole: str, row: str | None) -> str:
        """Return what the template writes before a first turn that is the assistant's, such as its system prompt.

        There are no messages to ask behind, which templates refuse: the generation prompt is what asking once more
        behind the whole chat adds, and ends where it stands first.
        """
        asked = self._text(messages, tools, True, row)
        prompt = asked[len(whole) :] if asked.startswith(whole) else ""
        at = whole.find(prompt) if prompt else -1
        if at >= 0:
            return whole[: at + len(prompt)]
        said = messages[0]["content"].strip()
        written = self._written(messages, tools, whole, 0) if whole.count(said) > 1 and said else None
        return whole[: written[0] if written else max(whole.find(said), 0)]

    def _refuse(self, index: int, row: str | None) -> NoReturn:
        raise DataError(
            f"{_where(row)}: the chat template writes message {index + 1}, or what comes before it, otherwise once "
            "more messages follow, so that its target cannot be told; accepted are training on the last turn alone, or "
            "a template with generation marks."
        )

    def _end(self, until: str, start: int, behind: int) -> int:
        """Return where a turn ends: with the special token behind what it says, else with its last letter."""
        found = self._special.search(until, behind) if self._special else None
        return found.end() if found else max(start, len(until.rstrip()))

    def _marked(self, messages: list[Any], tools: Any, row: str | None) -> list[Span] | None:
        """Return what the template marks as generated, a span per stretch; None where it marks nothing."""
        template = self.template or (PLAIN_TEMPLATE if self.source == "plain" else template_of(self.tokenizer))
        if not isinstance(template, str) or not MARK.search(template):
            return None
        from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - not without need

        _, found = render_jinja_template(
            conversations=[messages], tools=tools, chat_template=template, return_assistant_tokens_mask=True,
            **self.tokenizer.special_tokens_map,
        )  # fmt: skip
        return [(int(start), int(end)) for start, end in found[0] if end > start]

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
        if tools and self._drops("tools", messages, [_called(tool) for tool in tools]):
            self._fact("the chat template leaves out the descriptions of tools", row)
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
        turn = messages[index]
        if not turn.get("tool_calls"):
            return False
        named = {**turn, "tool_calls": [_called(call) for call in turn["tool_calls"]]}
        return self._drops(bool(turn["content"]), [*messages[:index], named, *messages[index + 1 :]], tools)

    def _drops(self, kind: bool | str, messages: list[Any], tools: Any) -> bool:
        """Tell whether a template leaves out what is called CALLED; asked once of each kind.

        The tools' own names do not tell: `color` stands in many a text.
        """
        if kind not in self._dropped:
            try:
                self._dropped[kind] = CALLED not in self._text(messages, tools, False, None)
            except DataError:  # it refuses that name, so it reads names
                self._dropped[kind] = False
        return self._dropped[kind]

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


def _called(one: Any) -> Any:
    """Return a tool's description or call by another name, which no text holds."""
    if not isinstance(one, dict):
        return one
    return {**one, "function": {**one["function"], "name": CALLED}} if "function" in one else {**one, "name": CALLED}


def _where(row: str | None) -> str:
    return (row or "a chat").capitalize()


def _name(call: Any) -> str:
    """Return the name of what a call calls; empty where it has none."""
    return str(call.get("function", call).get("name", "")) if isinstance(call, dict) else ""


def _shared(one: str, other: str) -> str:
    """Return the longest beginning that two texts share, without a tag such as `<|im_` that is not closed in it."""
    return _common(one, other) if one.startswith(other) else OPEN.sub("", _common(one, other))


def _common(one: str, other: str) -> str:
    """Return the longest beginning that two texts share."""
    if one.startswith(other):
        return other
    return one[: next((at for at, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]), len(one))]


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
