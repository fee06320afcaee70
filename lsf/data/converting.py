"""What every converter of rows works with: cells as texts and turns, examples of them, and what is told of rows.

And conversations as others export them: trees of replies (OASST), ChatGPT's archive, Gemini's contents, made turns.
"""

import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lsf.data.contents import DataOptions, make_chat, needs_answer, read_tools, read_turns, shown_turns
from lsf.data.rows import RowCollector, Table
from lsf.data.task import Example
from lsf.errors import DataError, LeftOutError
from lsf.wording import counted

Row = Mapping[str, Any]

NAMED = 3
"""Rows that are named where they are left out; the others are counted."""


@dataclass
class Tally:
    """What is counted while rows are converted, told in sentences at the end."""

    counts: Counter[str] = field(default_factory=Counter)
    """Sentence about rows -> how many of them."""
    read: set[str] = field(default_factory=set)
    """Columns that were read, in small letters."""
    left: dict[str, list[str]] = field(default_factory=dict)
    """Of those sentences, why rows are left out -> where the first of them are."""

    def note(self, sentence: str) -> None:
        """Count one more row of which a sentence is true."""
        self.counts[sentence] += 1

    def leave_out(self, why: str, where: str) -> None:
        """Count one more row that is left out, and keep where it is while there are few."""
        self.note(sentence := f"left out, since {why}")
        if len(places := self.left.setdefault(sentence, [])) < NAMED:
            places.append(where)

    def sentences(self) -> tuple[str, ...]:
        """Return each sentence with its rows, in the order they came up."""
        return tuple(self._counted(words) for words in self.counts)

    def reasons(self) -> str:
        """Return why rows are left out, with how many they are; empty where none is."""
        return " ".join(self._counted(words) for words in self.counts if words.startswith("left out"))

    def _counted(self, words: str) -> str:
        count, places = self.counts[words], self.left.get(words)
        more = f" and {count - NAMED:,} more" if count > NAMED else ""
        said = f"{words} ({', '.join(places)}{more})." if places else words
        return f"{counted(count, 'row')}: {said}"


@dataclass(frozen=True)
class Work:
    """What a converter has besides the row."""

    options: DataOptions
    """How rows are handed to the model."""
    tally: Tally
    """Where it tells what it did."""


Convert = Callable[[Row, int, Work], Example | None]
"""(row, its place, work) -> example; None where it is none that should be learned."""


def cell_text(row: Row, column: str, work: Work, needed: bool = True) -> str:
    """Return a cell as text; a number as it is written.

    Raises:
        LeftOutError: it is an empty text, and needed.
        DataError: it is neither text nor number; null where it is needed.
    """
    value = row.get(column)
    if value is None or value == "":
        if not needed:
            return ""
        if value is None:
            raise DataError(f"the {column} is null; text or a number was expected.")
        raise LeftOutError(f"the {column} is empty")
    if isinstance(value, list | dict | bytes):
        kind = type(value).__name__
        raise DataError(f"the column {column!r} holds a {kind}; text or a number was expected.")
    if isinstance(value, bool):
        work.tally.note(f"the column {column!r} holds true or false, which is written True or False.")
    elif not isinstance(value, str):
        work.tally.note(f"the column {column!r} holds a number, which is read as it is written.")
    return str(value)


def pair_example(
    prompt: str,
    completion: str,
    place: int,
    work: Work,
    turns: list[dict[str, Any]] | None = None,
    system: str = "",
) -> Example:
    """Return a text pair, which a model with a chat template reads as turns unless it is to be raw.

    Args:
        prompt: raw text before the target.
        completion: raw text of the target.
        place: row in the source.
        work: the options.
        turns: the same as a chat; None makes a user's turn and an assistant's of the two texts, without outer blanks.
        system: what is said before all of it, as a turn or as a line; "" for nothing.
    """
    before = prompt
    prompt = f"{system}\n{prompt}" if system else prompt
    if work.options.pairs == "raw":
        return Example(prompt, completion, place)
    if turns is None:
        texts = ("user", before.strip() or before), ("assistant", completion.strip() or completion)
        turns = [{"role": role, "content": text} for role, text in texts]
    turns = [turn_of("system", system), *turns] if system else turns
    pair = work.options.pairs == "auto" and work.options.chat_template is None
    return Example(prompt, completion, place, make_chat(turns, work.options, given=len(turns) - 1, pair=pair))


