"""Trainer works where the model is, and a run says nothing of where the next one works."""

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from transformers import TrainingArguments

from lsf.data.encode import encode
from lsf.training.fitting import fit
from lsf.training.trainer import FitSettings, training_arguments
from tests.tiny import tiny_model

SETTINGS = FitSettings(1e-3, steps=1, batch_size=2, warmup_steps=0, weight_decay=0.0, seed=0, base_dtype="float32")


@pytest.fixture
def two_gpus(monkeypatch):
    """Two GPUs as far as the choice between them goes; yields which of them is the current one."""
    current = [1]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: current.append(torch.device(device).index))
    yield current
    AcceleratorState._reset_state(reset_partial_state=True)


def test_trainers_own_choice_is_the_first_gpu_whichever_is_the_current_one(two_gpus, tmp_path):
    assert TrainingArguments(str(tmp_path), report_to="none").device == torch.device("cuda:0")
    assert two_gpus == [1, 0]  # so a context around it does not suffice


def test_a_run_works_on_the_second_gpu_where_its_model_is_there(two_gpus, tmp_path):
    arguments = training_arguments(SETTINGS, tmp_path, torch.device("cuda:1"))
    assert arguments.device == Accelerator().device == torch.device("cuda:1")
    assert two_gpus[-1] == 1
    assert arguments.n_gpu == 1


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_a_later_run_on_another_device_does_not_inherit_the_earlier_ones(device, tmp_path):
    for name in (device, "cpu", device):
        arguments = training_arguments(SETTINGS, tmp_path, torch.device(name))
        assert arguments.device == Accelerator(cpu=name == "cpu").device == torch.device(name)
    AcceleratorState._reset_state(reset_partial_state=True)


def test_a_fit_works_where_its_model_is_after_another_device_was_used(loaded, task, tmp_path):
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    training_arguments(SETTINGS, tmp_path, torch.device("meta"))
    model = tiny_model("llama")
    model.requires_grad_(True)
    before = model.lm_head.weight.clone()
    fit(model, rows, SETTINGS, tmp_path, lambda row: None, lambda: None)
    assert model.lm_head.weight.device == torch.device("cpu")
    assert not torch.equal(model.lm_head.weight, before)
