"""Where tokens and turns lie in a text: the characters that each token stands for, and those of a turn of a chat.

A turn is seen by filling the template with parts of the chat and with other words. This imports nothing of LSF:
exported scripts hold it as it stands (lsf/export/script.py).
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

TEXTS_AT_ONCE = 128
"""Texts handed to the tokenizer at a time."""


@dataclass(frozen=True)
class Text:
    """A text as the tokenizer reads it, its own start tokens included and its own end tokens left out."""

    ids: list[int]
    """Token ids."""
    spans: list[tuple[int, int]] | None
    """Characters of each token, [start, end), (0, 0) of an added start token; None where the tokenizer knows none."""


class Same(dict[int, int]):
    """Gives equal ids as one object."""

    def __missing__(self, key: int) -> int:
        """Keep the first of its kind."""
        self[key] = key
        return key


def tokenised(tokenizer: Any, texts: Sequence[str], special: bool = True, one: Same | None = None) -> Iterator[Text]:
    """Yield each text as token ids with their characters; a part of them at a time: what a tokenizer returns is large.

    Equal ids are one object: a tokenizer makes a new one, four times the size of its place in a row, for every token.
    """
    one = Same() if one is None else one
    fast = bool(tokenizer.is_fast)
    for start in range(0, len(texts), TEXTS_AT_ONCE):
        found = tokenizer(
            list(texts[start : start + TEXTS_AT_ONCE]),
            return_special_tokens_mask=special or not fast,
            return_attention_mask=False,
            return_token_type_ids=False,
            add_special_tokens=special,
            return_offsets_mapping=fast,
            verbose=False,
        )
        for place, ids in enumerate(found["input_ids"]):
            added = found["special_tokens_mask"][place] if special or not fast else None
            first, last = (0, len(ids)) if added is None else _inside(ids, added)
            spans = found["offset_mapping"][place] if fast else None
            if spans is not None and (first or last < len(ids)):
                spans = [(0, 0)] * first + spans[first:last]
            skipped = first if ids[:first] == ids[first : 2 * first] else 0  # the text begins with them already
            kept = list(map(one.__getitem__, ids[skipped:last]))
            yield Text(kept, spans[skipped:] if spans and skipped else spans)


def _inside(ids: Sequence[int], added: Sequence[int]) -> tuple[int, int]:
    """Return where the tokens of the text itself begin and end, between those that the tokenizer adds."""
    first = next((place for place, mark in enumerate(added) if not mark), len(ids))
    last = len(ids)
    while last > first and added[last - 1]:
        last -= 1
    return first, last


Span = tuple[int, int]
"""[start, end), in characters or tokens."""
PROBE = "\ue000system\ue001"
"""Words that no text holds."""
CALLED = "zq_called_qz"
"""Name of a tool by which it is seen whether, and where, a template writes calls and descriptions."""
OPEN = re.compile(r"[<\[][^>\]\s]*$")
"""A tag at the end of a text that is not closed in it."""
MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")
"""By which a template says that it marks what is generated."""


class UnclearTurnError(Exception):
    """The template does not show where a turn lies; its words say why, and what is accepted, behind the row's name."""


