"""The answer that stands somewhere in a text: by a pattern with one group, or as the last number."""

import re
from collections.abc import Iterable

from lsf.errors import BadInputError

LAST_NUMBER = "last-number"
"""In the place of a pattern: the last number, without commas between thousands."""
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
        return numbers[-1].replace(",", "") if numbers else None
    found = re.search(pattern, text)
    return ((found and found[1]) or "").strip() or None


def suggested_pattern(completions: Iterable[str]) -> str | None:
    """Return the pattern that fits every one of some completions; None where none is known that does."""
    return MARKED if all(MARKED_END.search(text) for text in completions) else None
