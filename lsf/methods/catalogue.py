"""The tuning methods as a person chooses among them: name, meaning, options; no torch."""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from lsf.errors import BadInputError
from lsf.registry import Registry
from lsf.settings import DTYPES, KINDS, QUANTISED, check_kind, check_settings, kinds_of, setting

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

    fraction: float = setting(0.005, "share of the planned blocks' parameters to tune", low=1e-9, high=1.0)


@dataclass(frozen=True)
class ScopedOptions(MaskOptions):
    """Values taken within each tensor or over all; the same for PaFi and for its controls, which are to be like it."""

    scope: str = setting(
        "per_tensor", "the share is taken within each tensor, or over all planned blocks at once", choices=SCOPES
    )


@dataclass(frozen=True)
class FishOptions(MaskOptions):
    """The values with the largest Fisher information."""

    examples: int = setting(1024, "training examples to estimate the information on, at most", low=1, high=1_000_000)


@dataclass(frozen=True)
class LotteryOptions:
    """The values that moved most in a first, dense tuning."""

    fraction: float = setting(0.01, "share of the planned blocks' parameters to tune", low=1e-9, high=1.0)
    first_steps: int = setting(100, "steps of the dense tuning that finds them", low=1, high=1_000_000)
    first_rate: float | None = setting(
        None, "peak learning rate of that tuning; default: full fine-tuning's own on the plan", low=1e-8, high=1.0
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

    d: int = setting(200, "how many numbers are tuned, including SAID's one per block", low=1, high=2**31 - 1)
    projection: str = setting("fastfood", "how they are projected to the planned parameters", choices=PROJECTIONS)


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
        kind = kinds_of(hints.get(name, str))[0]
        try:
            given[name] = text if kind is str else kind(text)
        except ValueError:
            raise BadInputError(f"The method {method}: {name} is {text!r}; {KINDS[kind]} was expected.") from None
    read_given(method, record, given)
    return given


@dataclass(frozen=True)
class MethodInfo:
    """A way to tune; it composes with every plan."""

    name: str
    """Key in CATALOGUE and METHODS."""
    label: str
    """What a person reads."""
    meaning: str
    """One sentence."""
    unit: str
    """What is counted as tuned."""
    source: str
    """Where it comes from."""
    options: type = NoOptions
    """Dataclass of its options."""
    merges: bool = True
    """Whether what it learned can be added into the base's own tensors, so that it costs nothing at inference."""
    over_quantised: bool = False
    """Whether it leaves the base's own matrices frozen, so that they may be held in 4 or 8 bits."""


CATALOGUE: Registry[MethodInfo] = Registry(
    "method",
    [
        MethodInfo(
            "full",
            "All weights",
            "Every tensor of the planned blocks is tuned; with all blocks and modules, that is full fine-tuning.",
            "parameters",
            "plain gradient descent; AdamW of Loshchilov & Hutter (arXiv 1711.05101)",
        ),
        MethodInfo(
            "lora",
            "LoRA",
            "Every linear map of the planned blocks gets a low-rank update beside its frozen weight.",
            "parameters of the low-rank factors",
            "Hu et al. 2021, arXiv 2106.09685; carried out by peft",
            LoraOptions,
            over_quantised=True,
        ),
        MethodInfo(
            "bitfit",
            "BitFit",
            "Only the biases of attention, MLP and norms are tuned; a model without biases is refused.",
            "biases",
            "Ben Zaken et al. 2021, arXiv 2106.10199",
            over_quantised=True,
        ),
        MethodInfo(
            "adapter",
            "Adapters",
            "Small bottlenecks after the attention and the MLP of a block, which cost time at inference.",
            "weights and biases of the bottlenecks",
            "Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247",
            AdapterOptions,
            merges=False,
            over_quantised=True,
        ),
        MethodInfo(
            "pafi",
            "PaFi",
            "The parameters of smallest pretrained magnitude are tuned: one mask for every task, found without data.",
            "masked parameters",
            "Liao et al. 2023, arXiv 2305.16742",
            ScopedOptions,
        ),
        MethodInfo(
            "fish",
            "FISH mask",
            "The parameters with the largest Fisher information on the training examples are tuned.",
            "masked parameters",
            "Sung et al. 2021, arXiv 2111.09839",
            FishOptions,
        ),
        MethodInfo(
            "lt_sft",
            "Lottery ticket",
            "The parameters that moved most in a first dense tuning are tuned alone, again from their start.",
            "masked parameters",
            "Ansell et al. 2022, arXiv 2110.07560",
            LotteryOptions,
        ),
        MethodInfo(
            "random_mask",
            "Random mask",
            "Parameters drawn at random are tuned: the control of every chosen mask.",
            "masked parameters",
            "control",
            ScopedOptions,
        ),
        MethodInfo(
            "top_magnitude",
            "Largest magnitude",
            "The parameters of largest pretrained magnitude are tuned: the control opposite to PaFi.",
            "masked parameters",
            "control",
            ScopedOptions,
        ),
        MethodInfo(
            "hiwi",
            "HiWi",
            "The MLP's weights or biases pass through a small adapter while they are tuned; only the result is kept.",
            "parameters of the adapter",
            "Liao et al. 2023, arXiv 2305.16742",
            HiwiOptions,
        ),
        MethodInfo(
            "did",
            "Intrinsic dimension (DID)",
            "Only a few numbers are tuned, which are projected to all planned parameters at once.",
            "coordinates",
            "Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2020, arXiv 2012.13255",
            IntrinsicOptions,
        ),
        MethodInfo(
            "said",
            "Intrinsic dimension by structure (SAID)",
            "As DID, with one scale per block that is tuned too and counts among the few numbers.",
            "coordinates and scales",
            "Aghajanyan et al. 2020, arXiv 2012.13255",
            IntrinsicOptions,
        ),
    ],
)


def check_base(method: str, dtype: str) -> None:
    """Refuse a method that tunes the base's own matrices where those are held in 4 or 8 bits, and an odd dtype.

    Args:
        method: to be tuned by.
        dtype: asked for, or that of a loaded model, which may be any of torch's where it was wrapped.

    Raises:
        BadInputError: it does, or the model is in a dtype that is not trained in; the sentence says what is accepted.
        UnknownNameError: no such method.
    """
    if dtype not in DTYPES:
        raise BadInputError(
            f"The model is in {dtype}, in which LSF measures but does not tune; accepted are float32 and bfloat16, "
            "such as lsf.wrap(model.float(), tokenizer)."
        )
    if dtype in QUANTISED and not CATALOGUE[method].over_quantised:
        known = ", ".join(info.name for info in CATALOGUE.values() if info.over_quantised)
        raise BadInputError(
            f"The method {method} tunes the base's own tensors, which the dtype {dtype} quantises; accepted with "
            f"it are the methods {known}, and with {method} the dtypes auto, float32 and bfloat16."
        )


def options_of(method: str, given: Mapping[str, Any]) -> Any:
    """Return a method's options record: what was given over its defaults.

    Raises:
        UnknownNameError: no such method.
        BadInputError: an option it does not have, or a value it does not take.
    """
    return read_given(method, CATALOGUE[method].options, given)


def describe(method: str, given: Mapping[str, Any]) -> str:
    """Return a method with the options given, in one order, for tables: `adapter (kind=pfeiffer)`."""
    options = ", ".join(f"{name}={value}" for name, value in sorted(given.items()))
    return f"{method} ({options})" if options else method
