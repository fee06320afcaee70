"""General data mixed into training: its share of every step, what is told, and that nothing else changes."""

import io
import json
import zipfile
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file

from lsf.cli.main import main
from lsf.data.task import Example, Task, with_general
from lsf.errors import BadInputError, DataError, RunError, RunPausedError
from lsf.models.batches import training_order
from lsf.runs.comparison import compare
from lsf.runs.formats import bundle_runs, render
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs, load_run, reopen_run
from lsf.training import attempts
from lsf.training.caching import forget_states
from lsf.training.run import tune
from lsf.training.splits import encode_splits
from tests.toy import Stopper, tuned

TEXTS = [f"a {one} ran under a {other} ." for one in ("moon", "sun", "tree") for other in ("mat", "sky")]


def runs_in(folder) -> Any:
    """`list_runs`, for a test that reads results whose parts it knows to be there."""
    return list_runs(folder)


def general_task(*rows):
    return Task("general", rows, (), ())


@pytest.fixture
def mixed(task):
    return with_general(task, general_task(*(Example(text[:6], text[6:]) for text in TEXTS)))


@pytest.fixture
def mixing(spec):
    return replace(spec, general="general", general_share=0.3, steps=10)


def test_of_any_rows_in_a_row_the_share_is_met_to_within_one_and_the_others_keep_their_order():
    order = training_order(50, 240, 3, n_general=20, general_share=0.2)
    general = order >= 30
    assert general.sum() == 48
    per_step = general.reshape(-1, 16).sum(axis=1)
    assert set(per_step.tolist()) == {3, 4}
    assert (order[~general] == training_order(30, 192, 3)).all()
    assert sorted(order[general][:20]) == list(range(30, 50))
    assert (order == training_order(50, 240, 3, 20, 0.2)).all()
    assert (order != training_order(50, 240, 4, 20, 0.2)).any()
    assert not (training_order(50, 2, 3, 20, 0.2) >= 30).any()


def test_the_result_counts_what_was_trained_on_by_hand(loaded, mixed, mixing, folder):
    place = folder(mixing)
    result = tuned(loaded, mixed, mixing, place)
    splits = encode_splits(loaded, mixed, mixing)
    assert splits.own == encode_splits(loaded, mixed, replace(mixing, general=None)).train
    order = training_order(len(splits.train), 40, mixing.seed, 6, 0.3)
    lengths = np.array([len(row.ids) for row in splits.train])[order]
    tokens = int(lengths[order >= len(splits.own)].sum())
    found = result.general
    assert (found.n_rows, found.n_trained, found.tokens) == (6, 12, tokens)
    assert result.tokens == lengths.sum()
    assert found.token_share == tokens / result.tokens
    assert (found.fingerprint, result.n_train) == (mixed.general_fingerprint, len(mixed.train))
    assert load_run(place).result == result


@pytest.mark.parametrize(("share", "epochs"), [(0.3, 2), (0.5, 1), (0.8, 0.5), (0.2, 1.5)])
def test_epochs_are_passes_over_the_data_itself_whatever_is_mixed_in(loaded, mixed, mixing, share, epochs):
    splits = encode_splits(loaded, mixed, replace(mixing, general_share=share, epochs=epochs))
    n_own, wanted = len(splits.own), epochs * len(splits.own)

    def own_rows(steps):
        order = training_order(len(splits.train), steps * mixing.batch_size, mixing.seed, splits.n_general, share)
        return [number for number in order.tolist() if number < n_own]

    assert len(own_rows(splits.steps - 1)) < wanted <= len(own_rows(splits.steps))
    assert set(own_rows(splits.steps)) == set(range(n_own)) or epochs < 1


def test_a_run_without_general_data_is_the_same_whether_the_task_has_some_or_not(loaded, task, mixed, spec, folder):
    one, other = folder(spec), folder(spec)
    first, second = tuned(loaded, task, spec, one), tuned(loaded, mixed, spec, other)
    assert (first.after, first.tokens, first.general) == (second.after, second.tokens, None)
    mine, theirs = (load_file(place / "weights" / "tuned.safetensors") for place in (one, other))
    assert all((mine[name] == theirs[name]).all() for name in mine)


def weights(place):
    return {name: value.tolist() for name, value in load_file(place / "weights" / "tuned.safetensors").items()}


