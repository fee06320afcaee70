"""GGUF files: checked to be read whole and as they were written, and unpacked once into a Hugging Face folder."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, pre_tokenizers

from lsf.errors import ModelError, first_line
from lsf.files import cache_folder, made_once, write_json

ABOUT = "lsf.json"
"""File of a folder made here: `origin`, what its weights are, and `revision`, their commit on the hub or null."""
ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "starcoder2", "stablelm", "gpt2")
"""GGUF architectures that transformers reads rightly: tests/measure/test_gguf.py writes and reads one of each."""
FLOATS = ("F32", "F16", "BF16", "F64")
"""Types of tensors that hold plain numbers; every other is a quantised one."""
SINGLE_DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone")
"""`tokenizer.ggml.pre` of vocabularies learned on text with every digit apart, which transformers splits as GPT-2's."""
AS_GPT2 = (None, "gpt-2", "mpt", "olmo", "jais")
"""`tokenizer.ggml.pre` of vocabularies that are split as GPT-2's."""
_SHAPES = ("vocab_size", "embedding_length", "feed_forward_length", "tensor_data_layout")
"""What a file states about the model that its tensors' shapes prove, or that changes no number."""
_STATED: dict[str, tuple[str, ...]] = {
    "block_count": ("num_hidden_layers",),
    "context_length": ("max_position_embeddings",),
    "attention.head_count": ("num_attention_heads",),
    "attention.head_count_kv": ("num_key_value_heads", "num_attention_heads"),
    "attention.key_length": ("head_dim",),
    "attention.value_length": ("head_dim",),
    "attention.layer_norm_rms_epsilon": ("rms_norm_eps",),
    "attention.layer_norm_epsilon": ("layer_norm_epsilon", "layer_norm_eps", "norm_epsilon"),
    "attention.sliding_window": ("sliding_window",),
    "attn_logit_softcapping": ("attn_logit_softcapping",),
    "final_logit_softcapping": ("final_logit_softcapping",),
    "use_parallel_residual": ("use_parallel_residual",),
}
"""What else a file states -> the attributes of a config that may say it, the first that it has."""
_SETTABLE = ("head_dim", "max_position_embeddings")
"""Attributes with whole numbers that are put right; every attribute with a fraction is."""
_TOLERANCE = 1e-6


def is_gguf(path: Path) -> bool:
    """Say whether a name is that of a GGUF file, by its ending."""
    return path.suffix.lower() == ".gguf"


def unpacked_place(path: Path) -> Path:
    """Return where a GGUF file is unpacked, or would be: a folder of the cache for this path, size and time."""
    stat = path.stat()
    about = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    return cache_folder() / "models" / f"{path.stem}-{hashlib.sha256(about.encode()).hexdigest()[:16]}"


def gguf_folder(name: str, path: Path) -> Path:
    """Return the folder a GGUF file is unpacked into, made where it is not there yet.

    Args:
        name: of the model, as the user gave it.
        path: the file.

    Raises:
        ModelError: no such file, or as `unpack_gguf`.
    """
    if not path.is_file():
        raise ModelError(f"There is no file {name}; a GGUF file was expected.")
    return made_once(unpacked_place(path), lambda out: unpack_gguf(name, path, out, dequantised))


def dequantised(types: list[str]) -> str:
    """Say what the weights of a GGUF file are, by the types of its tensors."""
    quantised = [kind for kind in types if kind not in FLOATS]
    return f"dequantised from {', '.join(quantised)} (GGUF)" if quantised else f"{', '.join(types)} from GGUF"


def unpack_gguf(name: str, path: Path, out: Path, origin: Callable[[list[str]], str]) -> None:
    """Write a GGUF file as a Hugging Face folder: plain floats, tokenizer, and `ABOUT`.

    Quantised weights become bfloat16, as half as many bytes again would say no more; plain ones keep every bit.

    Args:
        name: of the model, as the user gave it.
        path: the file.
        out: a folder that does not exist yet.
        origin: types of tensors in the file -> what is said of its weights.

    Raises:
        ModelError: the library gguf is missing; the file is no GGUF, cut off, of an architecture or of types that
            are not read, without tokenizer, or says something about the model that transformers would not heed.
    """
    with _parsed_once(name):
        stated, types, n_tokens = _header(name, path)
        out.mkdir()
        alone = out / "weights.gguf"  # by itself: a config or tokenizer beside the file would be taken for its own
        alone.symlink_to(path.resolve())
        try:
            model = _read_model(name, alone, stated, types)
            tokenizer, doubt = _read_tokenizer(alone, stated, n_tokens)
        except ModelError:
            raise
        except (OSError, ValueError, KeyError, IndexError, TypeError, RuntimeError) as error:
            raise ModelError(f"{name} cannot be read: {first_line(error).replace(str(alone), name)}") from error
        finally:
            alone.unlink()
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    write_json(out / ABOUT, {"origin": origin(types) + doubt, "revision": None})


