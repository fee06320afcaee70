"""What is wrong with a run, and what makes runs less comparable than a table makes them look."""

from dataclasses import dataclass

from lsf.runs.result import RunResult

FORGETS = 1.0
"""Nats per token on the base model's own text beyond which a run has forgotten too much to stand for its choice."""
LOST = ("DivergedError", "NoRateError")
"""Failures by which the loss diverged."""
APART = 1.5
"""Factor beyond which a rate differs from the default enough for that to be offered."""
STEP = 3.0
"""Factor to the rate offered where the default itself was used."""
HARDLY = 0.1
"""Nats per token of forgetting below which a run that learned nothing hardly moved: its rate is too low rather than too
high."""
TOO_FEW = "below the floor, too few steps"
"""Of a run that beats the base model, which its rate has not wrecked."""


@dataclass(frozen=True)
class Fault:
    """Why a run's numbers do not stand for what it tunes."""

    words: str
    """In a few words, for its row: `diverged`, `below the floor`, `forgot 14.9 nats`, or `TOO_FEW`."""
    rate_to_try: float | None
    """AdamW's peak rate to try instead; None where the run's own is not known, or is not to blame."""


def fault_of(result: RunResult | None) -> Fault | None:
    """Return what is wrong with a run; None where nothing is, or where that is not known.

    Below the floor: the test loss is above the better of base model and prior, and exact match is not above theirs. In
    results before 2026-11-28, which have no prior, the base model alone is the floor. One that moved at about
    the default rate, forgot no more than it may, and beats the base model was on its way: it needs more steps.
    """
    if result is None:
        return None
    if result.failure in LOST:
        return Fault("diverged", _to_try(result, too_much=True))
    forgot = forgetting(result) or 0.0
    if is_below_floor(result) and HARDLY < forgot <= FORGETS and _is_near_default(result) and _beats_base(result):
        return Fault(TOO_FEW, None)
    words = ["below the floor"] if is_below_floor(result) else []
    words += [f"forgot {forgot:.1f} nats"] if forgot > FORGETS else []
    return Fault(", ".join(words), _to_try(result, too_much=forgot > HARDLY)) if words else None


def forgetting(result: RunResult) -> float | None:
    """Return what the loss on the base model's own text gained, in nats per token; None where it is not known."""
    before, after = result.before, result.after
    if before is None or after is None or before.general_loss is None or after.general_loss is None:
        return None
    return after.general_loss - before.general_loss


def floor_loss(result: RunResult) -> float | None:
    """Return the loss that counts as no gain, in nats per completion token; None where it is not known."""
    if result.floor is not None:
        return result.floor.loss
    return None if result.before is None else result.before.loss


def gain(result: RunResult) -> float | None:
    """Return how far the test loss ended below the floor, in nats per completion token; None where it is not known."""
    floor = floor_loss(result)
    return None if floor is None or result.after is None or result.after.loss is None else floor - result.after.loss


def is_below_floor(result: RunResult) -> bool:
    """Say whether a run is known to have ended below the floor, in loss and in exact match."""
    gained = gain(result)
    if gained is None or gained >= 0.0:
        return False
    before = result.before
    most = result.floor.exact_match if result.floor is not None else before.exact_match if before is not None else None
    exact = None if result.after is None else result.after.exact_match
    return most is None or exact is None or exact <= most


def _is_near_default(result: RunResult) -> bool:
    """Say whether a run's rate is about the default; True where either is not known."""
    own, default = result.learning_rate, result.default_rate
    return own is None or default is None or 1 / APART <= own / default <= APART


def _beats_base(result: RunResult) -> bool:
    before, after = (None if metrics is None else metrics.loss for metrics in (result.before, result.after))
    return before is not None and after is not None and after < before


def _to_try(result: RunResult, too_much: bool) -> float | None:
    """Return the default where the rate was another, else a third of it, or three times it where it hardly moved."""
    own, default = result.learning_rate, result.default_rate
    if own is None:
        return default
    if not _is_near_default(result):
        return default
    return float(f"{own / STEP if too_much else min(1.0, own * STEP):.2g}")
