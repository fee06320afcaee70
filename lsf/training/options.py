"""The options of every tuning method: one small record each, from which forms, `--option` and saved specs are made.

No torch here: a spec is checked and a form is drawn without it.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lsf.analysis.settings import KINDS, check_kind, check_settings, setting
from lsf.errors import BadInputError

ADAPTER_KINDS = ("houlsby", "pfeiffer")
SCOPES = ("per_tensor", "global")
HIWI_FORMS = ("bias", "weight")
LORA_MAPS = ("all", "mlp")
PROJECTIONS = ("fastfood", "dense", "sparse")


@dataclass(frozen=True)
class NoOptions:
    """A method with nothing to choose."""


@dataclass(frozen=True)
class LoraOptions:
    """Low-rank updates."""

    r: int = setting(8, "rank of the update of each linear map", low=1, high=65_536)
    alpha: float = setting(16.0, "the update is scaled by alpha / r", low=1e-6, high=1e6)
    maps: str = setting("all", "which linear maps of a block: all, or those of its MLP", choices=LORA_MAPS)


@dataclass(frozen=True)
class AdapterOptions:
    """Bottlenecks between the frozen layers."""

    kind: str = setting(
        "houlsby", "houlsby: after attention and after the MLP; pfeiffer: after the MLP", choices=ADAPTER_KINDS
    )
    size: int | None = setting(
        None,
        "width of the bottleneck; default: 64 (houlsby), a 16th of the model's width (pfeiffer)",
        low=1,
        high=65_536,
    )


@dataclass(frozen=True)
class MaskOptions:
    """A sparse method that needs nothing but how much it tunes."""

    fraction: float = setting(0.005, "share of the planned blocks' values that is tuned", low=1e-9, high=1.0)


@dataclass(frozen=True)
class ScopedOptions(MaskOptions):
    """Values taken within each tensor or over all; the same for PaFi and for its controls, which are to be like it."""

    scope: str = setting(
        "per_tensor", "the share is taken within each tensor, or over all planned blocks at once", choices=SCOPES
    )


@dataclass(frozen=True)
class FishOptions(MaskOptions):
    """The values with the largest Fisher information."""

    examples: int = setting(1024, "training examples the information is estimated on, at most", low=1, high=1_000_000)


@dataclass(frozen=True)
class LotteryOptions:
    """The values that moved most in a first, dense tuning."""

    fraction: float = setting(0.01, "share of the planned blocks' values that is tuned", low=1e-9, high=1.0)
    first_steps: int = setting(100, "steps of the dense tuning that finds them", low=1, high=1_000_000)
    first_rate: float | None = setting(
        None, "peak rate of that dense tuning; default: full fine-tuning's own on the plan", low=1e-8, high=1.0
    )


@dataclass(frozen=True)
class HiwiOptions:
    """An adapter on a parameter instead of on a state."""

    form: str = setting(
        "weight", "what is adapted in the MLP: its weights, or its biases where it has some", choices=HIWI_FORMS
    )
    r: int = setting(16, "width of the adapter", low=1, high=65_536)


@dataclass(frozen=True)
class IntrinsicOptions:
    """A few numbers projected to all planned values."""

    d: int = setting(200, "how many numbers are tuned, said's one per block included", low=1, high=2**31 - 1)
    projection: str = setting("fastfood", "how they reach the planned values", choices=PROJECTIONS)


def read_given(method: str, record: type, given: Mapping[str, Any]) -> Any:
    """Build a method's options from JSON values.

    Args:
        method: its name, for errors.
        record: its options' dataclass.
        given: option -> value, only what differs from the defaults.

    Raises:
        BadInputError: an unknown option, a value of the wrong kind or out of range.
    """
    known = tuple(item.name for item in fields(record))
    for name in given:
        if name not in known:
            these = f"known are: {', '.join(known)}" if known else "it has none"
            raise BadInputError(f"The method {method} has no option {name!r}; {these}.")
    hints = typing.get_type_hints(record)
    try:
        for name, value in given.items():
            check_kind(name, value, hints[name])
        options = record(**given)
        check_settings(options)
    except BadInputError as error:
        raise BadInputError(f"The method {method}: {error}") from None
    return options


def read_pairs(method: str, record: type, pairs: list[str]) -> dict[str, Any]:
    """Read `name=value` texts of a command line as JSON values of a method's options.

    Raises:
        BadInputError: no `=`, an unknown option, or a value that is no number where one is expected.
    """
    hints = typing.get_type_hints(record)
    given: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise BadInputError(f"Cannot read the option {pair!r}; write it as name=value.")
        if name in given:
            raise BadInputError(f"The option {name} is given more than once; give each once.")
        kind = _kind(hints.get(name, str))
        try:
            given[name] = text if kind is str else kind(text)
        except ValueError:
            raise BadInputError(f"The method {method}: {name} is {text!r}; {KINDS[kind]} was expected.") from None
    read_given(method, record, given)
    return given


def _kind(hint: Any) -> type:
    return next(kind for kind in (typing.get_args(hint) or (hint,)) if kind is not type(None))
