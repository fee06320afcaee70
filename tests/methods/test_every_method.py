"""Every method of the registry from the shell on the bundled model, as a person types it."""

import csv
import io
from pathlib import Path

import pytest
from safetensors.torch import load_file

from lsf.cli.main import main
from lsf.data.lessons import load_lesson
from lsf.methods.catalogue import CATALOGUE
from lsf.models.loading import load_model
from lsf.runs.store import list_runs
from lsf.training.artefacts import find_weights, load_tuned
from lsf.training.evaluation import evaluate
from lsf.training.splits import encode_splits

STORED = {
    "bitfit": 4 * 2 * (384 + 640),  # two blocks' biases of attention (128 + 64 + 64 + 128) and MLP
    "pafi": 4 * 1466,  # the values alone: which they are, the base tells
    "random_mask": 4 * 1466,
    "top_magnitude": 4 * 1466,
    "fish": 8 * 1487,  # values, and where they lie
    "lt_sft": 8 * 2974,
    "hiwi form=bias": 4 * 2 * 640,  # two blocks' biases of the MLP (256 + 256 + 128), whatever was tuned to get there
    "did": 4 * 200,
    "said": 4 * 200,
}
"""Method -> bytes that it must store of blocks 6-7; the others are measured by benchmarks/methods.py."""
ASKED = [*CATALOGUE, "hiwi form=bias", "adapter kind=pfeiffer"]


@pytest.mark.parametrize("asked", ASKED)
def test_a_run_by_every_method_is_listed_and_stores_what_it_must_for_any_fresh_base(
    asked: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method, *options = asked.split()
    given = [word for option in options for word in ("--option", option)]
    source = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "6,7", "--eval-limit", "16"]
    command = ["tune", *source, "--method", method, *given, "--steps", "3", "--seed", "3", "--runs", str(tmp_path)]
    assert main(command) == 0
    capsys.readouterr()
    assert main(["compare", str(tmp_path), "--format", "csv"]) == 0
    (row,) = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert row["method"].startswith(method) and row["state"] == "succeeded"
    (run,) = list_runs(tmp_path)
    assert run.spec is not None and run.result is not None and run.result.after is not None
    assert run.result.stored_bytes == STORED.get(asked, run.result.stored_bytes)
    if asked in ("did", "said"):
        assert sum(value.numel() for value in load_file(find_weights(run.folder)).values()) == 200
    fresh = load_model("bundled", "float32", "cpu")
    rows = encode_splits(fresh, load_lesson("facts"), run.spec).test
    again = evaluate(load_tuned(run.folder, fresh), rows, run.spec.batch_size)
    assert again.loss == pytest.approx(run.result.after.loss, abs=1e-5)
    assert again.loss != pytest.approx(evaluate(fresh.model, rows, run.spec.batch_size).loss, abs=1e-4)
