"""Growing samples: what the examples read first said of the blocks, recorded while a stream is read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Sample:
    """What the examples read first said of the blocks, before the others were read."""

    n_examples: int
    """Examples read until then."""
    scores: Mapping[str, tuple[float, ...]]
    """Criterion of the forward pass or of kernels -> its score per block from these examples alone, block 0 first."""
    halves: Mapping[str, float | None]
    """Criterion -> Kendall's tau between the rankings of two halves of them; None where it is unknown."""
    settled: Mapping[str, bool | None]
    """Criterion -> whether `--limit auto` would stop here; None where it does not look."""


def is_power_of_two(count: int) -> bool:
    """Say whether a number of batches is one after which it is asked whether the ranking has settled."""
    return count > 0 and count & (count - 1) == 0


def is_mark(count: int) -> bool:
    """Say whether a sample is recorded after so many batches: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    return is_power_of_two(count) or (count % 3 == 0 and is_power_of_two(count // 3))


def parse_sample(value: dict[str, Any]) -> Sample:
    """Build a `Sample` from JSON values.

    Raises:
        KeyError: its scores are missing.
        TypeError: another field is missing or unknown.
        AttributeError: its scores are no object.
    """
    return Sample(**{**value, "scores": {name: tuple(scores) for name, scores in value["scores"].items()}})
