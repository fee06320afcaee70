"""How facts are edited into windows of blocks: the settings; no torch."""

from dataclasses import dataclass

from lsf.analysis.settings import check_settings, setting
from lsf.errors import BadInputError

OWN = ("width", "stride", "r", "steps", "learning_rate", "batch_size", "seed")
"""Fields of the settings: all of them are options of `edit`."""


@dataclass(frozen=True)
class EditSettings:
    """How the windows are laid and tuned."""

    width: int = setting(4, "blocks of a window", low=1, high=10_000)
    stride: int = setting(2, "blocks between the starts of two windows", low=1, high=10_000)
    r: int = setting(8, "rank of LoRA on the MLP's maps: the same count of values in every window", low=1, high=65_536)
    steps: int = setting(100, "optimizer steps per window", low=1, high=1_000_000)
    learning_rate: float | None = setting(
        None, "AdamW's peak rate; default: LoRA's own on a window of the model", low=1e-8, high=1.0
    )
    batch_size: int = setting(16, "examples per step", low=1, high=65_536)
    seed: int = setting(0, "of data order and of LoRA's start", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Refuse what is out of range, naming the field."""
        check_settings(self)

    def windows(self, n_blocks: int) -> tuple[tuple[int, ...], ...]:
        """Return the blocks of each window; the last one ends at the last block.

        Raises:
            BadInputError: the window is wider than the model is deep.
        """
        if self.width > n_blocks:
            raise BadInputError(f"width is {self.width}; the model has {n_blocks} blocks, so 1 to {n_blocks} fit.")
        last = n_blocks - self.width
        starts = sorted({*range(0, last + 1, self.stride), last})
        return tuple(tuple(range(start, start + self.width)) for start in starts)