@contextmanager
def _parsed_once(name: str) -> Iterator[None]:
    """Let transformers parse a file once, where it does so per call, and build its names once, not per module.

    Both are pure Python: 31 s of the 45 s of CPU that SmolLM2-135M took.

    Raises:
        ModelError: the library gguf is missing.
    """
    try:
        import gguf  # noqa: PLC0415 - an optional library
    except ImportError:
        raise ModelError(
            f"{name} is a GGUF file, which needs the library gguf, and that is not installed: "
            "pip install -r requirements-gguf.txt."
        ) from None
    parse, names = gguf.GGUFReader, gguf.get_tensor_name_map
    parsed = cache(parse)
    module: Any = gguf
    module.GGUFReader, module.get_tensor_name_map = lambda path: parsed(Path(path).resolve()), cache(names)
    try:
        yield
    finally:
        module.GGUFReader, module.get_tensor_name_map = parse, names


def _header(name: str, path: Path) -> tuple[dict[str, Any], list[str], int]:
    """Return what a file states, the types of its tensors, that of most bytes first, and the size of its vocabulary."""
    from gguf import GGUFReader  # noqa: PLC0415 - an optional library

    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{name} is not a GGUF file (it does not begin with GGUF).")
    try:
        reader = GGUFReader(path)
        short = (key for key, field in reader.fields.items() if len(field.data) == 1 or "tokenizer" not in key)
        stated = {key: reader.fields[key].contents() for key in short}
    except (ValueError, IndexError, KeyError, OverflowError, MemoryError) as error:
        size = path.stat().st_size
        raise ModelError(f"{name} is cut off or damaged: its {size:,} bytes are not a whole GGUF file.") from error
    architecture = stated.get("general.architecture")
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"{name} is a GGUF file of the architecture {architecture!r}; supported are: {', '.join(ARCHITECTURES)}."
        )
    tokens = reader.fields.get("tokenizer.ggml.tokens")
    if tokens is None:
        raise ModelError(f"{name} holds no tokenizer; a GGUF file with its vocabulary is needed.")
    sizes: dict[str, int] = {}
    for tensor in reader.tensors:
        sizes[tensor.tensor_type.name] = sizes.get(tensor.tensor_type.name, 0) + int(tensor.n_bytes)
    return stated, sorted(sizes, key=lambda kind: -sizes[kind]), len(tokens.data)


def _read_model(name: str, path: Path, stated: Mapping[str, Any], types: list[str]) -> Any:
    import torch  # noqa: PLC0415 - whoever only asks whether a file is unpacked needs neither
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig  # noqa: PLC0415

    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _heed(name, config, stated)
    exact = all(kind in FLOATS for kind in types) and ("BF16" not in types or _finer(path))
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        config=config,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.float32 if exact else torch.bfloat16,
        local_files_only=True,
        output_loading_info=True,
    )
    model, report = loaded
    if report["missing_keys"]:
        raise ModelError(f"{name} lacks {len(report['missing_keys'])} weights, such as {min(report['missing_keys'])}.")
    _refuse_unread(name, path, model, stated["general.architecture"])
    vars(model.config).pop("_model_name_or_path", None)
    return model


def _finer(path: Path) -> bool:
    """Say whether a file of plain numbers has any that bfloat16 would round."""
    from gguf import GGUFReader  # noqa: PLC0415 - an optional library

    found = {"F16": lambda _: True, "F64": lambda _: True, "F32": lambda data: bool((data.view("u4") & 0xFFFF).any())}
    tensors = ((found.get(tensor.tensor_type.name), tensor.data) for tensor in GGUFReader(path).tensors)
    return any(finer(data) for finer, data in tensors if finer)


