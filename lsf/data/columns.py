"""Columns known by name: which are asked and which answered, what stands beside them, and what nested values say.

And templates over any columns: a prompt and a completion of a row's values, written by the user.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any, cast

from lsf.data.converting import Convert, Row, Work, pair_example
from lsf.data.rows import Table
from lsf.data.task import Example
from lsf.errors import DataError, LeftOutError


@dataclass(frozen=True)
class Pair:
    """What is suggested for some columns."""

    columns: tuple[str, ...]
    """All of them have to be there."""
    prompt: str
    """Template of the prompt."""
    completion: str
    """Template of the completion."""
    answer: str
    """The column that is learned."""


KNOWN: tuple[Pair, ...] = (
    Pair(("question", "answer"), "Question: {question}\nAnswer:", " {answer}", "answer"),
    Pair(("query", "response"), "Question: {query}\nAnswer:", " {response}", "response"),
    Pair(("question", "response"), "Question: {question}\nAnswer:", " {response}", "response"),
    Pair(("instruction", "response"), "Instruction: {instruction}\nAnswer:", " {response}", "response"),
    Pair(
        ("premise", "hypothesis", "label"), "Premise: {premise}\nHypothesis: {hypothesis}\nLabel:", " {label}", "label"
    ),
    Pair(("text", "label"), "Text: {text}\nLabel:", " {label}", "label"),
    Pair(("sentence", "label"), "Text: {sentence}\nLabel:", " {label}", "label"),
    Pair(("review", "sentiment"), "Text: {review}\nLabel:", " {sentiment}", "sentiment"),
    Pair(("document", "summary"), "Text: {document}\nSummary:", " {summary}", "summary"),
    Pair(("article", "highlights"), "Text: {article}\nSummary:", " {highlights}", "highlights"),
    Pair(("text", "summary"), "Text: {text}\nSummary:", " {summary}", "summary"),
    Pair(("source", "target"), "{source}\n", "{target}", "target"),
    Pair(("input", "output"), "{input}\n", "{output}", "output"),
    Pair(("question", "answers"), "Question: {question}\nAnswer:", " {answers}", "answers"),
    Pair(("question", "answerkey"), "Question: {question}\nAnswer:", " {answerkey}", "answerkey"),
    Pair(("prompt", "response"), "{prompt}\n", "{response}", "response"),
    Pair(("prompt", "answer"), "{prompt}\nAnswer:", " {answer}", "answer"),
    Pair(("problem", "solution"), "Problem: {problem}\nSolution:", " {solution}", "solution"),
    Pair(("problem", "answer"), "Problem: {problem}\nAnswer:", " {answer}", "answer"),
    Pair(("input", "target"), "{input}\n", "{target}", "target"),
    Pair(("inputs", "targets"), "{inputs}\n", "{targets}", "targets"),
    Pair(("dialogue", "summary"), "Dialogue: {dialogue}\nSummary:", " {summary}", "summary"),
    Pair(("title", "abstract"), "Title: {title}\nAbstract:", " {abstract}", "abstract"),
    Pair(
        ("sentence1", "sentence2", "label"), "Sentence 1: {sentence1}\nSentence 2: {sentence2}\nLabel:", " {label}",
        "label",
    ),
    Pair(("ctx", "endings", "label"), "{ctx}\nAnswer:", " {label}", "label"),
)  # fmt: skip
"""What is suggested, the first that fits."""
CONTEXTS = ("context", "passage")
"""Columns that stand before what is asked, where there are any."""
CHOICES = ("choices", "options", "endings")
"""Columns that hold what may be answered."""
LETTERS = "ABCDEFGHIJ"
CLASSIFIED = ("text", "sentence", "tweet", "review")
"""Columns of which a label says something."""
LABELS = ("label", "labels", "sentiment", "category", "class", "intent", "stars", "target")
"""Columns that are a label, where there is one of them."""
NAMES_OF_LABELS = ("label_text", "label_name")
"""Columns that are preferred to a number in `label`."""
ANSWERS = ("answer", "answerkey", "label", "response")
"""Columns that may be one of the choices."""
TRUTHS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}
SYSTEMS = ("system", "system_prompt")
"""Columns that hold a system prompt."""
LANGUAGES = frozenset(
    "ar bg cs da de el en es et fa fi fr he hi hu it ja ko lt lv nl no pl pt ro ru sk sl sv tr uk vi zh".split()
)


def known_pair(kinds: Mapping[str, str]) -> Pair | None:
    """Return what is suggested for columns of these kinds; None where they are not known by name."""
    if kinds.get("translation") == "object":
        return Pair(("translation",), "", "", "")
    named = next((name for name in NAMES_OF_LABELS if kinds.get(name) == "text"), None)
    if named and kinds.get("label", "none") in ("number", "none"):
        others = {key: kind for key, kind in kinds.items() if key not in NAMES_OF_LABELS}
        numbered = known_pair({**others, "label": "text"})
        if numbered is not None and numbered.answer == "label":
            columns = tuple(named if name == "label" else name for name in numbered.columns)
            return Pair(columns, numbered.prompt, f" {{{named}}}", named)
    found = next((pair for pair in KNOWN if kinds.keys() >= set(pair.columns)), None)
    if found is not None:
        return found
    labels = [name for name in LABELS if kinds.get(name, "object") != "object"]
    text = next((name for name in CLASSIFIED if kinds.get(name) in ("text", "none")), None)
    if text and len(labels) == 1:
        return _labelled(text, labels[0])
    languages = [name for name, kind in kinds.items() if name in LANGUAGES and kind in ("text", "none")]
    return spoken(languages) if len(languages) == 2 else None


def spoken(languages: Iterable[str]) -> Pair:
    """Return what is suggested for two languages: the first is translated into the second."""
    source, target = languages
    return Pair((source, target), f"{source}: {{{source}}}\n{target}:", f" {{{target}}}", target)


def translated(row: Row) -> Row | None:
    """Return the two languages that the column `translation` holds; None where there is no such column.

    Raises:
        DataError: they are not two.
    """
    held = row.get("translation")
    if not isinstance(held, Mapping):
        return None
    if len(held) != 2 or not all(name.replace("-", "_").isidentifier() for name in held):
        raise DataError("the column 'translation' does not hold two languages; source and target were expected.")
    return held


def _labelled(text: str, label: str) -> Pair:
    return Pair((text, label), f"Text: {{{text}}}\nLabel:", f" {{{label}}}", label)


SPEAKERS = re.compile(r"\n\n(Human|Assistant):")


def transcript(text: str) -> tuple[list[tuple[str, str]], int] | None:
    """Return the turns (role, content) of a text with `Human:` and `Assistant:`, and where its last answer begins.

    None where the text is written otherwise, or ends without an answer.
    """
    marks = list(SPEAKERS.finditer(text))
    if not marks or marks[-1][1] != "Assistant" or not text[marks[-1].end() :].strip():
        return None
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = [(roles[mark[1]], text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return turns, marks[-1].end()


def choices_of(row: Row) -> tuple[list[str], list[Any]] | None:
    """Return the names that a row's choices have in it, and these, texts or numbers; None where it has no choices.

    Choices are a list of texts, an object of letters and texts, an object of `text` and `label`, a list of objects of
    these, or columns called a, b, c and so on.
    """
    plain = dict(row)  # looking is no reading
    held = next((row[name] for name in CHOICES if isinstance(plain.get(name), list | Mapping)), None)
    if not held:
        named = [letter for letter in LETTERS if plain.get(letter.lower()) not in (None, "")]
        if named[:3] != ["A", "B", "C"]:
            return None
        return named, [row[letter.lower()] for letter in named]
    if isinstance(held, Mapping) and isinstance(held.get("text"), list):
        texts = held["text"]
        names = held["label"] if isinstance(held.get("label"), list) else LETTERS
    elif isinstance(held, Mapping):
        names, texts = list(held), list(held.values())
    elif isinstance(held, list) and all(isinstance(one, Mapping) and "text" in one for one in held):
        names, texts = [one.get("label", "") for one in held], [one["text"] for one in held]
    else:
        names, texts = LETTERS, held
    if not 2 <= len(texts) <= len(LETTERS) or any(text is None or isinstance(text, list | Mapping) for text in texts):
        raise DataError(f"its choices are not a list of 2 to {len(LETTERS)} texts.")
    return [str(name) for name in names][: len(texts)], list(texts)


def lettered(texts: list[Any]) -> str:
    """Return choices as lines, each with its letter."""
    return "\n".join(f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False))


def letter_of(answer: Any, names: list[str], choices: list[Any]) -> str:
    """Return the letter of an answer: the name of a choice, an index from 0 where none is called so, or its text.

    A number is the index of a text, whatever stands in it; beside choices that are numbers it may be one of them.

    Raises:
        DataError: it is none of the choices; it may be an index or a choice, and these differ.
    """
    said, texts = str(answer).strip(), [str(choice) for choice in choices]
    number = isinstance(answer, int) and not isinstance(answer, bool)
    index = int(said) if said.isdecimal() and int(said) < len(texts) and said not in names else None
    alike = (
        choice == answer and not isinstance(choice, bool) if number else text == said
        for choice, text in zip(choices, texts, strict=True)
    )
    place = next((place for place, same in enumerate(alike) if same), index)
    if index is not None and place != index:
        raise DataError(f"the answer {said!r} may be an index or the text of a choice; write its letter.")
    if number and place is not None and said not in names:
        return LETTERS[place]
    for known in (names, texts):
        if said in known:
            return LETTERS[known.index(said)]
    if said in LETTERS[: len(texts)]:
        return said
    if index is not None:
        return LETTERS[index]
    raise DataError(
        f"the answer {said!r} is none of its {len(texts)} choices; an index, a letter or a text was expected."
    )


def plain_answer(value: Any, column: str) -> tuple[Any, str]:
    """Return one answer of what a cell holds, and a sentence where it holds more.

    A list of labels is joined; of a list of answers the first is taken; an object gives its `text` or `value`, one
    without them stays what it is. Of a list without any it is an empty text.
    """
    if isinstance(value, Mapping) and any(key in value for key in ("text", "value")):
        held = [value[key] for key in ("text", "value") if value.get(key) is not None]
        value = next((one for one in held if one != []), held[0] if held else None)
    if not isinstance(value, list):
        return value, ""
    if any(isinstance(part, list | Mapping) for part in value):
        return value, ""
    if column in LABELS:
        words = [str(label) for label in value if label is not None]
        return ", ".join(words), f"the column {column!r} holds a list of labels, which are joined by commas."
    more = f"the column {column!r} holds several answers, of which the first is learned."
    return (value[0] if value else ""), more if len(dict.fromkeys(value)) > 1 else ""


def _value_at(row: Row, path: str) -> Any:
    """Return the value of a column, or one inside of it by a path of keys and places, such as `answers.text.0`.

    Raises:
        LeftOutError: it is a place in a list that is empty.
        DataError: nothing stands there.
    """
    if path in row:
        return row[path]
    name, *keys = path.split(".")
    value = cast("Any", row.get(name))
    for key in keys:
        try:
            value = value[int(key)] if isinstance(value, list) else value[key]
        except (KeyError, IndexError, ValueError, TypeError):
            if value == [] and key.isdigit():
                raise LeftOutError(f"the column {name!r} holds an empty list at {path!r}") from None
            raise DataError(f"the column {name!r} holds nothing at {path!r}.") from None
    return value


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Yield the paths of all texts inside of nested values."""
    inside = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        longer = f"{path}.{key}" if path else str(key)
        if path and isinstance(part, str):
            yield longer
        yield from paths(part, longer)


