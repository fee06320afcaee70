"""Two-step adaptation: what one run tuned becomes the base of the next."""

import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from lsf.cli.main import main
from lsf.errors import RunError, RunPausedError
from lsf.methods.catalogue import options_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.lock import WEIGHTS
from lsf.runs.store import list_runs, reopen_run
from lsf.training.artefacts import load_tuned, save_merged
from tests.toy import Stopper, tuned


def test_a_merged_run_is_a_model_on_which_the_next_run_tunes(tiny, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    data = tmp_path / "data.csv"
    rows = [f"the {one} sat on, {two}" for one in ("cat", "dog", "sun") for two in ("mat", "red", "two", "blue")]
    data.write_text("\n".join(["prompt,completion", *rows]) + "\n")
    base, runs = str(tiny("llama")), tmp_path / "runs"
    shared = ["--data", str(data), "--blocks", "2", "--steps", "2", "--batch-size", "4", "--device", "cpu"]
    template = "{% for message in messages %}{{ message['content'] }} {% endfor %}"
    (tmp_path / "chat.jinja").write_text(template)
    lora = ["--method", "lora", "--option", "maps=mlp", "--chat-template", str(tmp_path / "chat.jinja")]
    assert main(["tune", "--model", base, *shared, *lora, "--runs", str(runs)]) == 0
    (first,) = list_runs(runs)
    merged = tmp_path / "merged"
    assert main(["merge", "--run", str(first.folder), "--out", str(merged)]) == 0
    said = capsys.readouterr().out
    assert "lora (maps=mlp) on block 2" in said
    assert "Merged in float32, its logits differ from the tuned model's by" in said
    for taken in (merged, first.folder, data):  # above all never the base itself
        assert main(["merge", "--run", str(first.folder), "--out", str(taken)]) == 2
        assert "already exists; --out names a folder that is new or empty" in capsys.readouterr().err
    ids = torch.tensor([[5, 6, 7]])
    loaded = load_model(base, "float32", "cpu")
    live, plain = load_tuned(first.folder, loaded), load_model(str(merged), "float32", "cpu").model
    with torch.no_grad():
        torch.testing.assert_close(plain(ids).logits, live(ids).logits, rtol=1e-4, atol=1e-5)
        assert not torch.equal(plain(ids).logits, loaded.model(ids).logits)
    assert AutoTokenizer.from_pretrained(merged).chat_template == template
    assert loaded.tokenizer.chat_template is None
    assert main(["tune", "--model", str(merged), *shared, "--runs", str(runs)]) == 0
    assert [run.state for run in list_runs(runs)] == ["succeeded", "succeeded"]


def test_a_merge_that_the_disk_does_not_take_leaves_nothing_in_the_way_of_the_next(
    loaded, task, spec, folder, tmp_path: Path
):
    place = folder(spec)
    tuned(loaded, task, replace(spec, steps=1), place)
    new, empty, whole = tmp_path / "new", tmp_path / "empty", tmp_path / "whole"
    empty.mkdir(mode=0o750)
    before = sorted(tmp_path.iterdir())
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
    try:
        for out in (new, empty):
            with pytest.raises(RunError, match=f"Cannot write the merged model to {out}: .*File too large"):
                save_merged(place, loaded, out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert sorted(tmp_path.iterdir()) == before and not list(empty.iterdir())
    whole.mkdir()
    for out in (new, empty):
        save_merged(place, loaded, out)
        assert {"config.json", "model.safetensors", "tokenizer.json"} <= {item.name for item in out.iterdir()}
    assert [oct(out.stat().st_mode)[-3:] for out in (new, empty)] == [oct(whole.stat().st_mode)[-3:], "750"]
    assert sorted(tmp_path.iterdir()) == sorted([*before, new, whole])


def test_a_run_that_went_on_from_where_it_was_stopped_and_kept_is_not_merged_as_it_was_there(
    loaded, task, spec, folder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    spec = replace(spec, steps=20, checkpoint_steps=4)
    place = folder(spec)
    assert tuned(loaded, task, spec, place, Stopper(7, "keep")).kept and (place / WEIGHTS).is_dir()
    with pytest.raises(RunPausedError):
        tuned(loaded, task, reopen_run(place), place, Stopper(2, "pause"))
    assert main(["merge", "--run", str(place), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"The run {place.name} has no tuned model: Its process ended before the run did" in said
    assert not (tmp_path / "out").exists() and not (place / WEIGHTS).exists()
    assert tuned(loaded, task, reopen_run(place), place).steps == 20 and (place / WEIGHTS).is_dir()


def test_only_the_mlps_maps_are_tuned_where_asked(tiny):
    loaded = load_model(str(tiny("llama")), "float32", "cpu")
    plan, options = Plan("m", 4, (1,)), options_of("lora", {"maps": "mlp"})
    model = METHODS["lora"].prepare(loaded, plan, MethodContext(options))
    tuned = {name for name, value in model.named_parameters() if value.requires_grad}
    assert tuned and all(".mlp." in name for name in tuned)
    assert sum(model.get_parameter(name).numel() for name in tuned) == METHODS["lora"].count(loaded, plan, options)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "empty").mkdir()
    assert main(["merge", "--run", str(tmp_path / "empty"), "--out", str(tmp_path / "out")]) == 2
    assert "is not a run folder: it has no spec.json" in capsys.readouterr().err
