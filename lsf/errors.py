"""What can go wrong for a user, one class per kind; each message is one sentence a user can act on.

Everything that is not an `LsfError` is a failure of ours and is allowed to crash loudly.
"""

from collections.abc import Iterable
from difflib import get_close_matches


class LsfError(Exception):
    """Base of every error that is explained to the user in one sentence."""


class BadInputError(LsfError, ValueError):
    """A value, option or setting that cannot be accepted; the message says which would be."""


class DataError(BadInputError):
    """A data file, row, column or template that cannot be used."""


class LeftOutError(DataError):
    """A row that holds nothing to learn, or not what was asked: it is left out, counted and named."""


class ModelError(BadInputError):
    """A model that cannot be found, loaded or read safely."""


class UnknownFamilyError(ModelError):
    """An architecture outside the families table."""


class SelfCheckError(ModelError):
    """The family's reading of the last state does not reproduce the model's own logits."""


class PlanError(BadInputError):
    """A plan or budget that does not fit the model."""


class RunError(LsfError, RuntimeError):
    """A run folder that is missing, incomplete, held by another process, or a run that failed."""


class NoRunError(BadInputError, RunError):
    """A folder that was named as a run and is none."""


class RunStateError(BadInputError, RunError):
    """A run of which something was asked that its state, its data or another process does not allow."""


class RunPausedError(RunError):
    """A run was asked to pause: it left a checkpoint and no result, and can be resumed."""


class StoppedError(LsfError, RuntimeError):
    """A stop was asked for before anything could be kept."""


class OutOfMemoryError(RunError, MemoryError):
    """The device's memory did not suffice; the message says for what, and what would be smaller."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence, after a blank, that offers the known name most like one that is not; empty where none is."""
    near = get_close_matches(name.lower(), {one.lower(): one for one in known}, n=1)
    return f" Did you mean {next(one for one in known if one.lower() == near[0])}?" if near else ""


def first_line(error: BaseException) -> str:
    """Return the first line of what an error says; empty where it says nothing."""
    return (str(error).splitlines() or [""])[0]


class UnknownNameError(BadInputError, KeyError):
    """A name that is not in a registry; the message lists the names that are."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        """Say what was asked for and what exists.

        Args:
            kind: what the registry holds, in the singular ("criterion").
            name: the name asked for.
            known: the names that exist, in their order.
        """
        self.sentence = f"Unknown {kind} {name!r}; known are: {', '.join(known)}."
        super().__init__(self.sentence)

    def __str__(self) -> str:
        """Return the sentence itself (KeyError would quote it)."""
        return self.sentence
