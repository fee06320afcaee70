"""What an example may be besides two texts: a chat, segments, token ids, a document; and how data is to be read.

Turns of a chat as people write them down are made one here: roles, contents, tool calls; what cannot be one is refused.
At the end, the answer that stands somewhere in a text: by a pattern with one group, or as the last number.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from decimal import Decimal
from typing import Any

from lsf.errors import BadInputError, DataError
from lsf.settings import check_settings, setting

PAIRS = ("auto", "chat", "raw")
"""How a text pair reaches the model."""
TRAIN_ON = ("assistant", "last", "all")
"""Which turns of a chat are targets."""


@dataclass(frozen=True)
class DataOptions:
    """How rows are recognised and handed to the model; `--help`, specs and results are made of these fields."""

    format: str = setting("auto", "format of the rows; auto = recognised by their columns (python -m lsf data --help)")
    pairs: str = setting(
        "auto", "text pairs as a user's and an assistant's turn, or raw; auto = chat where the model has a template",
        choices=PAIRS,
    )  # fmt: skip
    train_on: str = setting("assistant", "which turns of a chat are targets", choices=TRAIN_ON)
    chat_template: str | None = setting(None, "the text of a Jinja chat template in place of the model's own")
    max_rows: int | None = setting(
        None, "rows of each split at most, drawn at random where there are more; default: all", low=1, high=10**9
    )

    def __post_init__(self) -> None:
        """Refuse a word that is none of the choices."""
        check_settings(self)


DEFAULTS = DataOptions()
"""As it is recognised, and as most want it."""
OPTIONS = tuple(item.name for item in fields(DataOptions))
"""Names of the options, which specs hold under the same names."""


def options_in(record: Any) -> DataOptions:
    """Return the options a spec, or parsed arguments, hold under the same names; what is None or lacks is default."""
    given = {name: getattr(record, name, None) for name in OPTIONS}
    return DataOptions(**{name: value for name, value in given.items() if value is not None})


def read_chat_template(name: str, content: bytes) -> str:
    """Return the text of a chat template's file.

    Raises:
        DataError: it is no text, or an empty one.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{name} is no text in UTF-8; a Jinja chat template was expected.") from None
    if not text.strip():
        raise DataError(f"{name} is empty; a Jinja chat template was expected.")
    return text


