"""FORMATS: what rows may be, how each kind is recognised by its columns, and what it becomes."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from lsf.data import columns as by_name
from lsf.data.containers import GOES_ON
from lsf.data.contents import Document, Segments, Tokens, content_from_json, content_to_json
from lsf.data.converting import (
    Convert,
    Row,
    Work,
    cell_text,
    cell_turns,
    chat_example,
    from_archive,
    from_contents,
    from_tree,
    pair_example,
    turn_of,
)
from lsf.data.task import Example
from lsf.errors import BadInputError, DataError, LeftOutError
from lsf.registry import Registry
from lsf.wording import counted

Kinds = Mapping[str, str]
"""Column with a value -> text, list, number, truth or object."""


@dataclass(frozen=True)
class DataFormat:
    """One kind of rows."""

    name: str
    """Key in FORMATS, and word of `--format`."""
    label: str
    """What a person reads."""
    recognised: str
    """By which columns."""
    becomes: str
    """What the model gets, and what of it is a target."""
    example: Row
    """One row."""
    matches: Callable[[Kinds], bool]
    """Whether a row with these columns is of this kind."""
    convert: Convert
    """Makes an example of a row."""


def kinds_of(row: Row) -> dict[str, str]:
    """Return the kind of each value of a row that there is."""
    return {name: _kind(value) for name, value in row.items() if value is not None}


def _kind(value: Any) -> str:
    if type(value) is str:
        return "text"
    if hasattr(value, "tolist"):  # numpy's, as Parquet gives them
        value = value.tolist()
    if isinstance(value, str):
        return "text"
    if isinstance(value, bool):
        return "truth"
    if isinstance(value, int | float):
        return "number"
    return "list" if isinstance(value, list) else "object"


def example_line(example: Example, split: str | None = None) -> str:
    """Return an example as a line of a JSONL file, from which it is read again as it is, whatever the options."""
    row = {"prompt": example.prompt, "completion": example.completion, "split": split}
    given = {name: value for name, value in row.items() if value is not None}
    return json.dumps({**given, "content": content_to_json(example.content)}, ensure_ascii=False) + "\n"


def _from_bundle(row: Row, place: int, work: Work) -> Example:
    return Example(str(row["prompt"]), str(row["completion"]), place, content_from_json(row["content"]))


def _from_tokens(row: Row, place: int, work: Work) -> Example:
    ids, labels = row.get("input_ids"), row.get("labels")
    labels = ids if labels is None else labels
    for name, values in (("input_ids", ids), ("labels", labels)):
        if not isinstance(values, list) or not all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            raise DataError(f"the column {name!r} holds no list of whole numbers.")
    if len(ids) != len(labels):  # type: ignore[arg-type]
        raise DataError(f"input_ids has {counted(len(ids), 'number')} and labels {len(labels)}; as many were expected.")  # type: ignore[arg-type]
    odd = next((at for at, (one, label) in enumerate(zip(ids, labels, strict=True)) if label not in (-100, one)), None)  # type: ignore[arg-type]
    if odd is not None:
        raise DataError(f"labels has {labels[odd]} where input_ids has {ids[odd]}; -100 or the same was expected.")  # type: ignore[index]
    if all(label == -100 for label in labels[1:]):  # type: ignore[index]
        raise DataError("labels has no target: all that can be predicted is -100.")
    return Example("", f"{len(ids):,} token ids", place, Tokens(tuple(ids), tuple(labels)))  # type: ignore[arg-type]


def _from_segments(row: Row, place: int, work: Work) -> Example:
    found = row.get("segments")
    if not isinstance(found, list):
        raise DataError("the column 'segments' holds no list; a list of label and text was expected.")
    parts = []
    for number, part in enumerate(found, 1):
        if not isinstance(part, Mapping) or not isinstance(part.get("text"), str) or part.get("label") is None:
            raise DataError(f"segment {number} has no label and text; each needs both.")
        if (wanted := by_name.TRUTHS.get(str(part["label"]).strip().lower())) is None:
            raise DataError(f"segment {number} has the label {part['label']!r}; true or false was expected.")
        parts.append((wanted, part["text"]))
    if not any(wanted and text for wanted, text in parts):
        raise DataError("no segment is a target (label true).")
    last = max(index for index, (wanted, text) in enumerate(parts) if wanted and text)
    shown = "".join(text for _, text in parts[:last]), parts[last][1]
    return Example(*shown, place, Segments(tuple(parts)))


def _from_unpaired(row: Row, place: int, work: Work) -> Example | None:
    if row.get("label") is None:
        raise DataError(
            "the label is empty; true or false was expected, or a format that reads all as good (pairs, chat-pairs)."
        )
    if row["label"] not in (True, False):
        raise DataError(f"the label is {row['label']!r}; true or false was expected.")
    if not row["label"]:
        work.tally.note("left out, since their label is false; only answers marked as good are learned.")
        return None
    return _from_any_pair(row, place, work)


def _from_any_pair(row: Row, place: int, work: Work) -> Example:
    wrapped = "completion" in row and isinstance(row["completion"], list)
    return (_from_chat_pair if wrapped else _from_pair)(row, place, work)


def _from_pair(row: Row, place: int, work: Work) -> Example:
    texts = cell_text(row, "prompt", work), cell_text(row, "completion", work)
    return pair_example(*texts, place, work, system=_system(row, work))


def _system(row: Row, work: Work) -> str:
    found = next((said for name in by_name.SYSTEMS if (said := _optional(row, name))), "")
    if found:
        work.tally.note("the system prompt stands before what is asked; in a chat it is a turn of its own.")
    return found


def _from_chat_pair(row: Row, place: int, work: Work) -> Example:
    prompt = cell_turns(row, "prompt", work)
    return chat_example([*prompt, *cell_turns(row, "completion", work)], place, work, row.get("tools"), len(prompt))


def _from_preference(row: Row, place: int, work: Work) -> Example:
    work.tally.note("a preference, of which the chosen side is learned and the rejected one left out.")
    if isinstance(row.get("chosen"), list):
        chosen, prompt = cell_turns(row, "chosen", work), row.get("prompt")
        if isinstance(prompt, list):
            prompt = cell_turns(row, "prompt", work)
            return chat_example([*prompt, *chosen], place, work, row.get("tools"), len(prompt))
        if chosen[0]["role"] == "assistant" and prompt is not None:
            chosen = [{"role": "user", "content": cell_text(row, "prompt", work)}, *chosen]
        return chat_example(chosen, place, work, row.get("tools"), len(chosen) - 1)
    asked = next((name for name in ASKED if row.get(name) is not None), None)
    if asked is None:
        return _from_transcript(cell_text(row, "chosen", work), place, work)
    texts = cell_text(row, asked, work), cell_text(row, "chosen", work)
    return pair_example(*texts, place, work, system=_system(row, work))


ASKED = ("prompt", "question", "instruction", "query", "input")
"""What a preference may be about."""


def _from_transcript(text: str, place: int, work: Work) -> Example:
    """Return a chat that is written as one text, each turn behind `Human:` or `Assistant:`; the last is learned."""
    if (said := by_name.transcript(text)) is None:
        raise DataError(
            "it has chosen and no prompt; a column prompt was expected, or chosen as a list of messages or as turns "
            "of Human and Assistant."
        )
    work.tally.note("its turns are written Human: and Assistant: in one text; the last answer is learned.")
    turns, cut = said
    return pair_example(text[:cut], text[cut:], place, work, [turn_of(*turn) for turn in turns])


CHATS = ("messages", "conversations", "conversation")


def _from_chat(row: Row, place: int, work: Work) -> Example:
    column = next((name for name in CHATS if row.get(name) is not None), None)
    if column is None:
        raise DataError("the column 'messages' is null; a list of messages was expected.")
    turns = cell_turns(row, column, work)
    if row.get("system") and turns[0]["role"] != "system":
        turns = [{"role": "system", "content": cell_text(row, "system", work)}, *turns]
    return chat_example(turns, place, work, row.get("tools"))


def _from_alpaca(row: Row, place: int, work: Work) -> Example:
    asked, more = cell_text(row, "instruction", work), cell_text(row, "input", work, needed=False)
    answer, system = cell_text(row, "output", work), cell_text(row, "system", work, needed=False)
    earlier = row.get("history") or []
    if not isinstance(earlier, list) or not all(
        isinstance(turn, list) and len(turn) == 2 and None not in turn for turn in earlier
    ):
        raise DataError("the column 'history' holds no list of pairs of question and answer.")
    user = f"{asked}\n\n{more}" if more else asked
    turns = [{"role": "system", "content": system}] if system else []
    for question, reply in earlier:
        turns += [{"role": "user", "content": str(question)}, {"role": "assistant", "content": str(reply)}]
    turns += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    before = [system] if system else []
    before += [f"Instruction: {question}\nAnswer: {reply}" for question, reply in earlier]
    lines = [*before, f"Instruction: {asked}", *([f"Input: {more}"] if more else []), "Answer:"]
    return pair_example("\n".join(lines), f" {_without_blanks(answer, 'output')}", place, work, turns)


def _without_blanks(answer: str, column: str) -> str:
    """Return an answer that stands behind a blank of ours without outer ones of its own.

    Raises:
        LeftOutError: nothing else is in it.
    """
    if not answer.strip():
        raise LeftOutError(f"the {column} is empty")
    return answer.strip()


def _before_last(line: str, prompt: str) -> str:
    head, _, tail = prompt.rpartition("\n")
    return f"{head}\n{line}\n{tail}"


def _optional(row: Row, name: str) -> str:
    return row[name] if name in row and isinstance(dict(row)[name], str) else ""


def _from_known(row: Row, place: int, work: Work) -> Example:
    languages = by_name.translated(row)
    row = row if languages is None else languages
    kinds = dict.fromkeys(row, "none") | kinds_of(row)
    found = by_name.known_pair(kinds) if languages is None else by_name.spoken(row)
    if found is None:
        raise DataError("no known format has these columns; give a prompt and a completion template.")
    prompt = found.prompt
    values = {
        name: cell_text(row, name, work) for name in found.columns if name not in (found.answer, *by_name.CHOICES)
    }
    answer, more = by_name.plain_answer(row.get(found.answer), found.answer)
    if more:
        work.tally.note(more)
    for name in by_name.CONTEXTS:
        if name not in found.columns and (said := _optional(row, name)):
            values[name], prompt = said, f"{{{name}}}\n{prompt}"
    if "instruction" in found.columns and (said := _optional(row, "input")):
        values["input"], prompt = said, _before_last("Input: {input}", prompt)
    if found.answer in by_name.ANSWERS:
        choices = by_name.choices_of(row)
        texts = (_optional(row, name) for name in by_name.CHOICES)
        written = by_name.lettered(choices[1]) if choices else next(filter(None, texts), "")
        if written:
            values["choices"], prompt = written, _before_last("{choices}", prompt)
        if choices and answer not in (None, ""):
            answer = by_name.letter_of(answer, *choices)
            work.tally.note("the choices are written with letters, and the letter of the right one is the answer.")
    values[found.answer] = _without_blanks(cell_text({found.answer: answer}, found.answer, work), found.answer)
    asked = [name for name in values if name != found.answer]
    user = f"{{{asked[0]}}}" if len(asked) == 1 else prompt.rpartition("\n")[0]
    work.tally.note(
        f"prompt {prompt!r} and completion {found.completion!r} are suggested for the columns {', '.join(values)} (in "
        f"a chat, the user says {user!r}); other templates can be given."
    )
    turns = [turn_of("user", user.format(**values)), turn_of("assistant", values[found.answer])]
    texts = prompt.format(**values), found.completion.format(**values)
    return pair_example(*texts, place, work, turns, _system(row, work))


TEXTS = ("text", "content")


def _from_text(row: Row, place: int, work: Work) -> Example:
    column = next((name for name in TEXTS if row.get(name)), "text")
    text = cell_text(row, column, work)
    if "### Human:" in text and "### Assistant:" in text:
        work.tally.note("turns (### Human:, ### Assistant:) stand in the text, and all of them are trained.")
    return Example("", text, place, Document(text, GOES_ON in row))


_ASKED, _SAID = turn_of("user", "What is green?"), turn_of("assistant", "The lamp.")
FORMATS: Registry[DataFormat] = Registry(
    "data format",
    (
        DataFormat(
            "bundle", "rows written by LSF", "prompt, completion, content", "the example that was written",
            {"prompt": "a", "completion": " b", "content": {"kind": "document", "text": "a b"}},
            lambda kinds: kinds.keys() >= {"prompt", "completion"} and kinds.get("content") == "object", _from_bundle,
        ),
        DataFormat(
            "tokens", "token ids", "input_ids, and labels where there are any", "as they are; -100 is no target",
            {"input_ids": [3, 4, 5], "labels": [-100, 4, 5]},
            lambda kinds: kinds.get("input_ids") == "list", _from_tokens,
        ),
        DataFormat(
            "segments", "segments", "segments: a list of label and text", "one text; label true makes a target",
            {"segments": [{"label": False, "text": "2 + 2 ="}, {"label": True, "text": " 4"}]},
            lambda kinds: kinds.get("segments") == "list", _from_segments,
        ),
        DataFormat(
            "preference", "preference", "chosen and rejected", "the chosen side, as chat or as prompt and completion",
            {"prompt": "What is green?", "chosen": "The lamp.", "rejected": "Nothing."},
            lambda kinds: kinds.keys() >= {"chosen", "rejected"}, _from_preference,
        ),
        DataFormat(
            "unpaired", "unpaired preference", "prompt, completion, label true or false, or 1 or 0",
            "rows whose label is true",
            {"prompt": "What is green?", "completion": "The lamp.", "label": True},
            lambda kinds: kinds.keys() >= {"prompt", "completion"} and kinds.get("label") == "truth", _from_unpaired,
        ),
        DataFormat(
            "chat-pairs", "prompt and completion as messages", "prompt and completion, both lists of messages",
            "the chat template over both; the completion's assistant turns are targets",
            {"prompt": [_ASKED], "completion": [_SAID]},
            lambda kinds: kinds.get("prompt") == "list" and kinds.get("completion") == "list", _from_chat_pair,
        ),
        DataFormat(
            "pairs", "prompt and completion", "prompt and completion, both text",
            "one text, or a user's and an assistant's turn; the completion is the target",
            {"prompt": "The lamp is", "completion": " green"},
            lambda kinds: kinds.keys() >= {"prompt", "completion"}, _from_pair,
        ),
        DataFormat(
            "chat", "chat", "messages: role and content; tools", "the chat template; assistant turns are targets",
            {"messages": [_ASKED, _SAID]},
            lambda kinds: kinds.get("messages") in ("list", "text"), _from_chat,
        ),
        DataFormat(
            "sharegpt", "ShareGPT", "conversations: from and value; system, tools",
            "the same with roles mapped: human is user, gpt is assistant, observation is tool",
            {"conversations": [{"from": "human", "value": "What is green?"}, {"from": "gpt", "value": "The lamp."}]},
            lambda kinds: any(kinds.get(name) in ("list", "text") for name in CHATS[1:]), _from_chat,
        ),
        DataFormat(
            "oasst", "tree of replies", "prompt, or the row itself, with replies; or message_id, parent_id, role, text",
            "a chat of the best-ranked replies",
            {"prompt": {"role": "prompter", "text": "What is green?", "replies": [
                {"role": "assistant", "text": "The lamp.", "rank": 0.0, "replies": []},
            ]}},
            lambda kinds: kinds.get("prompt") == "object" or kinds.get("replies") == "list", from_tree,
        ),
        DataFormat(
            "chatgpt", "ChatGPT export", "mapping: nodes with message and parent; current_node",
            "a chat of the branch shown last, without tool messages",
            {"mapping": {
                "a": {"message": {"author": {"role": "user"}, "content": {"parts": ["What is green?"]}}},
                "b": {"message": {"author": {"role": "assistant"}, "content": {"parts": ["The lamp."]}}, "parent": "a"},
            }, "current_node": "b"},
            lambda kinds: kinds.get("mapping") == "object", from_archive,
        ),
        DataFormat(
            "gemini", "Gemini contents", "contents: role and parts; systemInstruction", "the same as chat",
            {"contents": [
                {"role": "user", "parts": [{"text": "What is green?"}]},
                {"role": "model", "parts": [{"text": "The lamp."}]},
            ]},
            lambda kinds: kinds.get("contents") == "list", from_contents,
        ),
        DataFormat(
            "alpaca", "Alpaca", "instruction and output; input, system, history",
            "turns where the model has a chat template, else prompt and completion",
            {"instruction": "Name the colour.", "input": "lamp", "output": "green"},
            lambda kinds: kinds.keys() >= {"instruction", "output"}, _from_alpaca,
        ),
        DataFormat(
            "known", "columns known by name", "question and answer, text and label, and the like",
            "prompt and completion by a suggested template, which is shown",
            {"question": "What is green?", "answer": "The lamp."},
            lambda kinds: by_name.known_pair(kinds) is not None, _from_known,
        ),
        DataFormat(
            "text", "plain text", "text, or a .txt or .md file", "windows of the context; every token is a target",
            {"text": "The lamp is green."},
            lambda kinds: any(kinds.get(name) == "text" for name in TEXTS), _from_text,
        ),
    ),
)  # fmt: skip
"""Every kind of rows, in the order in which they are tried."""


@lru_cache(maxsize=4096)
def recognise(kinds: tuple[tuple[str, str], ...]) -> str | None:
    """Return the name of the first format that a row with these columns and kinds is of; None where none is."""
    there = dict(kinds)
    return next((entry.name for entry in FORMATS.values() if entry.matches(there)), None)


def check_format(name: str) -> None:
    """Refuse a word of `--format` that is none.

    Raises:
        BadInputError: with the known ones.
    """
    if name != "auto" and name not in FORMATS:
        raise BadInputError(f"format is {name!r}; accepted are: auto, {', '.join(FORMATS)}.")