def test_cache_and_resume_change_nothing_and_a_changed_file_is_refused(loaded, mixed, mixing, folder):
    whole = folder(mixing)
    reference = tuned(loaded, mixed, mixing, whole)
    assert reference.cache["kind"] == "memory"
    plain = folder(replace(mixing, cache="off"))
    without = tuned(loaded, mixed, replace(mixing, cache="off"), plain)
    assert without.after.loss == pytest.approx(reference.after.loss, abs=1e-5)
    broken = folder(mixing)
    with pytest.raises(RunPausedError):
        tune(loaded, mixed, mixing, broken, Stopper(4, "pause"))
    spec = reopen_run(broken)
    with pytest.raises(RunError, match="The general data changed since the run's checkpoint"):
        tune(loaded, replace(mixed, general=mixed.general[:-1]), spec, broken)
    forget_states(loaded)
    resumed = tuned(loaded, mixed, RunSpec.load(broken / "spec.json"), broken)
    assert (resumed.resumed_at, resumed.general, resumed.after) == (4, reference.general, reference.after)
    assert weights(broken) == weights(whole)


def test_halved_micro_batches_see_the_same_rows(loaded, mixed, mixing, folder, monkeypatch):
    reference = tuned(loaded, mixed, mixing, folder(mixing))
    real = attempts.fit

    def tight(model, rows, settings, *more):
        if settings.micro_batch > 2:
            raise RuntimeError("CUDA out of memory.")
        return real(model, rows, settings, *more)

    monkeypatch.setattr(attempts, "fit", tight)
    halved = tuned(loaded, mixed, mixing, folder(mixing))
    assert (halved.micro_batch, halved.general) == (2, reference.general)
    assert halved.after.loss == pytest.approx(reference.after.loss, abs=1e-4)


def test_rows_with_a_held_out_prompt_are_left_out_and_told(task):
    general = general_task(*task.test[:2], Example("a red", " sky"))
    found = with_general(task, general)
    assert [row.prompt for row in found.general] == ["a red"]
    assert "General data: 2 with the prompt of a validation or test example are left out." in found.seen.notes
    assert found.fingerprint == task.fingerprint
    with pytest.raises(DataError, match="Every row of the general data general has the prompt of a validation"):
        with_general(task, general_task(*task.test))


def test_what_cannot_be_mixed_is_one_sentence(loaded, task, mixed, mixing):
    with pytest.raises(DataError, match="No general data of general can be mixed in: no row"):
        encode_splits(loaded, task, mixing)
    few = replace(mixing, steps=1, batch_size=1, general_share=0.05)
    with pytest.raises(DataError, match=r"1 step of 1 row has no room for a share of 0\.05"):
        encode_splits(loaded, mixed, few)
    with pytest.raises(BadInputError, match="do not go together"):
        replace(mixing, reweight_tau=1.0)


def test_the_command_the_comparison_and_the_bundle_tell_of_it(tiny, task, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = [{"prompt": row.prompt, "completion": row.completion} for row in task.train]
    (tmp_path / "toy.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "plain.txt").write_text("\n\n".join(TEXTS))
    asked = ["tune", "--model", str(tiny("llama")), "--data", "toy.jsonl", "--learning-rate", "0.01", "--steps", "8"]
    asked += ["--batch-size", "4", "--device", "cpu", "--runs", "runs"]
    assert main([*asked, "--all"]) == main([*asked, "--blocks", "2", "--general", "plain.txt"]) == 0
    assert "general data: 6 rows trained on, " in capsys.readouterr().out
    assert main([*asked, "--blocks", "2", "--general-share", "0.5"]) == 2
    assert "--general-share has no effect without --general; give both" in capsys.readouterr().err
    runs = runs_in(tmp_path / "runs")
    found = compare(runs)
    by_share: Any = {row.general_share: row for row in found.rows}
    assert 0 < by_share[0.2].general_token_share < 1
    assert by_share[0.2].forgetting is not None
    text = render(found)
    assert "20.0 %" in text
    assert "block 2 with 20 % general data (manual)" in text
    assert "of tokens" not in render(compare([run for run in runs if run.spec.general is None]))

    run = next(run for run in runs if run.spec.general)
    zipfile.ZipFile(io.BytesIO(bundle_runs([run]))).extractall(tmp_path / "out")
    again = ["tune", "--spec", str(tmp_path / "out" / run.id / "spec.json"), "--runs", "again"]
    assert main(again) == 0
    (repeated,) = runs_in(tmp_path / "again")
    assert repeated.state is RunState.SUCCEEDED
    assert (repeated.result.general, repeated.result.after) == (run.result.general, run.result.after)
    (tmp_path / "plain.txt").write_text("\n\n".join(TEXTS[1:]))
    with pytest.raises(RunError, match=r"plain\.txt\) has changed since the run"):
        bundle_runs([run])
