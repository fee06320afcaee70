"""`try`: a plan of the best depth, which `tune` takes; and one sentence where nothing can be tried."""

from collections.abc import Callable
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.evidence.real import trying_helps
from lsf.plans.plan import Plan

TRY = "try --model bundled --data lesson:facts --eval-limit 16 --steps 4".split()


def test_the_plan_of_the_best_depth_is_written_and_can_be_tuned(tmp_path: Path, capsys) -> None:
    out = tmp_path / "plan.json"
    assert main([*TRY, "--blocks", "2", "--json", str(out)]) == 0
    told, plan = capsys.readouterr().out, Plan.load(out)
    losses = {line.split()[0]: float(line.split()[-1]) for line in told.splitlines()[2:7]}
    assert list(losses) == ["0-1", "2-3", "3-4", "5-6", "6-7"]
    assert plan.label == f"blocks {min(losses, key=lambda name: losses[name])}"
    assert "validation loss of 16 examples after 2 of 4 steps" in told
    assert "the least of 5 depths" in plan.reasons[str(plan.blocks[0])]
    tuned = "tune --model bundled --data lesson:facts --steps 1 --eval-limit 4 --plan".split()
    assert main([*tuned, str(out), "--runs", str(tmp_path / "runs")]) == 0


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--blocks", "9"], "The budget is 9 blocks; this model allows 1 to 8."),
        (["--blocks", "1", "--learning-rate", "auto"], "A try searches no learning rate; give a number"),
        (["--blocks", "1", "--steps", "0"], "steps is 0"),
        (["--blocks", "1", "--method", "lore"], "lora"),
    ],
)
def test_what_cannot_be_tried_is_one_sentence_and_writes_nothing(tmp_path: Path, capsys, more, sentence) -> None:
    out = tmp_path / "plan.json"
    try:
        code = main([*TRY, *more, "--json", str(out)])
    except SystemExit as error:  # argparse's own
        code = error.code
    assert code == 2
    assert sentence in capsys.readouterr().err
    assert not out.exists()


def test_of_a_model_outside_of_the_study_the_plan_says_who_recommends_and_what_else_there_is(
    tiny: Callable[[str], Path], tmp_path: Path, capsys
) -> None:
    rows, found, out = tmp_path / "rows.csv", tmp_path / "a.json", str(tmp_path / "plan.json")
    words = ("cat", "dog", "sun", "moon")
    rows.write_text("\n".join(["prompt,completion", *(f"the {one} sat on, {two}" for one in words for two in words)]))
    source = ["--model", str(tiny("llama")), "--data", str(rows)]
    assert main(["analyze", *source, "--criteria", "alignment", "--limit", "8", "--json", str(found)]) == 0
    asked = ["plan", "--analysis", str(found), "--criterion", "alignment", "--policy", "window", "--json", out]
    assert main([*asked, "--blocks", "1"]) == 0
    told = capsys.readouterr().out
    assert "is what the study of small models recommends" in told
    assert ("`try` tunes a few depths briefly" in told) == trying_helps(1)
