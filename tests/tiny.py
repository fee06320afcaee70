"""Tiny random models of every family, built from configs: no download."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

WORDS = "the cat dog sat ran on under mat tree red blue one two three four five . ? sky sun moon is was a".split()
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
    "head_dim": 8,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
SPECIAL: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": {key: SIZES[key] for key in SIZES if key not in ("num_key_value_heads", "head_dim")},
    "opt": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 32,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "opt_projected": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "ffn_dim": 48,
        "max_position_embeddings": 64,
        "word_embed_proj_dim": 16,
        "do_layer_norm_before": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "mixtral": {**SIZES, "num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen3_moe": {**SIZES, "num_experts": 3, "num_experts_per_tok": 2, "moe_intermediate_size": 16},
    "phi": {**SIZES, "partial_rotary_factor": 0.5},
    "olmo3": {**SIZES, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"] * 2},
    "cohere": {**SIZES, "logit_scale": 0.25},
    "mpt": {"d_model": 32, "n_heads": 4, "n_layers": 4, "max_seq_len": 64, "expansion_ratio": 2},
    "cohere2": {**SIZES, "logit_scale": 0.25},
    "granite": {**SIZES, "embedding_multiplier": 3.0, "logits_scaling": 2.0, "residual_multiplier": 0.5},
    "gpt_neo": {
        "hidden_size": 32,
        "num_layers": 4,
        "attention_types": [[["global", "local"], 2]],
        "num_heads": 4,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gptj": {
        "n_embd": 32,
        "n_layer": 4,
        "n_head": 4,
        "n_positions": 64,
        "rotary_dim": 4,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "bloom": {"hidden_size": 32, "n_layer": 4, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
    "falcon": {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 64,
        "bos_token_id": 1,
        "eos_token_id": 2,
    },
    "gemma2": {**SIZES, "final_logit_softcapping": 30.0, "query_pre_attn_scalar": 8},
    "gemma3": {**SIZES, "query_pre_attn_scalar": 8},
}
WHOLE_BLOCKS = {"llama": {"hidden_size": 64, "intermediate_size": 128, "head_dim": 16}, "gpt2": {"n_embd": 64}}
"""Changes by which rows are whole blocks of 64 values: on some processors bitsandbytes has 4 bits of no others."""
MODEL_TYPES = {"gemma3": "gemma3_text", "opt_projected": "opt"}


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """Return a word tokenizer that starts every text with <s> and drops spaces."""
    vocabulary = {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
    )


def tiny_model(family: str, seed: int = 0, **changes: Any) -> Any:
    """Return a random causal LM of a family: 4 blocks, width 32, float32, eval mode."""
    kind = MODEL_TYPES.get(family, family)
    settings = {**SPECIAL.get(family, SIZES), "vocab_size": 4 + len(WORDS), **changes}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        config = CONFIG_MAPPING[kind](**settings)
        model = AutoModelForCausalLM.from_config(config)
        for parameter in model.parameters():  # default inits are near zero; wake the model up
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.2)
            else:
                torch.nn.init.normal_(parameter, mean=parameter.mean().item(), std=0.1)
    return model.eval()


def save_tiny(family: str, folder: Path, **changes: Any) -> Path:
    """Write a tiny model and its tokenizer as a Hugging Face folder."""
    tiny_model(family, **changes).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
