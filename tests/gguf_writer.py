"""Tiny models as GGUF files, written by the `gguf` library as llama.cpp's converter writes them."""

from pathlib import Path
from typing import Any

import numpy as np
from gguf import MODEL_ARCH_NAMES, GGMLQuantizationType, GGUFWriter, get_tensor_name_map, quants
from transformers.convert_slow_tokenizer import bytes_to_unicode

TOKENS = ["<s>", "</s>", *bytes_to_unicode().values(), "Ġt", "he"]
"""Byte-level pairs, as most files have them."""
VOCABULARY = len(TOKENS)
PIECES = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
"""Gemma's kind of vocabulary; the rest of it is filled up."""
TRANSPOSED = ("c_attn.weight", "c_fc.weight", "c_proj.weight")


def write_gguf(model: Any, architecture: str, path: Path, packed: str | None = None, **changes: Any) -> Path:
    """Write a model whose vocabulary is that of `TOKENS`.

    Args:
        model: the causal LM, float32.
        architecture: the name llama.cpp gives its family.
        path: the file to write.
        packed: type of matrices, such as Q8_0; None for F32.
        changes: statements to be written beside or instead of the model's own, `__` for a dot; None leaves one out.
            `add_bos_token` and `tensors` (name -> array, written beside the model's) stand for themselves.
    """
    writer = GGUFWriter(path, architecture)
    config, n_blocks = model.config, model.config.num_hidden_layers
    add_bos, beside = changes.pop("add_bos_token", False), changes.pop("tensors", {})
    for name, value in {**_stated(config, architecture), **changes}.items():
        key = name.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(f"{architecture}.{key}", value)
        elif isinstance(value, float):
            writer.add_float32(f"{architecture}.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"{architecture}.{key}", value)
    _add_tokenizer(writer, architecture, add_bos)
    kind = next(key for key, name in MODEL_ARCH_NAMES.items() if name == architecture)
    names = get_tensor_name_map(kind, n_blocks)
    tied = config.tie_word_embeddings
    for name, value in model.state_dict().items():
        if tied and name == "lm_head.weight":
            continue
        written = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert written is not None, name
        array = _as_written(architecture, name, value.numpy(), config)
        if packed and array.ndim == 2:
            form = GGMLQuantizationType[packed]
            writer.add_tensor(written, quants.quantize(array, form), raw_dtype=form)
        else:
            writer.add_tensor(written, np.ascontiguousarray(array))
    for name, array in beside.items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _stated(config: Any, architecture: str) -> dict[str, Any]:
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    known = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
    eps = next(name for name in known if hasattr(config, name))
    rms = "layer_norm_rms_epsilon" if eps == "rms_norm_eps" else "layer_norm_epsilon"
    inner = 4 * config.hidden_size if architecture == "gpt2" else config.intermediate_size
    stated = {
        "block_count": config.num_hidden_layers,
        "context_length": config.max_position_embeddings,
        "embedding_length": config.hidden_size,
        "feed_forward_length": inner,
        "attention.head_count": config.num_attention_heads,
        f"attention.{rms}": float(getattr(config, eps)),
    }
    if architecture != "gpt2":
        stated["attention.head_count_kv"] = config.num_key_value_heads
    if rope:
        turned = int(head * rope.get("partial_rotary_factor", 1.0))
        stated |= {"rope.freq_base": float(rope["rope_theta"]), "rope.dimension_count": turned}
    if architecture in ("qwen3", "gemma2", "gemma3"):
        stated |= {"attention.key_length": head, "attention.value_length": head}
    for name in ("attn_logit_softcapping", "final_logit_softcapping"):
        if getattr(config, name, None):
            stated[name] = float(getattr(config, name))
    if getattr(config, "sliding_window", None):
        stated["attention.sliding_window"] = config.sliding_window
    if architecture == "stablelm":
        stated["use_parallel_residual"] = config.use_parallel_residual
    return stated


def _as_written(architecture: str, name: str, value: np.ndarray, config: Any) -> np.ndarray:
    """Return a tensor as llama.cpp has it: rotary halves interleaved, Gemma's norms plus one, GPT-2's maps turned."""
    if architecture == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
        heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
        halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
        return halves.swapaxes(1, 2).reshape(value.shape)
    if architecture.startswith("gemma") and name.endswith("norm.weight"):
        return value + 1
    if architecture == "gpt2" and name.endswith(TRANSPOSED):
        return value.T
    return value


def _add_tokenizer(writer: GGUFWriter, architecture: str, add_bos: bool) -> None:
    if architecture.startswith("gemma"):
        tokens = [*PIECES, *(f"[{number}]" for number in range(VOCABULARY - len(PIECES)))]
        writer.add_tokenizer_model("llama")
        writer.add_token_scores([-float(number) for number in range(VOCABULARY)])
        begin, end = 2, 1
    else:
        tokens = TOKENS
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("smollm")
        writer.add_token_merges(["Ġ t", "h e"])
        begin, end = 0, 1
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<") and len(token) > 1 else 1 for token in tokens])
    writer.add_bos_token_id(begin)
    writer.add_eos_token_id(end)
    writer.add_add_bos_token(add_bos)