@dataclass(frozen=True)
class Chat:
    """Turns that become one text by a chat template; kept as JSON, which is small, hashable, and in order."""

    text: str
    """JSON object with `messages` (role, content, tool_calls) and, where there are any, `tools`."""
    given: int = 0
    """Messages at the beginning that are never targets."""
    train_on: str = "assistant"
    """Of `TRAIN_ON`."""
    template: str | None = None
    """Text of a Jinja template; None for the tokenizer's own."""
    pair: bool = False
    """True where it came as two texts, which a model without a template reads raw."""

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The turns, parsed anew at each call."""
        return json.loads(self.text)["messages"]

    @property
    def tools(self) -> list[Any] | None:
        """What the template is told of tools; None where there are none."""
        return json.loads(self.text).get("tools")


@dataclass(frozen=True)
class Segments:
    """Texts in a row, some of them targets; joined as they stand, then tokenised once."""

    parts: tuple[tuple[bool, str], ...]
    """(is a target, text)."""


@dataclass(frozen=True)
class Tokens:
    """Token ids with labels, as they are."""

    ids: tuple[int, ...]
    """Token ids."""
    labels: tuple[int, ...]
    """The id itself where it is a target, -100 elsewhere."""


@dataclass(frozen=True)
class Document:
    """A text every token of which is a target; cut into windows of the context."""

    text: str
    """As it stands."""
    goes_on: bool = field(default=False, compare=False, repr=False)
    """Whether it is a piece of a text that goes on behind it, so that no end-of-text stands there."""


Content = Chat | Segments | Tokens | Document
KINDS: Mapping[str, type] = {"chat": Chat, "segments": Segments, "tokens": Tokens, "document": Document}
"""Word for a kind of content -> its record."""
RAW = "raw"
"""Word for two texts that no model reads as a chat, which have no content."""


def make_chat(
    messages: Sequence[Mapping[str, Any]], options: DataOptions, tools: Any = None, given: int = 0, pair: bool = False
) -> Chat:
    """Return a chat of messages that were checked.

    Args:
        messages: role, content and what else the template may ask for; plain JSON values.
        options: which turns are targets, and by which template.
        tools: as the template takes them.
        given: messages that are never targets.
        pair: whether it came as two texts that may be read raw too.
    """
    whole = {"messages": list(messages), **({"tools": tools} if tools else {})}
    text = json.dumps(whole, ensure_ascii=False, separators=(",", ":"))
    return Chat(text, given, options.train_on, options.chat_template, pair)


def content_to_json(content: Content | None) -> dict[str, Any]:
    """Return a content as plain JSON values, from which `content_from_json` makes the same again."""
    if content is None:
        return {"kind": RAW}
    kind = next(word for word, record in KINDS.items() if isinstance(content, record))
    parts = asdict(content)
    if not parts.get("goes_on", True):
        del parts["goes_on"]
    return {"kind": kind, **parts}


def content_from_json(value: Any) -> Content | None:
    """Return the content that `content_to_json` wrote.

    Raises:
        DataError: it wrote nothing like this.
    """
    try:
        if value["kind"] == RAW:
            return None
        kind, known = KINDS[value["kind"]], {name: part for name, part in value.items() if name != "kind"}
        frozen = {name: _frozen(part) for name, part in known.items() if part is not None}
        return kind(**frozen)
    except (KeyError, TypeError):
        raise DataError("the column 'content' was not written by LSF.") from None


def _frozen(value: Any) -> Any:
    return tuple(_frozen(part) for part in value) if isinstance(value, list | tuple) else value


ROLES: Mapping[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "bing": "assistant", "bard": "assistant",
    "model": "assistant", "bot": "assistant", "ai": "assistant", "function_call": "assistant", "tool_call": "assistant",
    "tool": "tool", "observation": "tool", "function": "tool", "function_response": "tool", "tool_response": "tool",
    "ipython": "tool",
}  # fmt: skip
"""A role, or who a ShareGPT turn is `from`, in small letters -> the role that chat templates know."""
CALLS = ("function_call", "tool_call")
"""Roles whose content is a call of a tool."""
WANTED = "a list of messages was expected, each with role and content"


def read_turns(value: Any, column: str) -> tuple[list[dict[str, Any]], bool]:
    """Return messages as chat templates take them, and whether they came as a JSON string.

    Args:
        value: a list of objects with `role` and `content`, or with `from` and `value`; or a JSON string of one.
        column: where it stands, for the error sentence.

    Raises:
        DataError: it is no such list, a role is unknown, or a turn says nothing.
    """
    parsed, was_text = parsed_json(value) if isinstance(value, str) else (value, False)
    if not isinstance(parsed, list) or not all(isinstance(turn, Mapping) for turn in parsed):
        what = "text" if isinstance(value, str) else type(value).__name__
        raise DataError(f"the column {column!r} holds {what}; {WANTED}.")
    if not parsed:
        raise DataError(f"the column {column!r} holds no message; {WANTED}.")
    return [_turn(turn, number, column) for number, turn in enumerate(parsed, 1)], was_text


def parsed_json(text: str) -> tuple[Any, bool]:
    """Return what a JSON string holds, and True; the text itself, and False, where it is no JSON."""
    try:
        return json.loads(text), True
    except (ValueError, RecursionError):
        return text, False


def read_tools(value: Any) -> list[Any] | None:
    """Return descriptions of tools as templates take them: objects, or one parsed from a JSON string; None for none.

    Raises:
        DataError: no list of objects.
    """
    if isinstance(value, str):
        value = parsed_json(value)[0] if value.strip() else None
    if value is None or value == []:
        return None
    if not isinstance(value, list):
        raise DataError("the column 'tools' holds no list; a list of tools was expected, each a JSON object.")
    return [parsed_json(tool)[0] if isinstance(tool, str) else tool for tool in value]


def is_answer(turn: Mapping[str, Any]) -> bool:
    """Tell whether a turn may be a target: the assistant's, unless its weight is 0, as OpenAI's files have it."""
    return turn["role"] == "assistant" and turn.get("weight") != 0


def needs_answer(turns: list[dict[str, Any]], given: int = 0) -> None:
    """Refuse a chat in which the assistant says nothing that could be trained.

    Args:
        turns: of `read_turns`.
        given: turns that are never targets.

    Raises:
        DataError: with the roles there are.
    """
    if not any(is_answer(turn) for turn in turns[given:]):
        roles = ", ".join(dict.fromkeys(turn["role"] for turn in turns[given:])) or "none"
        why = "all have the weight 0" if "assistant" in roles else f"its roles are: {roles}"
        raise DataError(f"it has no assistant's turn to train on ({why}).")


def shown_turns(turns: list[dict[str, Any]]) -> tuple[str, str]:
    """Return a chat as two texts for people: what comes before the last assistant's turn, and that turn."""
    last = max(index for index, turn in enumerate(turns) if is_answer(turn))
    before = "\n".join(f"{turn['role']}: {_shown(turn)}" for turn in turns[:last])
    return before, _shown(turns[last])