@dataclass(frozen=True)
class TurnFinder:
    """Finds the turns of chats with the same tools in what one template writes."""

    fill: Callable[[list[Any], bool], str]
    """(messages, whether it is asked for an answer) -> the template filled with them; raises what the template does."""
    special: re.Pattern[str] | None
    """Matches the special tokens, of which one ends a turn; None where there are none."""
    asks: bool
    """Whether the template knows a generation prompt."""

    def span(self, messages: list[Any], whole: str, index: int) -> Span:
        """Return the characters an assistant's turn adds behind the generation prompt, its end-of-turn included.

        Args:
            messages: all of the chat.
            whole: the template filled with them.
            index: of the turn.

        Raises:
            UnclearTurnError: it cannot be told.
            Exception: what `fill` raises where the template refuses the messages up to there.
        """
        start = self._start(messages, whole, index) if index else self._opening(messages, whole)
        until, said = self._until(messages, whole, index)
        said = self._said(messages[: index + 1], until, start) if said is None else said
        if not self.asks and messages[index]["content"].strip():  # what it writes ahead of an answer is no target
            start = max(start, said[0])
        found = self.special.search(until, max(start, said[1])) if self.special else None
        end = found.end() if found else len(until.rstrip())
        if end <= start:
            raise _rewritten(messages, index)
        return start, end

    def wanted(self, messages: list[Any], whole: str, answers: list[int], marked: list[Span]) -> list[Span]:
        """Return those of a template's own marks that stand around the answers to be learned; it marks all of them.

        Args:
            messages: all of the chat.
            whole: the template filled with them.
            answers: indices of those to be learned, ascending; at least one.
            marked: of `marked_spans`.

        Raises:
            UnclearTurnError: where another answer lies cannot be told.
        """
        for index in range(answers[0] + 1, len(messages)):
            if messages[index]["role"] == "assistant" and index not in answers:
                start, end = self.span(messages, whole, index)
                marked = [span for span in marked if span[1] <= start or span[0] >= end]
        try:
            first = self.span(messages, whole, answers[0])[0]
        except UnclearTurnError:
            first = marked[-len(answers) :][0][0] if marked else 0
        return [span for span in marked if span[1] > first]

    def drops_calls(self, messages: list[Any], index: int) -> bool:
        """Tell whether the template leaves out the calls of tools of a turn.

        The tools' own names do not tell: `color` stands in many a text.
        """
        turn = {**messages[index], "tool_calls": [called(call) for call in messages[index]["tool_calls"]]}
        try:
            return CALLED not in self.fill([*messages[:index], turn, *messages[index + 1 :]], False)
        except Exception:  # noqa: BLE001 - it refuses that name, so it reads names
            return False

    def _start(self, messages: list[Any], whole: str, index: int) -> int:
        """Return where a turn begins: behind the generation prompt, or behind what of it stands in the whole text.

        A prompt may open a tag (DeepSeek-R1's `<think>`) which the template does not write ahead of an answer.
        """
        before = self.fill(messages[:index], True)
        if whole.startswith(before):
            return len(before)
        told = self.fill(messages[:index], False)
        if not before.startswith(told):
            raise _rewritten(messages, index)
        asked = before[len(told) :]
        if not whole.startswith(told):
            return self._behind_prompt(messages, whole, index, asked)
        shared = _shared(whole[len(told) :], asked)
        if not asked[len(shared) :].lstrip().startswith(("<", "[")):
            raise UnclearTurnError(
                f"the chat template begins message {index + 1} otherwise than its generation prompt, so that its "
                "target cannot be told; accepted is a template with generation marks."
            )
        return len(told) + len(shared)

    def _behind_prompt(self, messages: list[Any], whole: str, index: int, asked: str) -> int:
        """Return where a turn begins whose chat is written otherwise up to it: behind the prompt nearest to its words.

        Of two answers in a row Qwen3's template writes the first with an empty think block while it is the last turn,
        and without once the other follows. The prompt stands between what both say, or the turn cannot be told.

        Args:
            messages: all of the chat.
            whole: the template filled with them.
            index: of the turn.
            asked: the generation prompt.
        """
        here, ahead = (self._written(messages, whole, place) for place in (index, index - 1))
        at = whole.rfind(asked, ahead[1], here[0]) if asked and here and ahead else -1
        if at < 0:
            raise _rewritten(messages, index)
        return at + len(asked)

    def _opening(self, messages: list[Any], whole: str) -> int:
        """Return how much the template writes before a first turn that is the assistant's, such as its system prompt.

        There are no messages to ask behind, which templates refuse: the generation prompt is what asking once more
        behind the whole chat adds, and ends where it stands first.
        """
        asked = self.fill(messages, True)
        prompt = asked[len(whole) :] if asked.startswith(whole) else ""
        at = whole.find(prompt) if prompt else -1
        if at >= 0:
            return at + len(prompt)
        said = messages[0]["content"].strip()
        written = self._written(messages, whole, 0) if said and whole.count(said) > 1 else None
        return written[0] if written else max(whole.find(said), 0)

    def _until(self, messages: list[Any], whole: str, index: int) -> tuple[str, Span | None]:
        """Return the whole text up to where a turn ends, or a little further, and what it says where that was found.

        A template may write a turn otherwise once others follow (Qwen3's puts an empty think block before the last
        one), so that a beginning which both share says nothing: what was said has to be found in both, and what stands
        behind it alike is the turn's own.
        """
        if index + 1 == len(messages):
            return whole, None
        last = self.fill(messages[: index + 1], False)
        if whole.startswith(last):
            return last, None
        here, there = self._written(messages, whole, index), self._written(messages[: index + 1], last, index)
        if here is None or there is None:
            raise _rewritten(messages, index)
        tail, last_tail = whole[here[1] :], last[there[1] :]
        behind = len(_shared(tail, last_tail))
        own, other = (self.special.search(text) if self.special else None for text in (tail, last_tail))
        if own and other and own[0] != other[0] and own.start() == other.start() <= behind:
            # Two tokens in one place: the earlier turn's own end, unless it begins the next one.
            asked, unasked = (self.fill(messages[: max(index, 1)], ask) for ask in (True, False))
            user = next((turn["content"] for turn in messages if turn["role"] == "user"), "")
            begins = own[0] in asked[len(_common(asked, unasked)) :]
            if not begins and self.special and not self.special.match(tail[own.end() :].lstrip()):
                begins = own[0] in whole[: whole.find(user)]
            behind = behind if begins else own.end()
        return whole[: here[1] + behind], here

    def _said(self, messages: list[Any], text: str, start: int) -> Span:
        """Return where a chat's text, from `start` on, has what its last turn says; [start, start) where it has not.

        What stands there once needs no second look; a short answer may stand in the template's own words too.
        """
        turn = messages[-1]
        texts = [part for part in (turn["content"].strip(), *map(_name, turn.get("tool_calls") or [])) if part]
        written = None
        if any(text.count(part, start) > 1 for part in texts):
            written = self._written(messages, text, len(messages) - 1)
        places = [(at, at + len(part)) for part in texts if (at := text.find(part, start)) >= 0]
        begun, end = (places[0][0], max(end for _, end in places)) if places else (start, start)
        if written is None or written[0] < start:
            return begun, end
        return (begun, written[1]) if turn.get("tool_calls") else written

    def _written(self, messages: list[Any], text: str, index: int) -> Span | None:
        """Return where a chat's text has what a turn says, or its calls' names; None where that cannot be seen.

        It is seen by filling the template once more, with other words in their place.
        """
        turn = messages[index]
        names = [_name(call) for call in turn.get("tool_calls") or []]
        other = {"tool_calls": [called(call) for call in turn["tool_calls"]]} if names else {"content": PROBE}
        try:
            asked = self.fill([*messages[:index], {**turn, **other}, *messages[index + 1 :]], False)
        except Exception:  # noqa: BLE001 - a template is a program of its own
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


