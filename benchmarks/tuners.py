"""Contestants of the training benchmark: our loop, transformers' Trainer, peft's LoRA, on the same rows in one order.

Every optimizer step is one turn. Each is a process of its own: `python -m benchmarks.tuners WHO MODEL ROWS ...`.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, Trainer, TrainerCallback, TrainingArguments

from benchmarks.turns import Turn
from lsf.data.encode import EncodedExample, encode
from lsf.data.task import Example
from lsf.jobs.job import Report
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.batches import collate, training_order
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan, full_plan
from lsf.runs.store import append_metrics
from lsf.training.caching import open_caching
from lsf.training.fitting import fit
from lsf.training.short_runs import first_tuning
from lsf.training.trainer import FitSettings

RATE = 1e-4
"""AdamW's peak rate, for everybody."""


def run_ours(model: str, rows: list[tuple[str, str]], blocks: tuple[int, ...], asked: argparse.Namespace) -> None:
    """Tune by our loop, with the prefix cache asked for."""
    turn = Turn()
    loaded = load_model(model, "float32", "cpu")
    encoded = _encode(loaded, rows)
    settings = FitSettings(RATE, asked.steps, asked.batch, 0, 0.0, 0, "float32")
    losses: list[float] = []

    report, folder = Report(), Path(asked.scratch) / "live"
    if asked.live:
        folder.mkdir(exist_ok=True)
        (folder / "spec.json").write_text("{}")

    def watch(row: Any) -> None:
        losses.append(row.loss)
        if asked.live:  # what a run does after every step for those who look on
            report.progress(row.step, asked.steps, f"step {row.step} of {asked.steps}, loss {row.loss:.3f}")
            append_metrics(folder, asdict(row))
            report.partial(asdict(row))
        if len(losses) < asked.steps:
            turn.over()

    turn.ready()
    plan = Plan(model, loaded.info.n_blocks, blocks) if blocks else full_plan(model, loaded.info.n_blocks)
    context = MethodContext(options_of(asked.method, {}), encoded, 0, asked.batch, first_tuning=first_tuning)
    tuned = METHODS[asked.method].prepare(loaded, plan, context)
    caching = open_caching(loaded, tuned, plan, encoded, asked.cache, asked.steps * asked.batch)
    fit(tuned, encoded, settings, Path(asked.scratch), watch, lambda: None, prefix=caching.prefix)
    turn.finish(losses=losses, cache=caching.summary())


class _Handing(TrainerCallback):
    """Ends the turn after every step but the last."""

    def __init__(self, turn: Turn, steps: int) -> None:
        self._turn, self._steps = turn, steps
        self.losses: list[float] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
            if state.global_step < self._steps:
                self._turn.over()


def run_trainer(who: str, model: str, rows: list[tuple[str, str]], blocks: tuple[int, ...], asked: Any) -> None:
    """Tune by transformers' Trainer as its documentation shows: all of it, some blocks, or LoRA on some blocks."""
    turn = Turn()
    loaded = load_model(model, "float32", "cpu")
    encoded = _encode(loaded, rows)
    names = loaded.layout.block_names
    del loaded
    bare: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    if who == "trainer" and blocks:
        kept = tuple(f"{names[block]}." for block in blocks)
        for name, value in bare.named_parameters():
            value.requires_grad = name.startswith(kept)
    if who == "lora":
        bare = get_peft_model(
            bare, LoraConfig(target_modules=_linear(bare, names[0]), layers_to_transform=list(blocks))
        )
    order = training_order(len(encoded), asked.steps * asked.batch, 0)
    handing = _Handing(turn, asked.steps)
    arguments = TrainingArguments(
        output_dir=asked.scratch, max_steps=asked.steps, per_device_train_batch_size=asked.batch, learning_rate=RATE,
        train_sampling_strategy="sequential", logging_steps=1, save_strategy="no", report_to="none", use_cpu=True,
        disable_tqdm=True, remove_unused_columns=False,
    )  # fmt: skip
    trainer = Trainer(
        model=bare,
        args=arguments,
        train_dataset=_Ordered(encoded, order),
        data_collator=lambda items: {key: value for key, value in collate(items).items() if key != "kept"},
        callbacks=[handing],
    )
    turn.ready()
    trainer.train()
    turn.finish(losses=handing.losses)


class _Ordered(torch.utils.data.Dataset[Any]):
    def __init__(self, rows: tuple[EncodedExample, ...], order: Any) -> None:
        self._rows, self._order = rows, order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, at: int) -> Any:
        return self._rows[self._order[at]]


def _linear(model: Any, block: str) -> list[str]:
    """Return the names of a block's matrices below it."""
    inside = model.get_submodule(block)
    return sorted(
        name for name, module in inside.named_modules() if hasattr(module, "weight") and module.weight.dim() == 2
    )


def _encode(loaded: LoadedModel, rows: list[tuple[str, str]]) -> tuple[EncodedExample, ...]:
    return encode(loaded.tokenizer, [Example(*row) for row in rows], loaded.context).rows


def main() -> None:
    """Run one contestant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("who", choices=("ours", "trainer", "lora"))
    parser.add_argument("model")
    parser.add_argument("rows")
    parser.add_argument("--blocks", default="")
    parser.add_argument("--steps", type=int, required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--cache", default="off")
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--method", default="full", help="how our loop tunes")
    parser.add_argument("--live", action="store_true")
    asked = parser.parse_args()
    rows = [tuple(row) for row in json.loads(Path(asked.rows).read_text(encoding="utf-8"))]
    blocks = tuple(int(part) for part in asked.blocks.split(",") if part)
    if asked.who == "ours":
        run_ours(asked.model, rows, blocks, asked)
    else:
        run_trainer(asked.who, asked.model, rows, blocks, asked)


if __name__ == "__main__":
    main()
