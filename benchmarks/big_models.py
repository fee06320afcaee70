"""What fits a card: analysis, LoRA and all weights of some blocks of models of 1, 3 and 7 billion parameters.

    python benchmarks/big_models.py --report          counts everything and writes docs/memory.md
    python benchmarks/big_models.py --model 1B        counts one model and prints its rows

Nothing is loaded: configs are written out below and their tensors have no memory (`benchmarks.weightless`). Weights,
copies, gradients and optimizers are counted, and passes of the run's own code over one batch tell the rest, by the same
code that forecasts a run before it starts (`lsf.training.forecaster`) and an analysis (`benchmarks.weightless`).
"""

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import CONFIG_MAPPING

from benchmarks.weightless import analysis_parts, weightless
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.data.task import Example
from lsf.methods.context import MethodContext
from lsf.methods.optimization import OPTIMIZERS
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel
from lsf.plans.plan import Plan
from lsf.runs.memory_forecast import PART_WORDS, RUN_SHARE
from lsf.runs.spec import RunSpec
from lsf.training.forecaster import Forecaster, optimizer_bytes
from lsf.training.splits import EncodedSplits

PAGE = Path(__file__).parent.parent / "docs" / "memory.md"
ROWS, TOKENS = 16, 128
"""The batch that is passed: RunSpec's and AnalysisSettings' own size, and texts of this length."""
CARDS = (16, 24, 48, 80)
"""GB of the cards asked for, 10^9 bytes each; a run may take `RUN_SHARE` of what the weights leave."""
_BIG: dict[str, Any] = {"attention_bias": False, "tie_word_embeddings": True}
MODELS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "1B": ("Llama-3.2-1B", "llama", {"vocab_size": 128256, "hidden_size": 2048, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "intermediate_size": 8192,
           "max_position_embeddings": 131072, **_BIG}),
    "3B": ("Llama-3.2-3B", "llama", {"vocab_size": 128256, "hidden_size": 3072, "num_hidden_layers": 28,
           "num_attention_heads": 24, "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 8192,
           "max_position_embeddings": 131072, **_BIG}),
    "7B": ("Qwen2.5-7B", "qwen2", {"vocab_size": 152064, "hidden_size": 3584, "num_hidden_layers": 28,
           "num_attention_heads": 28, "num_key_value_heads": 4, "intermediate_size": 18944,
           "max_position_embeddings": 131072, "tie_word_embeddings": False}),
}  # fmt: skip
"""Class -> (whose sizes, family, sizes)."""
Row = dict[str, Any]


def config_of(name: str) -> Any:
    """Return a model's config."""
    _, family, sizes = MODELS[name]
    return CONFIG_MAPPING[family](**sizes)


def rows_of(count: int) -> tuple[EncodedExample, ...]:
    """Return examples of `TOKENS` tokens, the last four of which are to be learned."""
    return (EncodedExample(tuple(range(TOKENS)), TOKENS - 4, 4, Example("", "")),) * count


def float_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of a base's weights as they stand."""
    return sum(value.nbytes for value in loaded.model.parameters())


def nf4_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of a base whose linear maps but the head are packed: half a byte a value, a scale per 64."""
    packed = sum(-(-n // 2) + 4 * -(-n // 64) + 64 for n in (weight.numel() for weight in maps(loaded)))
    return float_bytes(loaded) + packed - sum(weight.nbytes for weight in maps(loaded))


def maps(loaded: LoadedModel) -> list[torch.Tensor]:
    """Return the weights of the blocks' linear maps, which a quantised base holds in few bits."""
    parts = [part for block in loaded.layout.blocks for part in block.modules()]
    return [part.weight for part in parts if isinstance(part, nn.Linear)]


def largest_map(loaded: LoadedModel) -> int:
    """Return the bytes of the largest linear map of a block as floats: dequantised whole for a product."""
    return max(weight.nbytes for weight in maps(loaded))


def analysis_rows(loaded: LoadedModel) -> list[Row]:
    """Count the analysis over both bases."""
    rows = []
    found = [analysis_parts(loaded, rows_of(n), AnalysisSettings(batch_size=n)) for n in (ROWS, 1)]
    for base, weights in (("bfloat16", float_bytes(loaded)), ("nf4", nf4_bytes(loaded))):
        copies = sum(weight.nbytes for weight in maps(loaded)) if base == "nf4" else 0
        parts, least = (replace(one, copies=copies) for one in found)
        rows.append(_row(loaded, "analysis", base, "-", weights, vars(parts), parts.peak, least.peak))
    return rows


