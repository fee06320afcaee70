"""The tables and the picture of the page Compare: no run's number hides another's."""

from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app.compare import named_warnings, samples_table, seeds_table, tradeoff_picture
from lsf.app.runs import curves
from lsf.figures.runs import draw_curves
from lsf.plans.plan import Plan
from lsf.runs.comparison import compare
from lsf.runs.lock import SPEC
from lsf.runs.result import Metrics, RunResult, RunState, Sample
from lsf.runs.seeds import summarise
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, append_metrics
from lsf.runs.verdict import EXACT, LOSS, percent, verdicts
from tests.runs import test_verdict as judged
from tests.runs.test_comparison import make


def run(name: str, exact: float, rate: float = 1e-3, seed: int = 0, before: str = "?") -> Run:
    spec = RunSpec("m", "d", Plan("m", 8, (7,)), learning_rate=rate, seed=seed)
    result = RunResult(
        RunState.SUCCEEDED,
        after=Metrics(exact_match=exact),
        steps=100,
        seconds=4.0,
        learning_rate=rate,
        samples=(Sample("p", " t", before, f" {name}"),),
    )
    return Run(Path(name), name, spec, RunState.SUCCEEDED, result, None)


def test_runs_of_the_same_name_have_their_answers_in_columns_of_their_own() -> None:
    table = samples_table([run("aaaa", 0.5), run("bbbb", 0.6)])
    assert set(table.columns) - {"prompt", "wanted", "before"} == {
        "choice: block 7 · aaaa",
        "choice: block 7 · bbbb",
    }
    assert sorted(table.iloc[0].tolist()) == sorted(["p", " t", "?", " aaaa", " bbbb"])


def test_what_is_said_against_runs_names_them_as_the_table_does() -> None:
    runs = [make("20260101-aaaa"), make("20260101-bbbb", (3,), role="random")]
    (told,) = [one for one in named_warnings(compare(runs), runs) if "No full run" in one]
    assert told == (
        "No full run of the same model, data, seed and steps for choice: block 7, random block 3; ratios to it are "
        "unknown."
    )
    whole = make("20260101-cccc", "full", role="full")
    lost = replace(whole, result=replace(whole.result, failure="DivergedError"))
    told = named_warnings(compare([runs[0], lost]), [runs[0], lost])
    assert any("diverged; no ratio refers to it" in one for one in told)
    assert not any("No full run" in one for one in told)  # there is one
    wrecked = [replace(one, result=replace(one.result, failure="DivergedError")) for one in runs[1:]]
    assert any(one.startswith("Random block 3: diverged.") for one in named_warnings(compare(wrecked), wrecked))


def test_the_title_over_curves_looks_at_every_run_also_where_two_have_one_name(tmp_path: Path) -> None:
    runs = []
    for name, exact in (("aaaa", 0.9), ("bbbb", 0.2)):
        folder = tmp_path / name
        folder.mkdir()
        run(name, exact).spec.save(folder / SPEC)  # type: ignore[union-attr]
        append_metrics(folder, {"step": 5, "validation_exact_match": exact})
        runs.append(replace(run(name, exact), folder=folder))
    picture = draw_curves(curves(runs, "validation exact match", "steps"), "exact match", "steps", False, True)
    assert picture.title == "Exact match: choice: block 7 · aaaa highest with 90 %"


def test_answers_of_other_base_models_are_rows_of_their_own() -> None:
    other = run("bbbb", 0.6, before="!")
    assert samples_table([run("aaaa", 0.5), replace(other)])["before"].tolist() == ["?", "!"]


def test_a_seed_run_twice_is_one_seed_of_the_picture() -> None:
    runs = [run("a", 0.6), run("b", 0.6), run("c", 0.8, seed=1)]
    comparison = compare(runs)
    picture = tradeoff_picture(comparison.rows, summarise(comparison.rows), "training seconds")
    assert picture is not None
    assert picture.table["seeds"].tolist() == [2]
    assert picture.table["test exact match"].tolist() == [pytest.approx(0.7)]


def test_the_share_over_seeds_is_the_same_number_in_the_verdict_and_the_table_and_seeds_left_out_are_said() -> None:
    ended = [(0, 0.5), (1, 1.0), (2, 1.5)]
    runs = [judged.whole(f"f{seed}", exact=0.0, loss=loss, seed=seed) for seed, loss in ended]
    runs += [judged.run(f"c{seed}", exact=0.0, loss=1.5, seed=seed) for seed in range(4)]
    comparison = compare(runs)
    (verdict,) = verdicts(comparison)
    assert verdict.choice.share is not None and verdict.choice.share.mean == pytest.approx(3.0 / 4.5)
    table = seeds_table(summarise(comparison.rows), LOSS).set_index("stands for")
    share = verdict.choice.share
    assert table.loc["choice", "x gain"] == f"0.67 ({share.words(lambda value: f'{value:.2f}')})"
    assert f"keeps {percent(share.mean)} of" in verdict.sentence and "3 of 4 seeds" in verdict.sentence
    assert table.loc["choice", "x step time"] == "0.40 ± 0.00, 3 of 4 seeds"
    single = compare([judged.run("c"), judged.whole()])
    assert seeds_table(summarise(single.rows), EXACT)["x quality"].tolist() == ["0.80", "1.00"]
