"""Every method of the registry from the shell, as a person types it."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from lsf.cli.main import main
from lsf.data.lessons import load_lesson
from lsf.data.task import Task
from lsf.methods.catalogue import CATALOGUE, options_of
from lsf.methods.registry import METHODS
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan
from lsf.runs.comparison import compare
from lsf.runs.store import list_runs
from lsf.training.artefacts import find_weights, load_tuned
from lsf.training.evaluation import evaluate
from lsf.training.short_runs import spec_rate
from lsf.training.splits import encode_splits

STORED = {
    "bitfit": 4 * 2 * 352,  # two blocks' biases: norms (64), attention (96 + 32) and MLP (128 + 32)
    "pafi": 4 * 120,  # the values alone: which they are, the base tells
    "random_mask": 4 * 120,
    "top_magnitude": 4 * 120,
    "fish": 8 * 127,  # values, and where they lie
    "lt_sft": 8 * 254,
    "hiwi form=bias": 4 * 2 * 160,  # two blocks' biases of the MLP (128 + 32), whatever was tuned to get there
    "did": 4 * 200,
    "said": 4 * 200,
}
"""Method -> bytes that it must store of blocks 2-3 of a tiny GPT-2."""
ASKED = [*CATALOGUE, "hiwi form=bias", "adapter kind=pfeiffer"]


def run_from_the_shell(asked: str, source: list[str], folder: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Tune by a method with options, find the run in the table, and return it."""
    method, *options = asked.split()
    given = [word for option in options for word in ("--option", option)]
    command = ["tune", *source, "--method", method, *given, "--steps", "3", "--seed", "3", "--runs", str(folder)]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["compare", str(folder), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    (run,) = list_runs(folder)
    assert (row["method"], row["state"]) == (run.spec.how if run.spec else None, "succeeded")
    return run


def check_that_it_loads(run: Any, fresh: LoadedModel, task: Task) -> None:
    """Its weights on a fresh base have the loss of the run, and another one than the base."""
    rows = encode_splits(fresh, task, run.spec).test
    again = evaluate(load_tuned(run.folder, fresh), rows, run.spec.batch_size)
    assert again.loss == pytest.approx(run.result.after.loss, abs=1e-5)
    assert again.loss != pytest.approx(evaluate(fresh.model, rows, run.spec.batch_size).loss, abs=1e-4)


@pytest.mark.parametrize("asked", ASKED)
def test_a_run_by_every_method_proves_itself_is_listed_and_stores_what_it_must_for_any_fresh_base(
    asked: str,
    gpt2: LoadedModel,
    tiny: Callable[[str], Path],
    task: Task,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data = tmp_path / "toy.jsonl"
    splits = {"train": task.train, "validation": task.validation, "test": task.test}
    rows = [(name, row.prompt, row.completion) for name, split in splits.items() for row in split]
    data.write_text(
        "\n".join(json.dumps(dict(zip(("split", "prompt", "completion"), row, strict=True))) for row in rows)
    )
    source = ["--model", str(tiny("gpt2")), "--data", str(data), "--blocks", "2,3", "--device", "cpu"]
    run = run_from_the_shell(asked, source, tmp_path / "runs", capsys)
    method, options = METHODS[asked.split()[0]], options_of(asked.split()[0], run.spec.options)
    assert run.result.proof.holds
    assert run.result.trainable_params == method.count(gpt2, Plan("tiny", 4, (2, 3)), options)
    assert (run.result.learning_rate, run.result.rate_from) == (spec_rate(gpt2, run.spec), "default")
    stored = load_file(find_weights(run.folder)).values()
    assert run.result.stored_bytes == sum(value.nbytes for value in stored)
    assert run.result.stored_bytes == STORED.get(asked, run.result.stored_bytes)
    if asked in ("did", "said"):
        assert sum(value.numel() for value in stored) == 200
    (row,) = compare([run]).rows
    assert (row.method, row.stored_bytes) == (run.spec.how, run.result.stored_bytes)
    check_that_it_loads(run, load_model(str(tiny("gpt2")), "float32", "cpu"), task)


def test_a_method_on_the_bundled_model_stores_as_little_as_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "6,7", "--eval-limit", "16"]
    run = run_from_the_shell("bitfit", source, tmp_path, capsys)
    assert run.result.stored_bytes == 4 * 2 * (384 + 640)  # biases of attention (128 + 64 + 64 + 128) and MLP
    check_that_it_loads(run, load_model("bundled", "float32", "cpu"), load_lesson("facts"))