def chat_example(turns: list[dict[str, Any]], place: int, work: Work, tools: Any = None, given: int = 0) -> Example:
    """Return a chat as an example; the first `given` turns are never targets.

    Raises:
        DataError: there is no answer to learn, or `tools` are no list.
    """
    needs_answer(turns, given)
    return Example(*shown_turns(turns), place, make_chat(turns, work.options, read_tools(tools), given))


def cell_turns(row: Row, column: str, work: Work) -> list[dict[str, Any]]:
    """Return the messages of a cell.

    Raises:
        DataError: it holds no messages.
    """
    if row.get(column) is None:
        raise DataError(f"the column {column!r} is null; a list of messages was expected.")
    held = row[column]
    if (
        isinstance(held, list)
        and held
        and all(isinstance(one, Mapping) and {"input", "output"} <= set(one) for one in held)
    ):
        work.tally.note(f"the column {column!r} holds pairs of input and output, read as user and assistant.")
        held = [turn_of(*turn) for one in held for turn in (("user", one["input"]), ("assistant", one["output"]))]
    if isinstance(held, str) and held.lstrip().startswith("[{'"):
        raise DataError(f"the column {column!r} holds a list as Python writes it, which is no JSON; save it as JSONL.")
    turns, was_text = read_turns(held, column)
    if was_text:
        work.tally.note(f"the column {column!r} holds a JSON string, which was parsed.")
    return turns


def turn_of(role: str, content: str) -> dict[str, str]:
    """Return a message."""
    return {"role": role, "content": content}


Turns = list[dict[str, Any]]
MESSAGES = ("message_id", "parent_id", "role", "text")
"""Columns of rows that are a message each."""
UNANSWERED = "nobody answers in it"


def thread_of(tree: Mapping[str, Any]) -> tuple[Turns, int]:
    """Return the turns of the best replies of a tree, and how many other replies it has beside them.

    Args:
        tree: a message with `text`, `role` and `replies`, each again such a message; the best is that of least `rank`,
            and the first where none has one.

    Raises:
        LeftOutError: nobody answers.
    """
    turns, n_others, message = Turns(), 0, tree
    while message:
        turns.append({"role": message.get("role"), "content": message.get("text")})
        replies = _kept(message.get("replies") or [])
        n_others += max(0, len(replies) - 1)
        message = min(replies, key=_rank, default={})
    return _answered(turns), n_others


def _kept(replies: Any) -> list[Mapping[str, Any]]:
    if not isinstance(replies, list) or not all(isinstance(reply, Mapping) for reply in replies):
        raise DataError("its replies are no list of messages, each with text, role and replies.")
    return [reply for reply in replies if not reply.get("deleted")]


def _rank(message: Mapping[str, Any]) -> float:
    try:
        rank = float(message.get("rank") or 0)
    except (TypeError, ValueError):
        return math.inf
    return math.inf if message.get("rank") is None or math.isnan(rank) else rank


def _answered(turns: Turns) -> Turns:
    """Return turns up to the last answer.

    Raises:
        LeftOutError: there is none.
    """
    while turns and str(turns[-1]["role"]).lower() in ("prompter", "user"):
        turns.pop()
    if not any(str(turn["role"]).lower() == "assistant" for turn in turns):
        raise LeftOutError(UNANSWERED)
    return turns


def joined_messages(table: Table) -> Table:
    """Return rows that are a message each (OASST's `message_id` and `parent_id`) as chats of the best replies.

    Other tables are returned as they are. A chat has the place of its first message.
    """
    if not set(MESSAGES) <= set(table.columns):
        return table
    known = {row["message_id"]: index for index, row in enumerate(table.rows) if row.get("message_id") is not None}
    replies, starts = dict[int, list[int]](), list[int]()
    for index, row in enumerate(table.rows):
        parent = known.get(row.get("parent_id"))
        (starts if parent is None else replies.setdefault(parent, [])).append(index)
    chats, places, n_used = RowCollector[dict[str, Any]](not isinstance(table.rows, tuple)), array("q"), 0
    for start in starts:
        thread = list(_best(table, start, replies))
        turns = [{"role": row.get("role"), "content": row.get("text")} for row in thread]
        if str(turns[0]["role"]).lower() == "assistant":
            continue  # what was asked is not there
        try:
            turns = _answered(turns)
        except LeftOutError:
            continue
        chats.add({"messages": turns})
        places.append(table.places[start])
        n_used += len(turns)
    note = (
        f"{table.name} holds one message per row ({', '.join(MESSAGES[:2])}): {n_used:,} of {len(table.rows):,} are "
        f"joined into {counted(len(places), 'chat')}, each with the best-ranked replies; the others are left out."
    )
    return replace(table, columns=("messages",), rows=chats.rows(), places=places, notes=(*table.notes, note))


