"""Where blocks, norms and heads are, per architecture: the one table that knows; an unknown family is refused."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from lsf.errors import UnknownFamilyError
from lsf.registry import Registry

Logits = Float[Tensor, "*batch vocab"]


def unscaled(_config: Any) -> float:
    """Return 1: the embedding row enters the first block as it is (or its module scales it itself)."""
    return 1.0


def plain(_config: Any, logits: Logits) -> Logits:
    """Return the head's product as it is."""
    return logits


def soft_capped(config: Any, logits: Logits) -> Logits:
    """Squash logits to (-cap, cap) by tanh where the config has `final_logit_softcapping` (Gemma)."""
    cap = config.final_logit_softcapping
    return logits if cap is None else cap * (logits / cap).tanh()


def multiplied(config: Any, logits: Logits) -> Logits:
    """Multiply logits by the config's `logit_scale` (Cohere)."""
    return logits * config.logit_scale


def divided(config: Any, logits: Logits) -> Logits:
    """Divide logits by the config's `logits_scaling` (Granite)."""
    return logits / config.logits_scaling


def granite_scale(config: Any) -> float:
    """Return the config's `embedding_multiplier`."""
    return config.embedding_multiplier


@dataclass(frozen=True)
class Family:
    """One architecture: dotted module names below the causal LM, and what it does around them."""

    name: str
    """Key, usually transformers' `model_type`."""
    blocks: str = "model.layers"
    """The ModuleList of transformer blocks."""
    embedding: str = "model.embed_tokens"
    """The input embedding; its own scaling counts as part of it."""
    final_norm: str | None = "model.norm"
    """The norm after the last block; None, or absent in the model, where there is none."""
    head: str = "lm_head"
    """The LM head."""
    attention_output: str = "self_attn.o_proj"
    """In a block: the linear map whose output is the attention's contribution."""
    mlp: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    """In a block: the MLP's linear maps, the last of which gives its contribution; for experts the MLP as a whole."""
    embedding_norm: str | None = None
    """A norm the model applies to embeddings before the first block, where it has one (Bloom)."""
    project_in: str | None = None
    """Linear map from embedding width to d, where the model has one."""
    project_out: str | None = None
    """Linear map from d to the head's width, after the final norm, where the model has one."""
    model_types: tuple[str, ...] = ()
    """`config.model_type` values it answers to; default: its own name."""
    embedding_scale: Callable[[Any], float] = unscaled
    """Config -> factor the model applies to embeddings outside the embedding module."""
    finish_logits: Callable[[Any, Any], Any] = plain
    """Config, head product -> logits (soft-cap, scale)."""


_FC = ("mlp.c_fc", "mlp.c_proj")
_DENSE = ("mlp.dense_h_to_4h", "mlp.dense_4h_to_h")

FAMILIES: Registry[Family] = Registry(
    "model family",
    (
        Family("llama"),
        Family("mistral"),
        Family("mixtral", mlp=("mlp",)),
        Family("qwen2"),
        Family("qwen3"),
        Family("qwen3_moe", mlp=("mlp",)),
        Family("smollm3"),
        Family(
            "phi",
            final_norm="model.final_layernorm",
            attention_output="self_attn.dense",
            mlp=("mlp.fc1", "mlp.fc2"),
        ),
        Family("phi3", mlp=("mlp.gate_up_proj", "mlp.down_proj")),
        Family("olmo"),
        Family("olmo2"),
        Family("olmo3"),
        Family("stablelm"),
        Family("starcoder2", mlp=_FC),
        Family("nemotron", mlp=("mlp.up_proj", "mlp.down_proj")),
        Family("cohere", finish_logits=multiplied),
        Family("cohere2", finish_logits=multiplied),
        Family("granite", embedding_scale=granite_scale, finish_logits=divided),
        Family("gemma"),
        Family("gemma2", finish_logits=soft_capped),
        Family("gemma3", model_types=("gemma3_text",), finish_logits=soft_capped),
        Family("gpt2", "transformer.h", "transformer.wte", "transformer.ln_f", attention_output="attn.c_proj", mlp=_FC),
        Family(
            "gpt_neo",
            "transformer.h",
            "transformer.wte",
            "transformer.ln_f",
            attention_output="attn.attention.out_proj",
            mlp=_FC,
        ),
        Family(
            "gptj",
            "transformer.h",
            "transformer.wte",
            "transformer.ln_f",
            attention_output="attn.out_proj",
            mlp=("mlp.fc_in", "mlp.fc_out"),
        ),
        Family(
            "gpt_neox",
            "gpt_neox.layers",
            "gpt_neox.embed_in",
            "gpt_neox.final_layer_norm",
            attention_output="attention.dense",
            mlp=_DENSE,
        ),
        Family(
            "falcon",
            "transformer.h",
            "transformer.word_embeddings",
            "transformer.ln_f",
            attention_output="self_attention.dense",
            mlp=_DENSE,
        ),
        Family(
            "bloom",
            "transformer.h",
            "transformer.word_embeddings",
            "transformer.ln_f",
            attention_output="self_attention.dense",
            mlp=_DENSE,
            embedding_norm="transformer.word_embeddings_layernorm",
        ),
        Family(
            "mpt",
            "transformer.blocks",
            "transformer.wte",
            "transformer.norm_f",
            attention_output="attn.out_proj",
            mlp=("ffn.up_proj", "ffn.down_proj"),
        ),
        Family(
            "opt",
            "model.decoder.layers",
            "model.decoder.embed_tokens",
            "model.decoder.final_layer_norm",
            attention_output="self_attn.out_proj",
            mlp=("fc1", "fc2"),
            project_in="model.decoder.project_in",
            project_out="model.decoder.project_out",
        ),
    ),
)

LINEAR_MAPS = (
    "Wqkv c_attn c_fc c_proj dense dense_4h_to_h dense_h_to_4h down_proj fc1 fc2 fc_in fc_out gate_proj gate_up_proj "
    "k_proj o_proj out_proj q_proj qkv_proj query_key_value up_proj v_proj"
).split()
"""Last names of the linear maps in any family's blocks."""


def family_of(model_type: str) -> Family:
    """Return the family that answers to a config's `model_type`.

    Raises:
        UnknownFamilyError: none does; the sentence lists those that exist.
    """
    for family in FAMILIES.values():
        if model_type in (family.model_types or (family.name,)):
            return family
    raise UnknownFamilyError(
        f"The architecture {model_type!r} is not in the families table; supported are: {', '.join(FAMILIES)}."
    )