def _shown(turn: Mapping[str, Any]) -> str:
    calls = turn.get("tool_calls")
    return turn["content"] or (json.dumps(calls, ensure_ascii=False) if calls else "")


def _turn(turn: Mapping[str, Any], number: int, column: str) -> dict[str, Any]:
    where = f"message {number} of the column {column!r}"
    role, content = _first(turn, "role", "from"), _first(turn, "content", "value")
    if role is None:
        raise DataError(f"{where} has no role; its keys are: {', '.join(map(str, turn))}.")
    word = str(role).strip().lower()
    if word not in ROLES:
        known = ", ".join(ROLES)
        raise DataError(f"{where} has the role {str(role)!r}; accepted are: {known}.")
    text, calls = _text(content, where), _list(turn.get("tool_calls"))
    if not calls and isinstance(turn.get("function_call"), Mapping):  # as OpenAI had it before tools
        calls = [{"type": "function", "function": dict(turn["function_call"])}]
    others = {
        key: value
        for key, value in turn.items()
        if key not in ("role", "from", "content", "value", "tool_calls", "function_call") and value is not None
    }
    if others.get("weight", 1) not in (0, 1):
        raise DataError(f"{where} has the weight {others['weight']!r}; 0 or 1 was expected.")
    if word in CALLS:
        calls, text = [_call(text or "", where)], ""
    if text is None and not calls:
        raise DataError(f"{where} has no content; text was expected.")
    if ROLES[word] == "assistant" and not calls and not (text or "").strip():
        raise DataError(f"{where} is an assistant's turn without content or tool calls; one of them was expected.")
    return {"role": ROLES[word], "content": text or "", **({"tool_calls": calls} if calls else {}), **others}


def _first(turn: Mapping[str, Any], *keys: str) -> Any:
    return next((turn[key] for key in keys if turn.get(key) is not None), None)


def _list(value: Any) -> list[Any]:
    found = parsed_json(value)[0] if isinstance(value, str) else value
    return found if isinstance(found, list) else []


def _text(content: Any, where: str) -> str | None:
    """Return a turn's content as text: as it stands, a number as it is written, parts of text joined."""
    if content is None or isinstance(content, str):
        return content
    if isinstance(content, bool | int | float):
        return str(content)
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, Mapping) else part for part in content]
        texts = [part for part in parts if isinstance(part, str)]
        if len(texts) == len(parts):
            return "".join(texts)
        raise DataError(f"{where} holds parts that are not text; only text can be trained on.")
    raise DataError(f"{where} has a content of the kind {type(content).__name__}; text was expected.")


def _call(text: str, where: str) -> dict[str, Any]:
    """Return a ShareGPT function call as templates take one."""
    found = parsed_json(text)[0]
    if not isinstance(found, Mapping) or not isinstance(found.get("name"), str):
        raise DataError(f"{where} is a function call that is not a JSON object with name and arguments.")
    arguments = found.get("arguments", {})
    arguments = parsed_json(arguments)[0] if isinstance(arguments, str) else arguments
    return {"type": "function", "function": {"name": found["name"], "arguments": arguments}}


LAST_NUMBER = "last-number"
"""In the place of a pattern: the last number, as its value: without commas between thousands and zeros at the end."""
_NUMBER = re.compile(r"(?<!\w)-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?!\d)")
MARKED, MARKED_END = "#### (.+)", re.compile(r"\n#### [^\n]+\s*$")
"""The pattern of answers that stand behind `#### ` in the last line, as GSM8K's do; and how they are told."""


def check_pattern(pattern: str | None) -> None:
    """Refuse what is neither a regular expression with one group nor `last-number`; None is no pattern.

    Raises:
        BadInputError: with what would be accepted.
    """
    if pattern in (None, LAST_NUMBER):
        return
    try:
        groups, why = re.compile(pattern).groups, ""
    except re.error as error:
        groups, why = 0, f" ({error})"
    if groups != 1:
        raise BadInputError(
            f"answer_pattern is {pattern!r}{why}; accepted are {LAST_NUMBER} and a regular expression with one group "
            f"that is the answer, such as {MARKED!r}."
        )


def answer_in(text: str, pattern: str) -> str | None:
    """Return the answer in a text, without outer blanks: the first match's group; None where there is none."""
    if pattern == LAST_NUMBER:
        numbers = _NUMBER.findall(text)
        if not numbers:
            return None
        value = Decimal(numbers[-1].replace(",", "")).normalize()
        return f"{value:f}" if value else "0"
    found = re.search(pattern, text)
    return ((found and found[1]) or "").strip() or None


def suggested_pattern(completions: Iterable[str]) -> str | None:
    """Return the pattern that fits every one of some completions; None where none is known that does."""
    return MARKED if all(MARKED_END.search(text) for text in completions) else None