def _best(table: Table, start: int, replies: Mapping[int, list[int]]) -> Iterator[Mapping[str, Any]]:
    """Yield a message and the best reply to it, the best reply to that, and so on."""
    index: int | None = start
    while index is not None:
        yield table.rows[index]
        kept = [place for place in replies.get(index, ()) if not table.rows[place].get("deleted")]
        index = min(kept, key=lambda place: _rank(table.rows[place]), default=None)


def from_tree(row: Row, place: int, work: Work) -> Example:
    """Return a tree of replies, or what `joined_messages` made of one, as a chat."""
    if (joined := row.get("messages")) is not None:
        return chat_example(read_turns(joined, "messages")[0], place, work)
    inside = row.get("prompt")
    turns, n_others = thread_of(inside if isinstance(inside, Mapping) else row)
    if n_others:
        work.tally.note("the best-ranked replies are learned, and the others left out.")
    return chat_example(read_turns(turns, "replies")[0], place, work)


def from_archive(row: Row, place: int, work: Work) -> Example:
    """Return a conversation of ChatGPT's archive as a chat.

    It is what leads to `current_node`, or by the last children where that is no node. Messages of one side that follow
    each other are one turn.

    Raises:
        LeftOutError: nobody answers, or it shows what is no text.
        DataError: nodes that are no such objects, or are parents of each other.
    """
    mapping, current = row.get("mapping"), str(row.get("current_node"))
    nodes = {name: node for name, node in mapping.items() if node} if isinstance(mapping, Mapping) else {}
    if not nodes or not all(isinstance(node, Mapping) for node in nodes.values()):
        raise DataError("the column 'mapping' holds no objects with message and parent.")
    path, name = list[str](), current if current in nodes else _last(nodes)
    while name in nodes:
        if name in path:
            raise DataError("the column 'mapping' holds nodes that are parents of each other.")
        path.append(name)
        name = str(nodes[name].get("parent"))
    turns, lacks = Turns(), False
    for message in (_object(nodes[name], "message") for name in reversed(path)):
        role = _object(message, "author").get("role")
        hidden = _object(message, "metadata").get("is_visually_hidden_from_conversation")
        if hidden or role not in ("system", "user", "assistant") or message.get("recipient") not in (None, "all"):
            lacks = lacks or bool(message)
        elif not (text := _written(_object(message, "content"))):
            continue
        elif turns and turns[-1]["role"] == role:
            turns[-1]["content"] += f"\n\n{text}"
        else:
            turns.append(turn_of(role, text))
    if lacks:
        work.tally.note("messages from and to tools, and hidden ones, are left out of the chat.")
    return chat_example(_answered(turns), place, work)


def _object(holder: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = holder.get(key)
    return value if isinstance(value, Mapping) else {}


def _last(nodes: Mapping[str, Any]) -> str:
    """Return the node that is reached from the first one by always taking the last child."""
    name = next((name for name, node in nodes.items() if node.get("parent") not in nodes), next(iter(nodes)))
    for _ in nodes:
        children = [name_of for child in nodes[name].get("children") or () if (name_of := str(child)) in nodes]
        if not children:
            break
        name = children[-1]
    return name


def _written(content: Mapping[str, Any]) -> str:
    """Return the text of a message's content; empty where it is none that a person reads.

    Raises:
        LeftOutError: it shows an image or another file.
    """
    parts = content.get("parts")
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts or ()]
    if any(text is None and isinstance(part, Mapping) for text, part in zip(texts, parts or (), strict=True)):
        raise LeftOutError("it shows images or other files, which cannot be read")
    return "\n".join(str(text) for text in texts if text).strip()


def from_contents(row: Row, place: int, work: Work) -> Example:
    """Return Gemini's contents as a chat: `parts` are what is said, by the user where no role is given."""
    contents = row.get("contents")
    if not isinstance(contents, list) or not all(isinstance(one, Mapping) and "parts" in one for one in contents):
        raise DataError("the column 'contents' holds no list of objects with role and parts.")
    turns = [{"role": one.get("role") or "user", "content": one["parts"]} for one in contents]
    said = row.get("systeminstruction") or row.get("system_instruction")
    if said:
        turns = [{"role": "system", "content": said.get("parts") if isinstance(said, Mapping) else said}, *turns]
    return chat_example(read_turns(turns, "contents")[0], place, work)
