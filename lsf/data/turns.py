"""Turns of a chat as people write them down, made one: roles, contents, tool calls; what cannot be one is refused."""

import json
from collections.abc import Mapping
from typing import Any

from lsf.errors import DataError

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
