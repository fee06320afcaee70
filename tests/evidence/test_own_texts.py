"""Own sweeps of the same rows: the same texts count once, other texts are another pair."""

from dataclasses import replace
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.errors import BadInputError
from lsf.evidence.own import (
    OwnSweep,
    compared_criteria,
    keep_own,
    own_evidence,
    own_problems,
    own_sweeps,
    record_here,
)
from lsf.evidence.standing import LEAST_PAIRS, standing_rule
from tests.evidence.test_own import WEIGHTS, analysed, one_of, sweep_of


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder of own sweeps."""
    monkeypatch.setenv("LSF_EVIDENCE", str(tmp_path / "evidence"))


def of_texts(first_texts: str | None, best: int = 0) -> OwnSweep:
    """Of the same rows by a chat template, of which only a hash of the texts says whether it is the same."""
    made = {"rendering": "chat by the model's template", "first_texts": first_texts}
    return one_of(replace(sweep_of(best=best), **made))


def test_sweeps_of_the_same_rows_are_two_pairs_where_the_template_changed_in_between(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before, after = of_texts("aaaaaaaa", best=5), of_texts("bbbbbbbb", best=2)
    first, _ = keep_own(before)
    second, replaced = keep_own(after)
    assert (replaced, first.exists(), second.exists()) == (False, True, True)
    assert sorted(own_sweeps(), key=lambda one: one.sweep.first_texts or "") == [before, after]
    assert record_here().n_own == len(own_evidence()) == 2
    assert own_problems() == ()
    told = f"you have 2 sweeps of this model on 1 data set, and sweeps on {LEAST_PAIRS} data sets are needed"
    assert told in (standing_rule(WEIGHTS).why or "")  # the same rows are one case
    assert keep_own(of_texts("bbbbbbbb", best=3)) == (second, True)  # the same texts count once
    assert len(own_sweeps()) == 2
    assert main(["evidence", "list"]) == 0
    out = capsys.readouterr().out
    assert "by exact_match, texts aaaaaa\n" in out
    assert "by exact_match, texts bbbbbb\n" in out
    assert main(["evidence", "remove", first.stem]) == 0
    capsys.readouterr()
    assert main(["evidence", "list"]) == 0
    assert "by exact_match\n" in capsys.readouterr().out  # nothing to be told from


def test_a_sweep_that_does_not_say_its_texts_counts_once_with_one_that_does() -> None:
    keep_own(of_texts(None))
    assert keep_own(of_texts("aaaaaaaa"))[1]
    assert keep_own(of_texts(None, best=3))[1]
    assert keep_own(of_texts("aaaaaaaa"))[1]
    assert len(own_sweeps()) == 1
    keep_own(of_texts("bbbbbbbb"))
    with pytest.raises(BadInputError, match=r"may be of any of 2 that count, .*; run it again, or remove .*toy\.csv-"):
        keep_own(of_texts(None))
    assert {one.sweep.first_texts for one in own_sweeps()} == {"aaaaaaaa", "bbbbbbbb"}


def test_adding_a_sweep_names_one_of_the_same_rows_as_other_texts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keep_own(before := of_texts("aaaaaaaa"))
    of_texts("bbbbbbbb", best=5).sweep.save(tmp_path / "s.json")
    analysed(compared_criteria(), first_texts="bbbbbbbb").save(tmp_path / "a.json")
    assert main(["evidence", "add", str(tmp_path / "s.json"), "--analysis", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("added: ")
    assert (
        f"Beside it counts {before.name}, of the same rows as other texts (another chat template, tokenizer or "
        f"--max-length); `lsf evidence remove {before.name}` takes it out.\n"
    ) in out
