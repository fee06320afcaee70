"""What an example may be besides two texts: a chat, segments, token ids, a document; and how data is to be read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from lsf.errors import DataError
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
