"""Tokens per second and peak memory of an analysis and of a run on a GPU, beside a bare pass and a plain Trainer.

`python -m benchmarks.gpu [--model NAME] [--dtype float32|bfloat16] [--examples N] [--steps N] [--batch N]`, on a
machine with a CUDA or an Apple GPU. Each contestant works alone, once to warm up and once to be timed, on the same rows
in the same order; tokens are those computed, padding counted, and the same for both of a pair.
"""

import argparse
import gc
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import EncodedExample, encode
from lsf.data.task import Example, Task, split_examples
from lsf.lens.analyze import analyze
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.batches import MOST_PADDING, collate, make_batches, training_order
from lsf.models.devices import list_devices
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import full_plan
from lsf.progress import Silent
from lsf.training.fitting import fit
from lsf.training.trainer import FitSettings

RATE = 1e-5
"""AdamW's peak rate, for both."""
WORDS = "the of a to in is that it was for on are as with they at be this from have or by one had not but what".split()


@dataclass(frozen=True)
class Figures:
    """What one contestant took."""

    tokens_per_second: float
    """Tokens computed over wall seconds."""
    peak_bytes: int
    """Most memory of the device, weights included: CUDA's allocator's, on mps what the driver gave."""


def main() -> int:
    """Print the table; exit 2 where there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled", help="as `lsf analyze --model`")
    parser.add_argument("--dtype", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--examples", type=int, default=256, help="examples analysed")
    parser.add_argument("--steps", type=int, default=30, help="optimizer steps")
    parser.add_argument("--batch", type=int, default=16, help="examples per batch and per step")
    asked = parser.parse_args()
    device = next((device for device in list_devices() if device.name != "cpu"), None)
    if device is None:
        sys.stderr.write("This machine has neither a CUDA nor an Apple GPU; benchmarks/gpu.py measures one of them.\n")
        return 2
    print(f"{device.label}, {asked.model}, {asked.dtype}, batches of {asked.batch}")
    for name, figures in contest(asked, device.name).items():
        print(f"{name:<44} {figures.tokens_per_second:>12,.0f} tokens/s {figures.peak_bytes / 1e9:>8.2f} GB")
    return 0


def contest(asked: argparse.Namespace, device: str) -> dict[str, Figures]:
    """Let every contestant work on a device."""
    task, loaded = _task(asked.examples), load_model(asked.model, asked.dtype, device)
    forward = tuple(name for name in CRITERIA if CRITERIA[name].needs == "forward")
    backward = tuple(name for name in CRITERIA if CRITERIA[name].needs == "backward")
    settings = AnalysisSettings(limit=None, split="train", criteria=forward, batch_size=asked.batch)
    rows = encode(loaded.tokenizer, task.train, loaded.context, append_eos=True).rows
    order = training_order(len(rows), asked.steps * asked.batch, 0)
    trained = [[rows[i] for i in order[at : at + asked.batch]] for at in range(0, len(order), asked.batch)]
    computed = sum(collate(batch)["input_ids"].numel() for batch in trained)
    bare = encode(loaded.tokenizer, task.train, loaded.context).rows
    batches = make_batches(bare, "first", asked.batch, 0, loaded.device, MOST_PADDING)
    read = sum(batch.ids.numel() for batch in batches)

    def bare_pass() -> None:
        with torch.no_grad():
            for batch in batches:
                loaded.model(input_ids=batch.ids, use_cache=False, logits_to_keep=1)

    def analysis(criteria: tuple[str, ...]) -> Callable[[], Any]:
        chosen = AnalysisSettings(**{**vars(settings), "criteria": criteria})
        return lambda: analyze(loaded, task, chosen, Silent())

    return {
        "bare forward pass with head": _timed(bare_pass, read, device),
        "analysis, forward criteria": _timed(analysis(forward), read, device),
        "analysis, gradient criteria too (per pass)": _timed(analysis(forward + backward), 2 * read, device),
        "our run, all weights": _timed(lambda: _ours(loaded, rows, asked), computed, device),
        "transformers' Trainer, all weights": _timed(lambda: _theirs(loaded, rows, order, asked), computed, device),
    }


def _task(n: int) -> Task:
    draw = random.Random(0)
    texts = [" ".join(draw.choices(WORDS, k=draw.randint(16, 96))) for _ in range(n)]
    return split_examples("words", [Example(text, f" {draw.choice(WORDS)}", i) for i, text in enumerate(texts)])


def _timed(work: Callable[[], Any], tokens: int, device: str) -> Figures:
    work()
    gc.collect()
    on_cuda = device.startswith("cuda")
    module: Any = torch.cuda if on_cuda else torch.mps
    module.empty_cache()
    if on_cuda:
        module.reset_peak_memory_stats(device)
    module.synchronize()
    begun = time.perf_counter()
    work()
    module.synchronize()
    seconds = time.perf_counter() - begun
    return Figures(
        tokens / seconds, module.max_memory_allocated(device) if on_cuda else module.driver_allocated_memory()
    )


def _ours(loaded: LoadedModel, rows: Sequence[EncodedExample], asked: argparse.Namespace) -> None:
    model = METHODS["full"].prepare(loaded, full_plan(loaded.info.name, loaded.info.n_blocks), MethodContext())
    settings = FitSettings(RATE, asked.steps, asked.batch, 0, 0.0, 0, loaded.info.dtype)
    with tempfile.TemporaryDirectory() as folder:
        fit(model, rows, settings, Path(folder), lambda _row: None, lambda: None)


def _theirs(loaded: LoadedModel, rows: Sequence[EncodedExample], order: Any, asked: argparse.Namespace) -> None:
    model = METHODS["full"].prepare(loaded, full_plan(loaded.info.name, loaded.info.n_blocks), MethodContext())
    half = loaded.info.dtype == "bfloat16"
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=asked.steps, per_device_train_batch_size=asked.batch, learning_rate=RATE,
            train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none",
            disable_tqdm=True, remove_unused_columns=False, bf16=half,
        )  # fmt: skip
        ordered: Any = [rows[number] for number in order]
        Trainer(
            model=model,
            args=arguments,
            train_dataset=ordered,
            data_collator=lambda items: {key: value for key, value in collate(items).items() if key != "kept"},
        ).train()


if __name__ == "__main__":
    sys.exit(main())