def _is_path(path: str, columns: list[str]) -> bool:
    """Say whether a name is a column, a dot, and keys or places inside of it."""
    name, *keys = path.split(".")
    return bool(keys) and name in columns and all(key and not key.startswith("_") for key in keys)


class Watched(dict[str, Any]):
    """A row that notes which of its columns are read."""

    def __init__(self, row: Row, read: set[str]) -> None:
        """Take over a row; `read` gets the columns."""
        super().__init__(row)
        self._read = read

    def __getitem__(self, name: str) -> Any:
        """Return a cell, and note its column."""
        self._read.add(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """Return a cell, and note its column; the default where there is none."""
        if name not in self:
            return default
        return self[name]


class NoLabel(str):
    """The empty text that stands where a class label is none; a cell that is written empty is another one."""


def says_truth(columns: Iterable[str], labels: Iterable[Any]) -> bool:
    """Say whether rows have a prompt, a completion and a label that is 1 for good ones and 0 for others, in all."""
    if not {"prompt", "completion", "label"} <= set(columns):
        return False
    plain = True
    for label in (label for label in labels if label is not None and not isinstance(label, NoLabel)):
        if str(label).strip().lower() not in TRUTHS:
            return False
        plain = plain and isinstance(label, bool)
    return not plain


def with_truth(row: Row) -> Row:
    """Return a row with true for the label 1, false for 0, and None for none."""
    label = row.get("label")
    if label is None or isinstance(label, NoLabel):
        return {**row, "label": None}
    return {**row, "label": TRUTHS[str(label).strip().lower()]}


def parse_template(template: str, columns: Iterable[str], option: str) -> tuple[tuple[str, str | None], ...]:
    """Split a template into literal texts and column names.

    Only `{column}` is understood (a column's name may hold spaces; `{{` and `}}` are braces), and `{column.key.0}` of
    nested values: no attribute, conversion or format is evaluated.

    Args:
        template: the text with columns in braces.
        columns: the columns there are.
        option: what the user calls it, for the error sentence.

    Returns:
        Pairs (literal text, column after it or None).

    Raises:
        DataError: an unknown column (the columns are listed), an unclosed brace, or an empty template.
    """
    known = list(columns)
    try:
        parts = tuple(
            (text, name if name is None else name + (f"!{conv}" if conv else "") + (f":{spec}" if spec else ""))
            for text, name, spec, conv in Formatter().parse(template)
        )
    except ValueError as error:
        raise DataError(f"{option} {template!r} cannot be read ({error}); write columns as {{column}}.") from None
    if not parts:
        raise DataError(f"{option} is empty; write a text with columns such as {{{known[0]}}}.")
    for _, name in parts:
        if name is not None and name not in known and not _is_path(name, known):
            raise DataError(f"{option} names the unknown column {name!r}; the columns are: {', '.join(known)}.")
    return parts


def fill_template(parts: tuple[tuple[str, str | None], ...], row: Mapping[str, object]) -> str:
    """Put one row's values into a parsed template; a missing value becomes an empty text.

    Raises:
        DataError: a value is no text and no number.
    """
    texts = []
    for text, name in parts:
        value = None if name is None else _value_at(row, name)
        if not (value is None or _is_text_or_number(value)):
            way = " Leave the template out where these are turns of a chat." if isinstance(value, list | tuple) else ""
            raise DataError(f"the column {name!r} holds a {type(value).__name__}; text or a number was expected.{way}")
        texts.append(text if value is None else f"{text}{value}")
    return "".join(texts)


def _is_text_or_number(value: object) -> bool:
    if isinstance(value, str | int | float | bytes):
        return not isinstance(value, bytes)
    import pandas as pd  # noqa: PLC0415 - a third of a second to import, and needed for dates and the like only

    return pd.api.types.is_scalar(value)


def by_templates(table: Table, prompt_template: str | None, completion_template: str | None) -> Convert:
    """Return what makes an example of a row by templates over the table's columns."""
    for option, template, column in (
        ("prompt template", prompt_template, "prompt"),
        ("completion template", completion_template, "completion"),
    ):
        if template is None and column not in table.columns:
            raise DataError(
                f"{table.name} has no column {column!r}; its columns are: {', '.join(table.columns)}. "
                f"Name the column {column!r}, or give a {option} over the columns there are."
            )
    asked = "{prompt}" if prompt_template is None else prompt_template
    given = "{completion}" if completion_template is None else completion_template
    prompt = parse_template(asked, table.columns, "The prompt template")
    completion = parse_template(given, table.columns, "The completion template")

    def convert(row: Row, place: int, work: Work) -> Example:
        texts = fill_template(prompt, row), fill_template(completion, row)
        templates = ("prompt", prompt_template), ("completion", completion_template)
        _check_filled("prompt", prompt, row)
        _check_filled("completion", completion, row)
        for text, (part, template) in zip(texts, templates, strict=True):
            # A column is taken as it stands, blanks included; a template needs what its columns hold.
            if not (text.strip() if template else text):
                raise LeftOutError(f"the {part} is empty")
        return pair_example(*texts, place, work)

    return convert


def _check_filled(part: str, parts: tuple[tuple[str, str | None], ...], row: Row) -> None:
    """Refuse a row in which a template stands without the text it is about.

    A completion needs every column it names, since the words around a missing one would be trained on; a prompt needs
    one of them, since an optional input is often empty. Blanks are a text, of a column that is taken as it stands.

    Raises:
        LeftOutError: naming the first column that holds an empty text.
        DataError: naming the first one that is null.
    """
    values = {name: _value_at(row, name) for _, name in parts if name is not None}
    alone = len(parts) == 1 and not parts[0][0]
    empty = [
        name for name, value in values.items() if value is None or not (str(value) if alone else str(value).strip())
    ]
    if not empty or (part == "prompt" and len(empty) < len(values)):
        return
    null = next((name for name in empty if values[name] is None), None)
    if null is not None:
        raise DataError(f"the {part} needs {null!r}, which is null; text or a number was expected.")
    if not alone:
        raise LeftOutError(f"the {part} is empty where its template names {empty[0]!r}")
