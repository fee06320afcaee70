"""Rows in the order of their answers, of which the first do not stand for all."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.data.report import unlike_the_rest
from lsf.data.task import Example


def rows_of(labels: Sequence[str]) -> tuple[Example, ...]:
    return tuple(Example(f"question {number}:", f" {label}") for number, label in enumerate(labels))


SORTED = [label for label in "abcdef" for _ in range(100)]


def test_the_first_rows_of_a_sorted_file_are_told_to_be_unlike_the_rest() -> None:
    told = unlike_the_rest(rows_of(SORTED), 200)
    assert told is not None
    assert told.startswith("The first 200 of 600 rows have other answers than all of them (2 of 6 different ones)")


@pytest.mark.parametrize("n_first", [16, 64, 200, 599])
def test_nothing_is_told_of_rows_in_no_order(n_first: int) -> None:
    for seed in range(20):
        shuffled = random.Random(seed).sample(SORTED, len(SORTED))
        assert unlike_the_rest(rows_of(shuffled), n_first) is None


@pytest.mark.parametrize(
    "labels",
    [SORTED[:200], [f"answer {number}" for number in range(600)], ["same"] * 600],
    ids=["all are read", "free text", "one answer"],
)
def test_nothing_is_told_where_all_is_read_or_answers_are_no_labels(labels: list[str]) -> None:
    assert unlike_the_rest(rows_of(labels), 200) is None


def test_an_analysis_of_a_sorted_file_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = tmp_path / "sorted.csv", tmp_path / "a.json"
    lines = (f"Who is number {number}?, {label}" for number, label in enumerate(SORTED))
    data.write_text("\n".join(["prompt,completion", *lines]), encoding="utf-8")
    arguments = ["analyze", "--model", "bundled", "--data", str(data), "--limit", "20", "--json", str(out)]
    assert main(arguments) == 0
    assert "The first 20 of 600 rows have other answers than all of them (1 of 6" in capsys.readouterr().err