def _heed(name: str, config: Any, stated: Mapping[str, Any]) -> None:
    """Put into a config what its file states and transformers leaves at a default; refuse what has no place there.

    Raises:
        ModelError: names the statement.
    """
    for special in ("bos", "eos", "padding"):
        setattr(config, f"{special[:3]}_token_id", stated.get(f"tokenizer.ggml.{special}_token_id"))
    prefix = f"{stated['general.architecture']}."
    for key, value in sorted(stated.items()):  # attention before rope, which turns a part of a head
        what = key.removeprefix(prefix)
        if what == key or what in _SHAPES:
            continue
        if what == "rope.dimension_count":
            heed = _rotated(config) == value
        elif what == "rope.freq_base":
            heed = _heed_rope(config, value)
        else:
            heed = _heed_attribute(config, _STATED.get(what, ()), value)
        if not heed:
            raise ModelError(
                f"{name} states {key} = {value}, which transformers ignores: a different model would be loaded; "
                "take the original weights."
            )


def _heed_attribute(config: Any, names: tuple[str, ...], value: Any) -> bool:
    for attribute in names:
        if (known := getattr(config, attribute, None)) is not None:
            if not isinstance(value, float):
                return known == value or (attribute in _SETTABLE and _set(config, attribute, value))
            return abs(known - value) <= _TOLERANCE * abs(value) or _set(config, attribute, value)
    return names == ("head_dim",) and value == config.hidden_size // config.num_attention_heads


def _heed_rope(config: Any, value: float) -> bool:
    rope = getattr(config, "rope_parameters", None) or {}
    kinds = [kind for key, kind in rope.items() if isinstance(kind, dict) and key != "sliding_attention"] or [rope]
    if any(kind.get("rope_type") != "default" for kind in kinds):
        return False
    for kind in kinds:
        kind["rope_theta"] = value
    return True


def _rotated(config: Any) -> int:
    """Return how many numbers of a head its position turns."""
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    return int(head * rope.get("partial_rotary_factor", getattr(config, "partial_rotary_factor", 1.0)))


def _set(config: Any, attribute: str, value: Any) -> bool:
    setattr(config, attribute, value)
    return True


def _refuse_unread(name: str, path: Path, model: Any, architecture: str) -> None:
    """Refuse a file with tensors that transformers has not put into the model: it would be another model."""
    from transformers.integrations.gguf.reader import read_gguf_metadata  # noqa: PLC0415
    from transformers.modeling_gguf_pytorch_utils import (  # noqa: PLC0415
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
    )

    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    read = get_gguf_hf_weights_map(model, processor)
    unread = [tensor for tensor in read_gguf_metadata(str(path))[1] if tensor not in read and tensor != "output.weight"]
    if unread:
        raise ModelError(
            f"{name} holds {unread[0]}, which transformers does not read: a different model would be loaded; "
            "take the original weights."
        )


def _read_tokenizer(path: Path, stated: Mapping[str, Any], n_tokens: int) -> tuple[Any, str]:
    """Return the tokenizer, and what is to be said where its splitting of text into words is not known."""
    from transformers import AutoTokenizer  # noqa: PLC0415
    from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS  # noqa: PLC0415

    tokenizer: Any = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True)
    _keep_to_vocabulary(tokenizer, n_tokens)
    kind = stated.get("tokenizer.ggml.pre")
    if stated.get("tokenizer.ggml.model") != "gpt2" or kind in AS_GPT2 or kind in GGUF_PRE_TOKENIZER_SPLITS:
        return tokenizer, ""
    if kind in SINGLE_DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        return tokenizer, ""
    return tokenizer, f"; its splitting of text ({kind}) is not known, GPT-2's is used"


def _keep_to_vocabulary(tokenizer: Any, n_tokens: int) -> None:
    """Take out special tokens of the class of tokenizer (GPT-2's, Gemma's) that the file's vocabulary has not."""
    whole = json.loads(tokenizer.backend_tokenizer.to_str())
    kept = [token for token in whole["added_tokens"] if token["id"] < n_tokens]
    if len(kept) < len(whole["added_tokens"]):
        tokenizer._tokenizer = Tokenizer.from_str(json.dumps({**whole, "added_tokens": kept}))
