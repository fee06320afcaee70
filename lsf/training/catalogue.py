"""The tuning methods as a person chooses among them: name, meaning, options; no torch.

`lsf.training.methods` has, under the same names, how each is carried out, `lsf.training.default_rates` its default
rate.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsf.axes import QUANTISED
from lsf.errors import BadInputError
from lsf.registry import Registry
from lsf.training.options import (
    AdapterOptions,
    FishOptions,
    HiwiOptions,
    IntrinsicOptions,
    LoraOptions,
    LotteryOptions,
    NoOptions,
    ScopedOptions,
    read_given,
)


@dataclass(frozen=True)
class Way:
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


CATALOGUE: Registry[Way] = Registry(
    "method",
    [
        Way(
            "full",
            "Full fine-tuning",
            "Every tensor of the planned blocks is tuned; a plan of all blocks and modules is full fine-tuning.",
            "parameters",
            "plain gradient descent; AdamW of Loshchilov & Hutter (arXiv 1711.05101)",
        ),
        Way(
            "lora",
            "LoRA",
            "Every linear map of the planned blocks gets a low-rank update beside its frozen weight.",
            "values of the low-rank factors",
            "Hu et al. 2021, arXiv 2106.09685; carried out by peft",
            LoraOptions,
            over_quantised=True,
        ),
        Way(
            "bitfit",
            "BitFit",
            "Only the biases of attention, MLP and norms are tuned; a model without biases is refused.",
            "biases",
            "Ben Zaken et al. 2021, arXiv 2106.10199",
            over_quantised=True,
        ),
        Way(
            "adapter",
            "Adapters",
            "Small bottlenecks after the attention and the MLP of a block, which cost time at inference.",
            "weights and biases of the bottlenecks",
            "Houlsby et al. 2019, arXiv 1902.00751; Pfeiffer et al. 2020, arXiv 2005.00247",
            AdapterOptions,
            merges=False,
            over_quantised=True,
        ),
        Way(
            "pafi",
            "PaFi",
            "The values of smallest pre-trained magnitude are tuned: one mask for every task, found without data.",
            "masked values",
            "Liao et al. 2023, arXiv 2305.16742",
            ScopedOptions,
        ),
        Way(
            "fish",
            "FISH mask",
            "The values with the largest Fisher information on the training examples are tuned.",
            "masked values",
            "Sung et al. 2021, arXiv 2111.09839",
            FishOptions,
        ),
        Way(
            "lt_sft",
            "Lottery ticket",
            "The values that moved most in a first dense tuning are tuned again from where they started, alone.",
            "masked values",
            "Ansell et al. 2022, arXiv 2110.07560",
            LotteryOptions,
        ),
        Way(
            "random_mask",
            "Random mask",
            "Values drawn by lot are tuned: the control of every chosen mask.",
            "masked values",
            "control",
            ScopedOptions,
        ),
        Way(
            "top_magnitude",
            "Largest magnitude",
            "The values of largest pre-trained magnitude are tuned: the control at PaFi's other end.",
            "masked values",
            "control",
            ScopedOptions,
        ),
        Way(
            "hiwi",
            "HiWi",
            "The MLP's weights or biases pass through a small adapter while they are tuned; only the result is kept.",
            "values of the adapter on the parameters",
            "Liao et al. 2023, arXiv 2305.16742",
            HiwiOptions,
        ),
        Way(
            "did",
            "Intrinsic dimension (DID)",
            "A few numbers, projected to all planned values at once, are all that is tuned.",
            "coordinates",
            "Li et al. 2018, arXiv 1804.08838; Aghajanyan et al. 2020, arXiv 2012.13255",
            IntrinsicOptions,
        ),
        Way(
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
    """Refuse a method that tunes the base's own matrices where those are held in 4 or 8 bits.

    Raises:
        BadInputError: it does; the sentence names the methods and formats that would be accepted.
        UnknownNameError: no such method.
    """
    if dtype in QUANTISED and not CATALOGUE[method].over_quantised:
        known = ", ".join(way.name for way in CATALOGUE.values() if way.over_quantised)
        raise BadInputError(
            f"The method {method} tunes the base's own tensors, which dtype {dtype} holds in few bits; accepted with "
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
    """Return a method with the options given, for tables: `adapter (kind=pfeiffer)`."""
    options = ", ".join(f"{name}={value}" for name, value in given.items())
    return f"{method} ({options})" if options else method
