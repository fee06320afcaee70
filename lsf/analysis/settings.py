"""How an analysis is made: the settings behind `analyze`'s options and the app's form."""

from dataclasses import dataclass, field, fields
from typing import Any

from lsf.axes import POSITIONS, READINGS, SPLITS, VIRTUALS
from lsf.errors import BadInputError

DEFAULT_CRITERIA = (
    "deviation",
    "deviation_growth",
    "law_headroom",
    "reduction",
    "block_influence",
    "gradient_norm",
    "relative_gradient",
    "alignment",
    "first",
    "last",
    "middle",
    "random",
)


def setting(default: Any, meaning: str, **limits: Any) -> Any:
    """Return a dataclass field that carries its one-sentence meaning and its limits.

    Args:
        default: of the field.
        meaning: for forms and `--help`.
        **limits: `low` and `high`, or `choices`; `auto`: what the command line's word auto means for it.
    """
    return field(default=default, metadata={"meaning": meaning, **limits})


def check_settings(record: Any) -> None:
    """Check every field of a settings record against its metadata; None means unset and is always allowed.

    Raises:
        BadInputError: one sentence with the field, the value and what would be accepted.
    """
    for item in fields(record):
        value, limits = getattr(record, item.name), item.metadata
        if value is None:
            continue
        choices = limits.get("choices")
        if choices and value not in choices:
            raise BadInputError(f"{item.name} is {value!r}; accepted are: {', '.join(choices)}.")
        if "low" in limits and not limits["low"] <= value <= limits["high"]:
            raise BadInputError(
                f"{item.name} is {value}; it must lie between {limits['low']:g} and {limits['high']:g}."
            )


@dataclass(frozen=True)
class AnalysisSettings:
    """What is measured, on how many examples, and how it is read."""

    limit: int | None = setting(
        200, "examples measured at most; auto = until the ranking settles", low=1, high=10_000_000
    )
    settle: bool = setting(False, "stop as soon as the ranking of the first forward criterion has settled")
    split: str = setting("auto", "which examples: train where the data has splits, else all", choices=SPLITS)
    positions: str = setting("first", "the first completion token, or all of them", choices=POSITIONS)
    reading: str = setting("lens", "a state after the final norm, or raw", choices=READINGS)
    virtual: str = setting("even", "the virtual transition's pace", choices=VIRTUALS)
    criteria: tuple[str, ...] = setting(DEFAULT_CRITERIA, "criteria to score, by name")
    batch_size: int = setting(16, "examples per forward pass", low=1, high=65_536)
    max_length: int | None = setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    seed: int = setting(0, "of the random control", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        check_settings(self)
