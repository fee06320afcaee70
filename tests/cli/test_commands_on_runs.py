"""Commands that take a run: graft and ask as they are typed, and what a run's state does not allow."""

import json
from pathlib import Path

import pytest

from lsf.cli.main import main


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    runs = tmp_path_factory.mktemp("runs")
    asked = "tune --model bundled --data lesson:facts --blocks 5-7 --steps 4 --eval-limit 16 --learning-rate 0.003"
    assert main([*asked.split(), "--runs", str(runs)]) == 0
    (folder,) = (place for place in runs.iterdir() if (place / "spec.json").exists())
    return str(folder)


def test_blocks_from_either_model_are_read_on_the_runs_test_rows_and_on_other_data(run, tmp_path, capsys) -> None:
    out = tmp_path / "m.json"
    assert main(["graft", "--run", run, "--blocks", "6-7", "--from", "tuned", "--json", str(out)]) == 0
    told = capsys.readouterr().out
    assert "base model with blocks 6 and 7" in told and "16 test rows of lesson:facts" in told
    found = json.loads(out.read_text())
    assert found["over_base"]["mean"] == pytest.approx(found["base"]["loss"] - found["mixed"]["loss"])
    assert not (Path(run) / "graft.json").exists()
    assert main(["graft", run, "--blocks", "5", "--from", "base", "--data", "lesson:labels"]) == 0
    told = capsys.readouterr().out
    assert "tuned model without block 5" in told and "test rows of lesson:labels" in told


def test_a_mixture_answers_a_prompt_between_base_and_tuned_model(run, capsys) -> None:
    assert main(["graft", run, "--blocks", "7", "--from", "tuned", "--prompt", "Jorvik has its capital in"]) == 0
    told = capsys.readouterr().out
    assert "base model, the prompt" in told and "base model with block 7: blocks 5-7" in told


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("graft RUN --blocks 6", "--blocks and --from go together"),
        ("graft RUN --from base", "--blocks and --from go together"),
        ("graft RUN --prompt hello", "--prompt and --data are for chosen blocks"),
        ("graft RUN --blocks 1 --from base", "The run did not tune block 1; it tuned: block 5, block 6, block 7"),
        ("graft RUN --blocks 1 --from tuned --prompt hello", "The run did not tune block 1"),
        ("graft", "No run is named"),
        ("graft RUN --run /elsewhere", "Two runs are named"),
        ("ask --prompt hello", "No run is named"),
    ],
)
def test_half_a_question_is_one_sentence(run, asked, sentence, capsys) -> None:
    assert main([run if word == "RUN" else word for word in asked.split()]) == 2
    assert sentence in capsys.readouterr().err


def test_a_run_named_twice_answers_once(run, capsys) -> None:
    assert main(["ask", run, "--run", run, "--prompt", "Jorvik has its capital in", "--tokens", "2"]) == 0
    assert capsys.readouterr().out.count("the prompt") == 2


def test_what_a_runs_state_does_not_allow_is_bad_input_and_nothing_is_lost(run, tmp_path, capsys) -> None:
    result = (Path(run) / "result.json").read_bytes()
    for asked, sentence in (
        (["tune", "--resume", run], "has succeeded; there is nothing to resume"),
        (["runs", "measure", run], "has nothing to measure"),
        (["runs", "bundle", run, "--zip", f"{run}/result.json"], "that is the folder of the run"),
    ):
        assert main(asked) == 2
        assert sentence in capsys.readouterr().err
    assert (Path(run) / "result.json").read_bytes() == result
