"""A real small sweep of the bundled model, added from the shell, and what the pages make of it."""

from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app.work import Analysed, Request
from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.lessons import load_lesson
from lsf.evidence.own import keep_own, own_evidence, record_here, remove_own
from lsf.evidence.packed import Measured, packed_record
from lsf.evidence.regret import regret
from lsf.evidence.standing import LEAST_PAIRS
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.plans.policies import recommended_plan
from lsf.progress import Silent
from tests.evidence.test_own import one_of, sweep_of
from tests.pages.conftest import Driver


@pytest.fixture
def swept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A sweep of single blocks, measured by the command."""
    monkeypatch.setenv("LSF_EVIDENCE", str(tmp_path / "evidence"))
    asked = ["--over", "single", "--seeds", "1", "--steps", "12", "--learning-rate", "0.01", "--eval-limit", "16"]
    out = tmp_path / "s.json"
    assert main(["sweep", "--model", "bundled", "--data", "lesson:facts", *asked, "--json", str(out)]) == 0
    return out


@pytest.mark.slow
def test_a_sweep_added_from_the_shell_is_counted_on_the_pages(
    app: Driver, swept: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evidence", "add", str(swept)]) == 0
    told = capsys.readouterr()
    assert "scoring blocks on" in told.err
    others = packed_record().n_sites - 1  # the study has this pair too
    assert f"rests on {others} measured pairs of a model and a task and 1 of your own." in told.out
    (pair,) = own_evidence()
    settings = AnalysisSettings(criteria=("alignment", "first"), limit=8)
    scored = analyze(load_model("bundled"), load_lesson("facts"), settings, Silent())
    assert pair.examples["kernel"] == 8  # 12 steps of 16 rows: the least that is read
    assert pair.setting.scores["alignment"] == scored.scores("alignment")  # what the product's own analysis says
    truth, choice = pair.setting.truth, recommended_plan(scored, 1).blocks
    lost = regret(truth, choice)
    sentence = (
        f"Your own sweep of this model on facts, at 1 block: the rule named block {choice[0]} and lost "
        f"{100 * (lost.relative or 0):.1f} % of the best plan's gain against block {lost.best[0]}; at random "
    )
    app.look_at(Analysed(Request(), scored), "choose")
    app.at.slider(key="budget-8").set_value(1).run()
    assert not app.at.exception
    shown = app.shown()
    assert sentence in shown
    assert "The rule stays the study's, Gradient alignment: you have 1 sweep of this model, and 5 are needed" in shown
    assert f"over {record_here().pairs}, this rule lost" in shown
    app.go("evidence")
    assert f"Over {record_here().pairs}, each of which counts the same" in app.shown()
    app.at.selectbox(key="setting").set_value(pair.setting.name).run()
    assert not app.at.exception
    assert "criteria read 8 to 48 examples" in app.shown()
    scored.save(tmp_path / "a.json")
    asked = ["--analysis", str(tmp_path / "a.json"), "--criterion", "alignment", "--blocks", "1"]
    assert main(["plan", *asked, "--json", str(tmp_path / "p.json")]) == 0
    assert sentence in capsys.readouterr().out

    _another_rule(app, pair)


def _another_rule(app: Driver, pair: Measured) -> None:
    """Five made-up sweeps of this model, in all of which the first block is best, change what is recommended for it."""
    remove_own(pair.setting.name)
    for place in range(LEAST_PAIRS):
        keep_own(one_of(replace(sweep_of(f"{place}.csv", best=0, top=0.9 + 0.01 * place), weights=str(pair.weights))))
    app.go("choose")
    assert not app.at.exception
    shown = app.shown()
    assert "**Tune block 0.** The rule: the block, or range of neighbouring blocks, with the highest First." in shown
    assert "The rule is First in place of the study's, Gradient alignment: it lost 69.7 % less" in shown
    assert f"over {record_here().pairs}, the study's rule lost" in shown
    assert app.at.selectbox(key="criterion").value == "first"