def tuning_rows(loaded: LoadedModel, what: str, method: str, plan: Plan) -> list[Row]:
    """Count one way of tuning by every optimizer; LoRA over both bases."""
    found = {}
    for micro in (None, 1):
        spec = RunSpec(
            plan.model, "texts", plan, method=method, steps=100, batch_size=ROWS, micro_batch=micro, cache="off"
        )
        splits = EncodedSplits(rows_of(ROWS), (), (), n_dropped=0, n_held_out_dropped=0, n_straddling=0, steps=100)
        found[micro] = Forecaster(loaded, splits, spec, None, lambda: None).counted()
    context = MethodContext(_options(method), rows_of(ROWS), base_dtype=loaded.info.dtype)
    model = METHODS[method].prepare(loaded, plan, context)
    rows = []
    for name, optimizer in OPTIMIZERS.items():
        kept, stepping = optimizer_bytes(model, optimizer, "cuda")
        for base, weights in (("bfloat16", float_bytes(loaded)), ("nf4", nf4_bytes(loaded))):
            if base == "nf4" and method != "lora":
                continue
            dequantised = largest_map(loaded) if base == "nf4" else 0
            whole, least = (
                replace(parts, optimizer=kept, activations=max(parts.activations + dequantised, stepping))
                for parts in found.values()
            )
            rows.append(_row(loaded, what, base, name, weights, vars(whole), whole.known, least.known))
    return rows


def _options(method: str) -> Any:
    return METHODS[method].info.options()


def _row(
    loaded: LoadedModel, what: str, base: str, optimizer: str, weights: int, parts: Row, peak: int, least: int
) -> Row:
    return {
        "model": loaded.info.name, "what": what, "base": base, "by": optimizer, "weights": weights,
        **parts, "total": weights + peak, "total_one": weights + least,
        "fits": [_fits(card, weights, peak, least) for card in CARDS],
    }  # fmt: skip


def _fits(card: int, weights: int, peak: int, least: int) -> str:
    room = RUN_SHARE * (card * 10**9 - weights)
    return "yes" if peak <= room else "one by one" if least <= room else "no"


def count(name: str) -> list[Row]:
    """Return every row of one model."""
    with weightless(config_of(name), name, torch.bfloat16) as loaded:
        n = loaded.info.n_blocks
        rows = analysis_rows(loaded)
        rows += tuning_rows(loaded, "LoRA, all blocks", "lora", Plan(name, n, tuple(range(n))))
        for share in (8, 4):
            blocks = tuple(range(n - max(1, round(n / share)), n))
            rows += tuning_rows(
                loaded, f"all weights of L/{share} blocks ({len(blocks)})", "full", Plan(name, n, blocks)
            )
    return rows


def table(rows: list[Row]) -> str:
    """Return the rows of one kind as Markdown; sizes in GB of 10^9 bytes."""
    analysis = rows[0]["what"] == "analysis"
    words = (
        {"forward": "forward pass", "lens": "lens", "copies": "dequantised copies", "gradients": "gradients",
         "backward": "gradient pass"} if analysis else {**PART_WORDS, "own_weights": "own float32 copies"}
    )  # fmt: skip
    words = {"weights": "base", **words, "total": "peak", "total_one": "peak, one by one"}
    words.pop("cache", None)
    head = ["model", *([] if analysis else ["what is tuned"]), "base", *([] if analysis else ["optimizer"])]
    lines = [[*head, *words.values(), *(f"{card} GB" for card in CARDS)]]
    lines.append(["---"] * len(lines[0]))
    for row in rows:
        told = [row["model"], *([] if analysis else [row["what"]]), row["base"]]
        told += [] if analysis else [row["by"]]
        lines.append([*told, *(f"{row[part] / 1e9:.2f}" for part in words), *row["fits"]])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page(rows: list[Row]) -> str:
    """Return docs/memory.md."""
    named = ", ".join(f"{key} = {whose}" for key, (whose, _, _) in MODELS.items())
    return f"""# What fits a card

Counted, not measured, by `python benchmarks/big_models.py --report`; `tests/training/test_big_models.py` holds the
counting to real runs of small models and this page to the counting. No GPU was used.

Sizes are those of {named}, written out by number. The base is in bfloat16, or in nf4 (linear maps but the head).
Batches have {ROWS} texts of {TOKENS} tokens, without activation checkpointing and without a prefix cache. GB are 10^9
bytes; a run may take {RUN_SHARE:.0%} of what the base leaves, as in every forecast. "yes": the whole batch at once;
"one by one": with one text per forward pass, which LSF comes to by itself where memory is short. What CUDA itself and
other programs take (about 0.5 GB) comes on top.

## Analysis with every criterion but first_order_drop

The forward pass (with the lens) and the gradient pass follow each other; the peak is the base with the larger of them.
Over nf4, gradients are taken on dequantised copies of the blocks, which is why it saves little here. Kernels are read
on as many texts as fit beside.

{table([row for row in rows if row["what"] == "analysis"])}

## Tuning

{table([row for row in rows if row["what"] != "analysis"])}
"""


def main(arguments: list[str]) -> int:
    """Count and write or print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=tuple(MODELS), help="one model only, printed as JSON")
    parser.add_argument("--report", action="store_true", help=f"write {PAGE.name}")
    asked = parser.parse_args(arguments)
    rows = [row for name in ([asked.model] if asked.model else MODELS) for row in count(name)]
    if asked.report and not asked.model:
        PAGE.parent.mkdir(exist_ok=True)
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"{len(rows)} rows -> {PAGE}")
    else:
        print("\n".join(json.dumps(row) for row in rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
