"""Weights, config and tokenizer of a folder into memory; what its files lack, or hold beyond the config, is said."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from lsf.errors import ModelError, first_line
from lsf.models.devices import Device, is_out_of_memory, places_of
from lsf.models.quantised import is_packed, settle
from lsf.models.supported import UNSTATED_CONTEXT, ModelSource, find_model
from lsf.wording import counted

ATTENTIONS = ("eager", "sdpa")
"""Implementations of attention that run on every device."""
LIBRARY_FAILURES = (
    OSError,
    ValueError,
    RuntimeError,
    LookupError,
    SafetensorError,
    ImportError,
    AssertionError,
    TypeError,
    AttributeError,
    ArithmeticError,
    StrictDataclassError,
)
"""What transformers raises over the files of a folder that it cannot use; `tokenizers` raises a bare Exception."""


def load_config(source: ModelSource) -> Any:
    """Return a folder's config as transformers reads it, without what would keep the model from running here.

    An attention that needs another package or device becomes transformers' choice; a padding token beyond the
    vocabulary is dropped: padding is never read. A wish for tuples, with which transformers 5 itself fails, is too.

    Raises:
        ModelError: transformers does not accept it.
    """
    with quiet():
        try:
            config: Any = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
        except LIBRARY_FAILURES as error:
            raise ModelError(f"{source.name}/config.json is not accepted by transformers: {_said(error)}.") from error
        pad, size = getattr(config, "pad_token_id", None), getattr(config, "vocab_size", None)
        if isinstance(pad, int) and isinstance(size, int) and not 0 <= pad < size:
            config.pad_token_id = None
        if config._attn_implementation not in (None, *ATTENTIONS):
            config._attn_implementation = None
        config.return_dict = True
    return config


def build_skeleton(source: ModelSource) -> Any:
    """Return the model of a folder on torch's meta device, from its config alone: modules and shapes, no values.

    Raises:
        ModelError: as `load_config`.
    """
    config = load_config(source)
    try:
        with quiet(), torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except LIBRARY_FAILURES as error:
        raise ModelError(
            f"{source.name}/config.json does not describe a model that transformers can build: {_said(error)}."
        ) from error
    model.tie_weights()
    return model


def load_weights(
    source: ModelSource, dtype: torch.dtype, device: Device, spread: dict[str, Any]
) -> tuple[Any, str | None]:
    """Load the model of a folder, in eval mode and with nothing to tune.

    Args:
        source: the folder.
        dtype: of its weights.
        device: where it goes.
        spread: further arguments of `from_pretrained` for a quantised base or one over several devices.

    Returns:
        The model, and the sentence on weights that the config does not ask for; None where there are none.

    Raises:
        ModelError: weights are missing or have other shapes than the config asks for; or transformers fails.
    """
    config = load_config(source)
    try:
        with quiet():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                source.folder,
                config=config,
                dtype=dtype,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # reported, and refused below by name
                **spread,
            )
        model, report = loaded
        _check_report(source, report)
        if "quantization_config" not in spread and not places_of(model):
            model = model.to(device.name)
    except LIBRARY_FAILURES as error:
        if isinstance(error, ModelError) or is_out_of_memory(error):
            raise
        raise ModelError(f"{source.name} cannot be loaded: {_said(error)}.") from error
    model.eval().requires_grad_(False)
    _leave_file(model)
    settle(model)
    return model, _beyond(report["unexpected_keys"])


def load_tokenizer(source: ModelSource) -> Any:
    """Load the tokenizer of a folder.

    Raises:
        ModelError: its files cannot be used, or need a package that is not installed.
    """
    names = ("tokenizer.json", "tokenizer.model", "vocab.json")
    there = [file for file in names if (source.folder / file).is_file()]
    if there[:1] == ["tokenizer.model"] and find_spec("sentencepiece") is None:
        raise ModelError(
            f"The tokenizer of {source.name} is a tokenizer.model alone, which needs the package sentencepiece (pip "
            "install sentencepiece), or put a tokenizer.json beside it."
        )
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(source.folder, local_files_only=True)
    except Exception as error:
        if isinstance(error, MemoryError) or not (type(error) is Exception or isinstance(error, LIBRARY_FAILURES)):
            raise
        raise ModelError(
            f"The tokenizer of {source.name} ({there[0]}) cannot be read: {_said(error)}; download its files again, as "
            "tokenizer.json."
        ) from error


def tokenizer_of(name: str) -> tuple[Any, int, int]:
    """Return a model's tokenizer, the tokens it takes at most, and the rows of its embedding; no weight is read.

    Raises:
        ModelError, UnknownFamilyError: as `find_model`; or config or tokenizer cannot be read.
    """
    source = find_model(name)
    tokenizer, config = load_tokenizer(source), load_config(source).get_text_config()
    return tokenizer, context_of(config, tokenizer), config.vocab_size


def context_of(config: Any, tokenizer: Any) -> int:
    """Return the tokens a model can read: its position table, or for models without one what its tokenizer says.

    Of one whose rotations change for a whole batch as soon as one row in it is longer (LongRoPE) it is the length up to
    which they do not: beyond it the numbers of a row would hang on the rows beside it.
    """
    stated = getattr(config, "max_position_embeddings", None) or getattr(config, "max_seq_len", None)  # MPT
    rope = getattr(config, "rope_parameters", None) or {}
    if stated and rope.get("rope_type") == "longrope":
        early = rope.get("original_max_position_embeddings") or getattr(config, "original_max_position_embeddings", 0)
        stated = min(stated, early or stated)
    return stated or min(tokenizer.model_max_length, UNSTATED_CONTEXT)


def _check_report(source: ModelSource, report: dict[str, Any]) -> None:
    if wrong := sorted(report["mismatched_keys"]):
        name, stored, wanted = wrong[0]
        more = f" ({len(wrong)} tensors differ)" if len(wrong) > 1 else ""
        raise ModelError(
            f"Weights and config.json of {source.name} do not belong together: {name} has the shape "
            f"{_shape(stored)} in the file and {_shape(wanted)} by the config{more}."
        )
    if missing := sorted(report["missing_keys"]):
        raise ModelError(
            f"{source.name} lacks {len(missing)} of its weights (such as {missing[0]}), which would be random; get "
            "its files again, whole."
        )


def _beyond(names: set[str]) -> str | None:
    if not names:
        return None
    are = ("is", "was") if len(names) == 1 else ("are", "were")
    what = f"{counted(len(names), 'tensor')} of its files (such as {min(names)})"
    return f"{what} {are[0]} not part of the model in its config and {are[1]} left out"


def _shape(sizes: Any) -> str:
    return " x ".join(str(size) for size in sizes)


def _said(error: BaseException) -> str:
    """Return what a library's error says in one line, and its kind where that alone says little."""
    line = first_line(error).strip()
    if line.endswith(":"):
        line = " ".join(str(error).split())
    line = line.rstrip(".:")
    return line if isinstance(error, OSError | ValueError | RuntimeError) and line else f"{type(error).__name__} {line}"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' bars and its reports off the terminal; what matters of them is said by us."""
    shown, level = transformers_logging.is_progress_bar_enabled(), transformers_logging.get_verbosity()
    transformers_logging.disable_progress_bar()
    transformers_logging.set_verbosity(logging.CRITICAL)
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if shown:
            transformers_logging.enable_progress_bar()


def _leave_file(model: Any) -> None:
    """Copy weights that still lie in the mapped file: a file replaced later would take the whole process down."""
    for parameter in model.parameters():
        if parameter.device.type == "cpu" and not is_packed(parameter):
            parameter.data = parameter.data.clone()
