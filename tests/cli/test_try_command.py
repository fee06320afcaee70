"""`try`: a plan of the best depth, which `tune` takes; and one sentence where nothing can be tried."""

from pathlib import Path

import pytest

from lsf.cli.main import main
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