def marked_spans(tokenizer: Any, messages: list[Any], tools: Any, template: Any) -> list[Span] | None:
    """Return what a template marks as generated, a span per stretch; None where it knows no marks."""
    if not isinstance(template, str) or not MARK.search(template):
        return None
    from transformers.utils.chat_template_utils import render_jinja_template  # noqa: PLC0415 - not without need

    _, found = render_jinja_template(
        conversations=[messages], tools=tools, chat_template=template, return_assistant_tokens_mask=True,
        **tokenizer.special_tokens_map,
    )  # fmt: skip
    return [(int(start), int(end)) for start, end in found[0] if end > start]


def takes_text(fill: Callable[[list[Any]], str], messages: list[Any]) -> bool:
    """Say whether a template wants what a call's arguments are as JSON text: it refuses objects, or writes Python's.

    Args:
        fill: the template filled with messages; raises what it does.
        messages: of a chat with calls.
    """
    as_objects = with_arguments(messages, False)
    try:
        text = fill(as_objects)
    except Exception:  # noqa: BLE001 - a template is a program of its own
        return True
    given = (_arguments(call) for turn in as_objects for call in turn.get("tool_calls") or [])
    return any(bool(one) and str(one) in text for one in given if isinstance(one, dict))


def with_arguments(messages: list[Any], as_text: bool) -> list[Any]:
    """Return messages whose calls have their arguments as JSON text, as OpenAI's files do, or as the objects in it."""
    return [
        {**turn, "tool_calls": [_with_arguments(call, as_text) for call in turn["tool_calls"]]}
        if turn.get("tool_calls")
        else turn
        for turn in messages
    ]


def _with_arguments(call: Any, as_text: bool) -> Any:
    given = found = _arguments(call)
    if as_text and isinstance(given, dict):
        found = json.dumps(given, ensure_ascii=False)
    elif not as_text and isinstance(given, str):
        try:
            found = json.loads(given)
        except (ValueError, RecursionError):
            return call
    if found is given or not isinstance(found, str if as_text else dict):
        return call
    if "function" in call:
        return {**call, "function": {**call["function"], "arguments": found}}
    return {**call, "arguments": found}


def _arguments(call: Any) -> Any:
    held = call.get("function", call) if isinstance(call, dict) else None
    return held.get("arguments") if isinstance(held, dict) else None


def called(one: Any) -> Any:
    """Return a tool's description or call by another name, which no text holds."""
    if not isinstance(one, dict):
        return one
    return {**one, "function": {**one["function"], "name": CALLED}} if "function" in one else {**one, "name": CALLED}


def _name(call: Any) -> str:
    """Return the name of what a call calls; empty where it has none."""
    return str(call.get("function", call).get("name", "")) if isinstance(call, dict) else ""


def _rewritten(messages: list[Any], index: int) -> UnclearTurnError:
    """Return the error of a turn that a template writes otherwise in the whole chat than at its end."""
    accepted = "training on the last turn alone, or a template with generation marks"
    if not any(turn["role"] == "assistant" for turn in messages[index + 1 :]):
        accepted = "a template with generation marks"
    return UnclearTurnError(
        f"the chat template writes message {index + 1}, or what comes before it, otherwise once more messages follow, "
        f"so that its target cannot be told; accepted {'are' if 'alone' in accepted else 'is'} {accepted}."
    )


def _shared(one: str, other: str) -> str:
    """Return the longest beginning that two texts share, without a tag such as `<|im_` that is not closed in it."""
    return other if one.startswith(other) else OPEN.sub("", _common(one, other))


def _common(one: str, other: str) -> str:
    """Return the longest beginning that two texts share."""
    low, high = 0, min(len(one), len(other))
    while low < high:  # by halves: comparing slices is fast
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[low:middle] == other[low:middle] else (low, middle - 1)
    return one[:low]
