"""The models and examples the bars are measured on: random weights of real shapes, made once, kept in a cache."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CACHE = Path.home() / ".cache/lsf/bench"
"""Where models are written once."""
TOKENS = 128
"""Tokens of an example up to and including the position probed."""
BATCH = 16
"""Examples per batch, for everybody."""
SHARED = Path(__file__).parents[2] / "shared"
"""Real models and texts beside the checkout."""


@dataclass(frozen=True)
class Shape:
    """One random model."""

    name: str
    """Folder in the cache."""
    label: str
    """In the table."""
    config: dict[str, Any]
    """Of transformers' config class."""


SHAPES = {
    "llama": Shape(
        "llama",
        "Llama, 12 blocks of width 384, V = 8,000",
        {
            "model_type": "llama",
            "vocab_size": 8000,
            "hidden_size": 384,
            "intermediate_size": 1024,
            "num_hidden_layers": 12,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "max_position_embeddings": 1024,
            "tie_word_embeddings": False,
        },
    ),
    "gpt2": Shape("gpt2", "GPT-2 small, 124 M", {"model_type": "gpt2"}),
}


def model_folder(name: str) -> Path:
    """Return the folder of a random model with its tokenizer, made at the first call.

    Args:
        name: a key of `SHAPES`, or `stories260K` (real weights beside the checkout).
    """
    if name == "stories260K":
        return SHARED / "models/stories260K"
    folder = CACHE / name
    if not (folder / "tokenizer.json").exists():
        _make_model(SHAPES[name], folder)
    return folder


def _make_model(shape: Shape, folder: Path) -> None:
    import torch  # noqa: PLC0415 - the parent process needs no torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM  # noqa: PLC0415

    settings = dict(shape.config)
    config = CONFIG_MAPPING[settings.pop("model_type")](**settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    word_tokenizer(config.vocab_size).save_pretrained(folder)


def word_tokenizer(size: int) -> Any:
    """Return a tokenizer that knows the words w0, w1, ... by their numbers and adds nothing."""
    from tokenizers import Tokenizer, models, pre_tokenizers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = Tokenizer(models.WordLevel({f"w{index}": index for index in range(size)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0", pad_token="w0", eos_token="w0")


def word_rows(name: str, n: int, tokens: int = TOKENS) -> list[tuple[str, str]]:
    """Return n pairs of a prompt of as many random words as `tokens` and a completion of one."""
    size = SHAPES[name].config.get("vocab_size", 50257)
    lot = random.Random(0)
    rows = []
    for _ in range(n):
        words = [f"w{lot.randrange(size)}" for _ in range(tokens + 1)]
        rows.append((" ".join(words[:-1]), words[-1]))
    return rows


def text_tokenizer() -> Any:
    """Return a byte-level BPE learnt from the real texts, about as coarse as GPT-2's own."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers  # noqa: PLC0415
    from transformers import PreTrainedTokenizerFast  # noqa: PLC0415

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=16_000,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = [" ".join(row) for data in REAL for row in real_rows(data, None)]
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|endoftext|>", eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


def text_model_folder(name: str) -> Path:
    """Return the folder of a model that reads real text: stories260K as it is, GPT-2's shape with a learnt BPE."""
    if name == "stories260K":
        return model_folder(name)
    folder = CACHE / f"{name}-text"
    if not (folder / "tokenizer.json").exists():
        source = model_folder(name)
        folder.mkdir(parents=True, exist_ok=True)
        for file in ("config.json", "model.safetensors"):
            (folder / file).write_bytes((source / file).read_bytes())
        text_tokenizer().save_pretrained(folder)
    return folder


REAL = {"SST-2": "sst2/train.txt", "GSM8K": "gsm8k/train_1500.jsonl"}
"""Real data, by the file it lies in."""


def real_rows(data: str, n: int | None) -> list[tuple[str, str]]:
    """Return the first n prompts and completions of a real data set, in the file's order.

    Args:
        data: a key of `REAL`.
        n: how many; None for all.
    """
    path = SHARED / "data" / REAL[data]
    if data == "SST-2":
        lines = path.read_text(encoding="latin-1").splitlines()[:n]
        return [(f"Review: {line[2:]}\nIt was", " great" if line[0] == "1" else " terrible") for line in lines]
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()[:n]]
    return [(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in rows]
