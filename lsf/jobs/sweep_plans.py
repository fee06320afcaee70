"""Which plans a sweep measures: single blocks, suffixes, prefixes, windows, both ends; and in which order."""

from collections.abc import Sequence

from lsf.analysis.ends import both_ends
from lsf.errors import BadInputError

ACCEPTED = "single, suffix, prefix, window:K, ends:K, or several of them separated by commas"
Blocks = tuple[int, ...]


def plans_over(over: str, n_blocks: int) -> tuple[Blocks, ...]:
    """Return the blocks of every plan a sweep measures, each plan once.

    Plans come in ascending order of their lowest block: the states a deeper plan starts from are computed from those a
    shallower one left.

    Args:
        over: families of plans, such as `single,suffix,window:2,ends:2`.
        n_blocks: L of the model.

    Raises:
        BadInputError: an unknown family, or a window the model has no room for.
    """
    words = [word.strip() for word in over.split(",") if word.strip()]
    if not words:
        raise BadInputError(f"A sweep over {over!r} measures nothing; accepted are: {ACCEPTED}.")
    found = {blocks for word in words for blocks in _family(word, n_blocks)}
    return tuple(sorted(found, key=lambda blocks: (blocks[0], len(blocks))))


def _family(word: str, n_blocks: int) -> Sequence[Blocks]:
    every = range(n_blocks)
    kind, colon, size = word.partition(":")
    if word == "single":
        return [(block,) for block in every]
    if word == "suffix":
        return [tuple(every[block:]) for block in every]
    if word == "prefix":
        return [tuple(every[: block + 1]) for block in every]
    if kind == "ends" and size.isdecimal() and 2 <= int(size) <= n_blocks:
        return [both_ends(n_blocks, int(size))]
    if kind == "ends":
        raise BadInputError(f"Cannot sweep over {word!r}; both ends of this model take 2 to {n_blocks} blocks.")
    if kind != "window" or not colon:
        raise BadInputError(f"Cannot sweep over {word!r}; accepted are: {ACCEPTED}.")
    if not size.isdecimal() or not 1 <= int(size) <= n_blocks:
        raise BadInputError(f"Cannot sweep over {word!r}; a window takes 1 to {n_blocks} blocks of this model.")
    return [tuple(every[start : start + int(size)]) for start in range(n_blocks - int(size) + 1)]


def relative_cost(blocks: Blocks | None, n_blocks: int) -> float:
    """Return roughly what a run costs, for the time that is left: blocks passed forward, backward, and tuned.

    Args:
        blocks: tuned; None for the whole model.
        n_blocks: L of the model.
    """
    tuned = range(n_blocks) if blocks is None else blocks
    return 2.0 + 2.0 * (n_blocks - min(tuned)) + len(tuned)
