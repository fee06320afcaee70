"""Counted nouns, as people write them: one step, two steps."""

_PLURALS = {"analysis": "analyses", "process": "processes", "study": "studies"}
"""Nouns whose plural is not made by an s."""


def counted(count: float, noun: str) -> str:
    """Write a number with its noun: `1 step`, `2 steps`, `1,234 rows`, `0 runs`, `1.5 epochs`, `1 other run`.

    Args:
        count: how many; one that is no whole number is written as it is.
        noun: in the singular; words before it stay as they are.
    """
    number = f"{count:,}" if isinstance(count, int) else f"{count:,.12g}"
    return f"{number} {plural(noun, count)}"


def plural(noun: str, count: float) -> str:
    """Return a noun in the number that goes with a count; words before it stay as they are."""
    if count == 1:
        return noun
    before, blank, last = noun.rpartition(" ")
    return f"{before}{blank}{_PLURALS.get(last, f'{last}s')}"
