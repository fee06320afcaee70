"""What a launcher, a cluster or accelerate's own defaults left in the environment does not reach into a run."""

import json
import os

import pytest
import torch
from accelerate.state import AcceleratorState

from lsf.cli.main import main
from lsf.data.encode import encode
from lsf.environment import launched_processes, launched_rank, own_environment
from lsf.models.devices import choose_device
from lsf.runs.store import list_runs
from lsf.training.fitting import fit
from lsf.training.trainer import FitSettings
from tests.tiny import tiny_model

SETTINGS = FitSettings(1e-2, steps=3, batch_size=4, warmup_steps=0, weight_decay=0.0, seed=0, base_dtype="float32")
LEFT = [
    {"LOCAL_RANK": "0"},
    {"LOCAL_RANK": "1", "RANK": "1"},
    {"WORLD_SIZE": "4"},
    {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"},
    {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"},
    {"PMI_SIZE": "2", "PMI_RANK": "1"},
    {"OMPI_COMM_WORLD_SIZE": "2", "LOCAL_RANK": "0"},
    {"ACCELERATE_MIXED_PRECISION": "bf16"},
    {"ACCELERATE_MIXED_PRECISION": "bf16", "LOCAL_RANK": "0", "ACCELERATE_USE_FSDP": "true"},
    {"ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "3"},
    {"ACCELERATE_DYNAMO_BACKEND": "inductor"},
]


def set_all(monkeypatch, values):
    for name, value in values.items():
        monkeypatch.setenv(name, value)


def fitted(loaded, task, folder):
    """Tune a fresh tiny model for three steps; return its weights."""
    model = tiny_model("llama")
    model.requires_grad_(True)
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    seen = fit(model, rows, SETTINGS, folder, lambda row: None, lambda: None)
    assert seen.steps == 3
    return model.state_dict()


@pytest.mark.parametrize("left", LEFT, ids=lambda left: " ".join(left))
def test_a_fit_has_the_bits_of_one_in_a_clean_environment(left, loaded, task, tmp_path, monkeypatch):
    clean = fitted(loaded, task, tmp_path)
    set_all(monkeypatch, left)
    before = dict(os.environ)
    try:
        found = fitted(loaded, task, tmp_path)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)
    assert all(torch.equal(clean[name], value) for name, value in found.items())
    assert dict(os.environ) == before


@pytest.mark.parametrize("left", LEFT[:7], ids=lambda left: " ".join(left))
def test_a_lone_process_is_the_first_of_one_whatever_was_left(left, monkeypatch):
    set_all(monkeypatch, left)
    assert (launched_processes(), launched_rank()) == (1, 0)
    assert choose_device("cpu").name == "cpu"


def test_a_launcher_is_known_by_all_that_it_sets(monkeypatch):
    whole = {"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}
    set_all(monkeypatch, {**whole, "ACCELERATE_MIXED_PRECISION": "fp16", "ACCELERATE_USE_FSDP": "true"})
    assert (launched_processes(), launched_rank()) == (2, 1)
    with own_environment():
        assert {name: os.environ.get(name) for name in whole} == whole
        assert os.environ["ACCELERATE_USE_FSDP"] == "true"
        assert "ACCELERATE_MIXED_PRECISION" not in os.environ
    monkeypatch.delenv("LOCAL_RANK")
    assert launched_processes() == 1


def test_the_command_runs_alone_and_says_which_precision_it_does_not_take(tiny, tmp_path, monkeypatch, capsys):
    rows = [{"prompt": f"the {word} sat", "completion": " on ."} for word in ("cat", "dog", "sun", "moon", "sky")]
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    asked = ["tune", "--model", str(tiny("llama")), "--data", str(tmp_path / "rows.jsonl"), "--blocks", "3"]
    asked += ["--steps", "1", "--batch-size", "2", "--runs", str(tmp_path / "runs")]
    set_all(monkeypatch, {"LOCAL_RANK": "0", "RANK": "1", "ACCELERATE_MIXED_PRECISION": "bf16"})
    assert main(asked) == 0
    shown = capsys.readouterr()
    assert "succeeded after 1 step:" in shown.out
    assert "accelerate's mixed precision bf16 is ignored; --dtype sets what a run computes in" in shown.err
    (run,) = list_runs(tmp_path / "runs")
    assert run.state.value == "succeeded"
