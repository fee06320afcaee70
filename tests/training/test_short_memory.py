"""Memory that does not suffice for something beside the run: the run itself is not lost."""

from dataclasses import replace

import pytest
import torch

from lsf.jobs.result import RunState
from lsf.jobs.runs import create_run, load_run
from lsf.measure.exhaustion import is_out_of_memory
from lsf.training import latency
from lsf.training.artefacts import load_tuned
from lsf.training.run import tune


def no_room(*_arguments: object, **_named: object) -> None:
    """Ask for more than any machine has, as torch refuses it."""
    torch.empty(2**60)


def test_a_tuned_model_that_does_not_fit_is_short_memory_and_no_bad_file(loaded, task, spec, tmp_path, monkeypatch):
    folder = create_run(tmp_path, spec)
    tune(loaded, task, spec, folder)
    monkeypatch.setattr("lsf.training.methods.full.share_model", no_room)
    with pytest.raises(RuntimeError) as caught:
        load_tuned(folder, loaded)
    assert is_out_of_memory(caught.value)


def test_a_run_that_was_saved_succeeds_where_memory_is_short_for_timing_it(loaded, task, spec, tmp_path, monkeypatch):
    asked = []

    def load_where_there_is_no_room(*arguments):
        asked.append(arguments)
        with monkeypatch.context() as patch:
            patch.setattr("lsf.training.methods.full.share_model", no_room)
            return load_tuned(*arguments)

    monkeypatch.setattr(latency, "load_tuned", load_where_there_is_no_room)
    timed = replace(spec, latency="on")
    folder = create_run(tmp_path, timed)
    result = tune(loaded, task, timed, folder)
    assert asked
    assert (result.state, result.latency_ratio) == (RunState.SUCCEEDED, None)
    assert load_run(folder).result == result
