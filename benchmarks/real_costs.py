"""What a real model's steps and passes cost beside plain ones, timed in turn: `python benchmarks/real.py --costs`."""

import json
import tempfile
from pathlib import Path

from transformers import AutoTokenizer

from benchmarks.bars import Bar
from benchmarks.models import BATCH
from benchmarks.racing import megabytes, ours, paired_ratio, rows_file, run_race
from benchmarks.real_tasks import plan_of, real_task
from benchmarks.settings import SHARED
from benchmarks.train import contestants_of, step_ratio
from benchmarks.turns import race

STEPS = 6
"""Optimizer steps of each contestant; the first one warms up."""
TOKENS = 128
"""Of each row of the forward pass."""
PASSES = 6
"""Batches of the forward pass."""


def step_bars(folder: Path) -> list[Bar]:
    """Compare our step with a plain Trainer's: the whole model, the middle quarter, and LoRA on all blocks."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    task = real_task("trec", tokenizer)
    rows = rows_file("smollm2-trec", [(row.prompt, row.completion) for row in task.train[: STEPS * BATCH]])
    blocks = json.loads((folder / "config.json").read_text())["num_hidden_layers"]
    quarter, every = (",".join(map(str, plan_of(place, blocks).blocks)) for place in ("quarter", "lora"))
    found = []
    for label, words, limit in (
        ("whole model", [], 1.05),
        (f"blocks {quarter}", ["--blocks", quarter], 1.05),
        ("LoRA on all blocks", ["--blocks", every], None),
    ):
        lora = label.startswith("LoRA")
        with tempfile.TemporaryDirectory() as scratch:
            entries = {
                f"plain {label}": ["lora" if lora else "trainer", *words],
                f"ours {label}": ["ours", *words, *(["--method", "lora"] if lora else [])],
            }
            plain, mine = contestants_of(entries, str(folder), rows, STEPS, BATCH, scratch)
            race([plain, mine])
        found += [
            Bar(
                f"smollm2, {label}: our step / Trainer's",
                step_ratio(mine, plain),
                limit,
                note=f"{sum(mine.seconds[1:]):.1f} s / {sum(plain.seconds[1:]):.1f} s of CPU in {STEPS - 1} steps",
            ),
            Bar(
                f"smollm2, {label}: our peak memory / Trainer's",
                mine.result["peak"] / plain.result["peak"],
                note=f"{megabytes(mine.result['peak'])} / {megabytes(plain.result['peak'])}",
            ),
        ]
    return found


def pass_bars(folder: Path) -> list[Bar]:
    """Compare all forward criteria but semantic_loss with a bare pass, head included, over rows of 128 tokens."""
    rows = rows_file("smollm2-128", _rows_of(folder))
    runs = run_race([ours("bare_head", folder, rows), ours("forward", folder, rows)])
    mine, bare = runs["ours forward"], runs["ours bare_head"]
    return [
        Bar(
            f"smollm2: forward criteria / a bare pass with head, {TOKENS} tokens",
            paired_ratio(mine, bare, PASSES),
            1.15,
            note=f"{sum(mine.seconds):.1f} s / {sum(bare.seconds):.1f} s of CPU, {PASSES * BATCH} rows",
        ),
        Bar(
            "smollm2: the same, peak memory",
            mine.result["peak"] / bare.result["peak"],
            note=f"{megabytes(mine.result['peak'])} / {megabytes(bare.result['peak'])}",
        ),
    ]


def _rows_of(folder: Path) -> list[tuple[str, str]]:
    """Return stretches of a play that have exactly so many tokens, the last one the completion."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    text = (SHARED / "data/shakespeare/input.txt").read_text(encoding="utf-8")[: 8 * TOKENS * BATCH * PASSES]
    spans = tokenizer(text, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    found: list[tuple[str, str]] = []
    for start in range(0, len(spans) - TOKENS, TOKENS):
        begin, last, end = spans[start][0], spans[start + TOKENS - 1][0], spans[start + TOKENS - 1][1]
        row = text[begin:last], text[last:end]
        if len(tokenizer(row[0] + row[1])["input_ids"]) == TOKENS and row[1].strip():
            found.append(row)
    return found[: BATCH * PASSES]
