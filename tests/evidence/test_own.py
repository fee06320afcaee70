"""Sweeps of one's own beside the study: what is refused, kept, replaced, counted, and when another rule stands."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from lsf.app.evidence import evidence_words
from lsf.app.findings import criterion_to_come
from lsf.cli.main import main
from lsf.criteria.result import Analysis
from lsf.data.lessons import load_lesson
from lsf.data.reading import IN_MEMORY
from lsf.errors import BadInputError
from lsf.evidence.own import (
    OwnSweep,
    all_evidence,
    compared_criteria,
    evidence_folder,
    keep_own,
    own_evidence,
    own_problems,
    own_sweeps,
    record_here,
    scores_of,
    truth_told,
)
from lsf.evidence.packed import beyond_study, gaining, packed_evidence, packed_record
from lsf.evidence.real import real_budgets, real_record, real_tasks, real_words, spacing
from lsf.evidence.regret import can_judge, random_regret, regret, truth_of
from lsf.evidence.standing import LEAST_PAIRS, model_words, recommended_here, rule_plan, standing_rule, trust_words
from lsf.evidence.study import best_depth
from lsf.evidence.sweep import Score, Sweep, SweepSpec, empty_cells, plans_over
from lsf.plans.policies import FIXED_DEPTH, RECOMMENDED, recommended_plan, spaced_plan
from lsf.plans.tries import neighbours_at
from tests.criteria.factory import analysis_of

WEIGHTS = "ab" * 32
N = 8


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of own sweeps, not yet made."""
    monkeypatch.setenv("LSF_EVIDENCE", str(tmp_path / "evidence"))
    return tmp_path / "evidence"


def sweep_of(task: str = "toy.csv", best: int = 0, over: str = "single", gain: float = 1.0, top: float = 0.9) -> Sweep:
    """A sweep of 8 blocks and two seeds in which block `best` reaches `top`, and every other less by its distance."""
    spec = SweepSpec("models/mine", task, over, seeds=2, steps=5, learning_rate=1e-3)
    cells = []
    for cell in empty_cells(plans_over(over, N), N, 2):
        known = (
            0.1
            if cell.plan == "base"
            else 0.1 + gain
            if cell.plan == "full"
            else top - 0.1 * abs(cell.blocks[0] - best)
        )
        score = Score(round(known + 0.01 * cell.seed, 3), 3 - known)
        cells.append(replace(cell, before=Score(0.1, 2.9), after=score, learning_rate=1e-3, reason=None))
    prior = Score(0.05, 3.0)  # below the base model
    return Sweep(spec, N, WEIGHTS, f"data of {task}", tuple(cells), {}, 9.0, {"lsf": "0"}, prior)


def one_of(sweep: Sweep, named: int = N - 1) -> OwnSweep:
    """With scores by which alignment names block `named`, `first` block 0, and all others the last one."""
    ranks = tuple(float(block) for block in range(N))
    scores = dict.fromkeys(compared_criteria(), ranks) | {"first": ranks[::-1]}
    return OwnSweep(sweep, scores | {"alignment": tuple(float(b == named) for b in range(N))}, {"kernel": 8})


@pytest.fixture
def analysis() -> Analysis:
    """Of the same weights, in which alignment names block 7 and `first` block 0."""
    made = analysis_of([0.0] * N)
    blocks = [replace(row, scores={"alignment": float(row.block), "first": -float(row.block)}) for row in made.blocks]
    return replace(made, blocks=tuple(blocks), weights=WEIGHTS)


def test_tests_never_see_the_sweeps_of_who_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert own_sweeps() == ()
    monkeypatch.delenv("LSF_EVIDENCE")
    assert evidence_folder() == Path.home() / ".local" / "share" / "lsf" / "evidence"
    monkeypatch.undo()  # what holds for every test
    assert not evidence_folder().is_relative_to(Path.home() / ".local")


def test_without_own_sweeps_everything_is_the_studys(analysis: Analysis) -> None:
    assert all_evidence() == packed_evidence()
    assert record_here() is packed_record()
    assert f"over {packed_record().n_sites} measured pairs of a model and a task, this rule" in evidence_words(
        record_here()
    )
    assert standing_rule(WEIGHTS).criteria == RECOMMENDED
    assert standing_rule(WEIGHTS).why is None
    plan, doubt = rule_plan(analysis, 2), ", which is not shown to help on models outside of the study"
    assert replace(plan, reasons=recommended_plan(analysis, 2).reasons) == recommended_plan(analysis, 2)
    assert all(doubt in reason for reason in plan.reasons.values())
    held = replace(analysis, model=replace(analysis.model, name="bundled"))
    assert recommended_here(held, 2) == rule_plan(held, 2) == recommended_plan(held, 2)
    one, depth = recommended_here(analysis, 1), best_depth(gaining(packed_evidence()))  # a choice fixed beforehand
    assert depth is not None
    assert (one.blocks, one.policy) == (neighbours_at(depth, 1, analysis.model.n_blocks), FIXED_DEPTH)
    assert all("no rule is shown to help" in reason for reason in one.reasons.values())
    even, known = recommended_here(analysis, 2), spacing(2)
    assert known is not None
    if known.stands:  # on a model outside of the study, several blocks
        assert even == replace(spaced_plan(analysis, 2), reasons=even.reasons)
        assert set(even.reasons.values()) == {known.reason}
    else:
        assert even == plan
    assert model_words(analysis, 1) == (f"{beyond_study('toy')} {real_record()}", False)
    real = real_tasks()[0].weights
    for budget in real_budgets(real):
        assert model_words(replace(analysis, weights=real), budget) == (real_words(real, budget), True)
    told, measured = model_words(replace(analysis, weights=real), 2) or ("", True)
    assert told == f"At 2 blocks nothing was measured on this model. {real_words(real)}"
    assert not measured
    known = replace(analysis, model=replace(analysis.model, name="bundled"))
    assert model_words(known, 1) is None


def test_an_own_sweep_is_counted_with_the_study_and_named_apart(analysis: Analysis) -> None:
    keep_own(one_of(sweep_of(best=5)))
    record, study = record_here(), packed_record()
    assert (record.n_sites, record.n_own, record.n_models) == (study.n_sites + 1, 1, study.n_models + 1)
    assert record.pairs == f"{study.n_sites} measured pairs of a model and a task and 1 of your own"
    known, words = study.n_sites - study.n_announced, evidence_words(record)
    assert f"and 1 of your own, this rule lost **{100 * record.mean:.1f} %**" in words
    assert f"{known} of the pairs were known when the rule was made; on the {study.n_announced}" in words
    (pair,) = own_evidence()
    truth = pair.setting.truth
    lost, lot = regret(truth, (7,)), random_regret(truth, 1)
    expected = (study.mean * study.n_sites + (lost.relative or 0)) / (study.n_sites + 1)
    assert record.mean == pytest.approx(expected)  # each pair weighs the same
    told, measured = model_words(analysis, 1) or ("", False)
    assert measured
    assert told == (
        f"Your own sweep of this model on toy.csv, at 1 block: the rule named block 7 and lost "
        f"{100 * (lost.relative or 0):.1f} % of the best plan's gain against block 5; at random "
        f"{100 * lot / truth.range:.1f} %."
    )
    assert "none of the study's models" not in trust_words(analysis, 1, record)
    told, measured = model_words(analysis, 3) or ("", True)
    assert not measured
    assert told.startswith("Your own sweeps of this model hold every plan of size 1, not of 3 blocks")
    other = replace(analysis, weights="cd" * 32)
    assert model_words(other, 1) == (f"{beyond_study('toy')} {real_record()}", False)


def test_the_same_model_and_data_are_counted_once_and_can_be_taken_out(
    own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, replaced = keep_own(one_of(sweep_of(best=5)))
    assert not replaced
    again, replaced = keep_own(one_of(sweep_of(best=2)))
    assert (again, replaced) == (path, True)
    other, _ = keep_own(one_of(sweep_of("other.csv")))
    assert [one.name for one in own_sweeps()] == sorted([path.stem, other.stem])
    assert next(one for one in own_sweeps() if one.task == "toy.csv") == one_of(sweep_of(best=2))
    assert main(["evidence", "list"]) == 0
    out = capsys.readouterr().out
    assert f"{path.stem}\n  models/mine on toy.csv: single, seeds 2, steps 5, by exact_match" in out
    assert "the rule names block 7 and loses 49.8 %" in out
    assert main(["evidence", "remove", "nothing"]) == 2
    assert f"Unknown sweep of your own 'nothing'; known are: {other.stem}, {path.stem}" in capsys.readouterr().err
    assert main(["evidence", "remove", path.stem, other.stem]) == 0
    assert list(own.iterdir()) == []
    assert record_here() is packed_record()


def test_a_damaged_file_is_left_out_and_named(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, _ = keep_own(one_of(sweep_of()))
    text = path.read_text()
    (own / "torn.json").write_text(text[: len(text) // 2])
    assert len(own_sweeps()) == 1
    assert "torn.json is not an own sweep: line" in own_problems()[0]
    assert main(["evidence", "list"]) == 0
    assert "`lsf evidence remove torn` removes it" in capsys.readouterr().err
    assert main(["evidence", "remove", "torn"]) == 0
    assert own_problems() == ()


def without(sweep: Sweep, plan: str) -> Sweep:
    cells = [replace(one, after=None, reason="not measured yet") if one.plan == plan else one for one in sweep.cells]
    return replace(sweep, cells=tuple(cells))


@pytest.mark.parametrize(
    ("sweep", "sentence"),
    [
        (
            without(sweep_of(), "3"),
            "lacks 2 of its 19 runs (the first: 3, seed 0: not measured yet); the `sweep` command",
        ),
        (replace(sweep_of(), prior=None), "was measured before sweeps held the best answer that ignores the prompt"),
        (sweep_of(over="suffix"), "a sweep --over one or more of: single, window:2"),
        (
            replace(sweep_of(gain=0.8), prior=Score(0.95, 2.0)),  # 0.91 at most, and a loss of 2.1
            "no plan does better than the base model and than the best answer that ignores the prompt, by 10 % of",
        ),
    ],
)
def test_a_sweep_that_cannot_be_counted_is_refused_in_a_sentence(
    sweep: Sweep, sentence: str, tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep.save(tmp_path / "s.json")
    assert main(["evidence", "add", str(tmp_path / "s.json")]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
    assert not own.exists()


def test_a_sweep_whose_data_or_weights_are_others_by_now_is_refused(
    tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep, path = sweep_of("lesson:facts"), tmp_path / "s.json"
    sweep = replace(sweep, spec=replace(sweep.spec, model="bundled"))
    sweep.save(path)
    assert main(["evidence", "add", str(path)]) == 2
    assert f"The data lesson:facts changed since {path} was measured; run the sweep again." in capsys.readouterr().err
    replace(sweep, fingerprint=load_lesson("facts").fingerprint).save(path)
    assert main(["evidence", "add", str(path)]) == 2
    assert f"The weights of bundled are not those that {path} was measured with; run" in capsys.readouterr().err
    assert not own.exists()


def test_a_size_that_lacks_runs_of_neighbours_is_not_counted() -> None:
    truth, metric = truth_told(sweep_of(over="single,suffix,window:3"), "s.json")
    assert metric == "exact_match"
    assert truth.budgets == (1, 3)
    assert {len(plan) for plan in truth.scores} == {1, 3, N}  # suffixes of other sizes are left out
    sweep = sweep_of(over="single,suffix", gain=0.2)
    best = tuple(replace(cell, after=Score(0.95, 2.0)) if cell.plan == "4-7" else cell for cell in sweep.cells)
    kept, whole = truth_told(replace(sweep, cells=best), "s.json")[0], truth_of(replace(sweep, cells=best), metric)
    assert (4, 5, 6, 7) not in kept.scores
    assert kept.range == whole.range == pytest.approx(0.95 - 0.1)  # but gain counts from the best of all plans


def test_where_exact_match_tells_no_plan_apart_the_loss_does() -> None:
    sweep = sweep_of()
    flat = tuple(
        replace(cell, after=replace(cell.after, exact_match=0.0)) for cell in sweep.cells if cell.after is not None
    )
    truth, metric = truth_told(replace(sweep, cells=flat), "s.json")
    assert metric == "loss"
    assert regret(truth, (0,)).best == (0,)


def analysed(names: Sequence[str], **data: str) -> Analysis:
    made = analysis_of([0.5] * N)
    blocks = tuple(replace(row, scores=dict.fromkeys(names, float(row.block))) for row in made.blocks)
    return replace(
        made,
        blocks=blocks,
        weights=WEIGHTS,
        data=replace(made.data, **{"name": "toy.csv", "fingerprint": "data of toy.csv", **data}),
    )


@pytest.mark.parametrize(
    ("analysis", "sentence"),
    [
        (replace(analysed(compared_criteria()), weights="cd"), "is not of the weights that the sweep tuned"),
        (analysed(compared_criteria(), name="lesson:facts"), "is of lesson:facts and the sweep of toy.csv"),
        (analysed(compared_criteria(), fingerprint="other templates"), "is of other rows or other templates than the"),
        (
            replace(analysed(compared_criteria()), data=replace(analysed([]).data, fingerprint=None)),
            "was written before analyses kept which rows they are of; analyse again",
        ),
        (analysed(compared_criteria(), split="all"), "read the split all, with rows that the sweep tests on"),
        (
            analysed(compared_criteria(), rendering="chat by the model's template"),
            "rows by chat by the model's template and the sweep by prompt and answer as they stand; without",
        ),
        (
            analysed(compared_criteria(), first_texts="others"),
            "made other texts of the rows than the sweep; analyse with",
        ),
        (analysed(compared_criteria(), reading="raw"), "read reading raw and the study positions first, reading lens"),
        (analysed(["alignment"]), "lacks deviation, deviation_growth"),
        (analysis_of([1.0]), "is of a model of 1 blocks and the sweep of one of 8"),
    ],
)
def test_an_analysis_of_something_else_is_refused(
    analysis: Analysis, sentence: str, tmp_path: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    replace(sweep_of(), rendering="raw", first_texts="its own").save(tmp_path / "s.json")
    analysis.save(tmp_path / "a.json")
    assert main(["evidence", "add", str(tmp_path / "s.json"), "--analysis", str(tmp_path / "a.json")]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert "without --analysis the criteria are measured now" in error
    assert not own.exists()


def test_an_analysis_of_the_same_gives_the_scores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sweep_of(best=5).save(tmp_path / "s.json")
    analysis = analysed(compared_criteria())
    analysis.save(tmp_path / "a.json")
    assert main(["evidence", "add", str(tmp_path / "s.json"), "--analysis", str(tmp_path / "a.json")]) == 0
    out = capsys.readouterr().out
    assert "and 1 of your own. The rule stays the study's, Gradient alignment: you have 1 sweep of this model" in out
    (kept,) = own_sweeps()
    assert (kept.scores, kept.examples) == scores_of(analysis, sweep_of(best=5), "a.json")
    few = replace(analysis, data=replace(analysis.data, rendering="raw (3), chat (5)"))
    mixed = replace(sweep_of(best=5), rendering="chat (80), raw (20)")  # an analysis reads fewer rows
    assert scores_of(few, mixed, "a.json") == (kept.scores, kept.examples)
    assert kept.examples["forward"] == 10
    assert json.loads((evidence_folder() / f"{kept.name}.json").read_text())["schema_version"] == 1


def test_one_pair_counts_once_under_whatever_names_of_model_and_data(own: Path) -> None:
    first = sweep_of(best=0)
    keep_own(one_of(first))
    for model, data in (("HuggingFaceTB/mine", "toy.csv"), ("models/copy", "renamed.csv"), ("models/mine", "toy.csv")):
        again = replace(first, spec=replace(first.spec, model=model, data=data))
        assert keep_own(one_of(again))[1], "it takes the place of the one before"
        assert [one.sweep.spec.model for one in own_sweeps()] == [model]
        assert record_here().pairs == f"{packed_record().pairs} and 1 of your own"
    other = one_of(replace(first, spec=replace(first.spec, data="copy.csv")))
    other.save(own / "by-hand.json")  # as somebody copies files into the folder
    assert len(own_evidence()) == 1
    (problem,) = own_problems()
    assert "is of the same model and data as" in problem
    assert "It is left out; `lsf evidence remove" in problem


@pytest.mark.parametrize("data", ["toy.csv", "lesson:facts"])
def test_one_pair_counts_once_whatever_words_ask_for_the_same_texts(data: str) -> None:
    def asked(rendering: str | None = "raw", **words: str) -> OwnSweep:
        sweep = sweep_of(data)
        return one_of(replace(sweep, spec=replace(sweep.spec, **words), rendering=rendering))

    keep_own(asked(None, pairs="raw"))  # as files from before chats are read
    for words in ({"pairs": "auto"}, {"pairs": "raw"}, {"pairs": "auto", "train_on": "last"}):
        assert keep_own(asked(**words))[1], "it takes the place of the one before"
        assert len(own_evidence()) == 1
    keep_own(asked("chat by the model's template", pairs="chat"))
    assert len(own_evidence()) == 2, "other texts"


@pytest.mark.parametrize(("prefix", "again"), [("lesson:", True), ("hub:me/", False), ("data/", False)])
def test_a_pair_of_the_study_that_is_swept_again_counts_once_as_one_s_own(prefix: str, again: bool) -> None:
    one = next(one for one in packed_evidence() if one.setting.model == "bundled" and one.metric == "exact_match")
    truth, packed = one.setting.truth, packed_record()
    spec = SweepSpec("bundled", f"{prefix}{one.setting.task}", "single", seeds=len(truth.full), learning_rate=1e-3)
    cells = []
    for cell in empty_cells(plans_over("single", truth.n_blocks), truth.n_blocks, spec.seeds):
        plans = {"base": [truth.base] * spec.seeds, "full": list(truth.full)}
        value = plans[cell.plan][cell.seed] if cell.plan in plans else truth.scores[cell.blocks][cell.seed]
        cells.append(replace(cell, before=Score(truth.base, 1.0), after=Score(value, 1.0), reason=None))
    assert truth.prior is not None
    sweep = Sweep(spec, truth.n_blocks, WEIGHTS, "rows", tuple(cells), {}, 1.0, None, Score(truth.prior, 9.0))
    keep_own(OwnSweep(sweep, {name: tuple(scores) for name, scores in one.setting.scores.items()}, one.examples))
    here = record_here()
    known = packed.n_sites - again  # data of one's own that is called as a lesson is another pair
    assert here.pairs == f"{packed.pairs.replace(str(packed.n_sites), str(known))} and 1 of your own"
    assert here.n_models == packed.n_models
    tasks = [found.setting.task for found in all_evidence() if found.setting.model == "bundled"]
    assert tasks.count(one.setting.task) == 2 - again


def test_a_criterion_that_is_undefined_there_is_refused(own: Path) -> None:
    one = one_of(sweep_of())
    with pytest.raises(BadInputError, match="alignment is not defined for every block of models/mine"):
        keep_own(replace(one, scores={name: own for name, own in one.scores.items() if name != "alignment"}))
    assert not own.exists()


def test_another_rule_stands_only_where_it_won_on_enough_sweeps_of_this_model(analysis: Analysis) -> None:
    for place in range(LEAST_PAIRS):
        if place:
            told = standing_rule(WEIGHTS).why or ""
            assert f"you have {place} sweep" in told
            assert standing_rule(WEIGHTS).criteria == RECOMMENDED
        keep_own(one_of(sweep_of(f"{place}.csv", best=0, top=0.9 + 0.01 * place)))
    standing = standing_rule(WEIGHTS)
    assert standing.criteria == ("first",)
    assert standing.why is not None
    assert standing.why.startswith("The rule is First in place of the study's, Gradient alignment: it lost 69.7 % less")
    plan = recommended_here(analysis, 1)
    assert plan.blocks == (0,)
    assert standing.why in plan.reasons["0"]
    assert criterion_to_come(None, analysis) == "first"
    told, measured = model_words(analysis, 1) or ("", False)
    assert measured and "Your 5 own sweeps of this model, at 1 block: the rule lost 0.0 %" in told
    assert "takes the place of the study's rule" in trust_words(analysis, 1, packed_record())
    other = replace(analysis, weights="cd" * 32)  # the same folder says nothing of another model
    assert rule_plan(other, 1).blocks == recommended_plan(other, 1).blocks


def test_sweeps_of_parts_of_one_data_set_are_one_case_for_another_rule() -> None:
    def part(data: str, n_rows: int) -> OwnSweep:
        sweep = sweep_of(data, best=0)
        return one_of(replace(sweep, spec=replace(sweep.spec, max_rows=n_rows), fingerprint=f"{n_rows} of {data}"))

    for n_rows in range(50, 50 + LEAST_PAIRS):
        keep_own(part("toy.csv", n_rows))
    standing = standing_rule(WEIGHTS)
    assert standing.criteria == RECOMMENDED
    assert "you have 5 sweeps of this model on 1 data set, and sweeps on 5 data sets are needed" in (standing.why or "")
    for place in range(1, LEAST_PAIRS):
        keep_own(part(f"{place}.csv", 50))
    standing = standing_rule(WEIGHTS)
    assert standing.criteria == ("first",)
    assert "over your 9 sweeps of this model on 5 data sets (95 % interval" in (standing.why or "")


def test_sweeps_of_data_in_memory_are_told_apart_by_their_rows() -> None:
    for place in range(LEAST_PAIRS):
        keep_own(one_of(replace(sweep_of(IN_MEMORY, best=0), fingerprint=str(place))))
    assert standing_rule(WEIGHTS).criteria == ("first",)


def test_the_rule_stays_where_the_interval_includes_a_tie(analysis: Analysis) -> None:
    for place in range(LEAST_PAIRS):
        keep_own(one_of(sweep_of(f"{place}.csv", best=0 if place < 3 else N - 1)))
    standing = standing_rule(WEIGHTS)
    assert standing.criteria == RECOMMENDED
    assert "no other lost less beyond chance over your 5 sweeps of this model" in (standing.why or "")
    assert recommended_here(analysis, 1) == recommended_plan(analysis, 1)


def test_a_sweep_that_gains_one_bit_by_exact_match_is_judged_by_the_loss() -> None:
    sweep = sweep_of()
    cells = []
    for cell in sweep.cells:
        assert cell.after is not None
        cells.append(replace(cell, after=replace(cell.after, exact_match=0.08 if cell.plan == "3" else 0.1)))
    more = [replace(one, seed=2) for one in cells if one.seed == 0 and one.plan != "base"]
    three = replace(sweep, spec=replace(sweep.spec, seeds=3), cells=(*cells, *more))
    assert truth_told(three, "s.json")[1] == "loss"  # np.mean([0.1] * 3) is above the base model's 0.1


@pytest.mark.parametrize(("most", "metric"), [(1 / 256, "loss"), (0.09, "loss"), (0.3 - 0.2, "exact_match")])
def test_exact_match_judges_only_where_a_tenth_of_the_answers_is_gained(most: float, metric: str) -> None:
    assert 0.3 - 0.2 < 0.1  # by rounding
    sweep = sweep_of(best=7)  # by the loss
    cells = []
    for cell in sweep.cells:
        assert cell.after is not None
        cells.append(replace(cell, after=replace(cell.after, exact_match=most if cell.plan == "3" else 0.0)))
    few = replace(sweep, cells=tuple(cells), prior=Score(0.0, 3.0))
    truth, judged = truth_told(few, "s.json")
    assert judged == metric
    assert regret(truth, (0,)).best == ((3,) if metric == "exact_match" else (7,))


def test_every_exact_match_of_the_study_gains_enough_to_be_judged_by() -> None:
    exact = [one for one in packed_evidence() if one.metric == "exact_match"]
    assert len(exact) == 48
    assert all(can_judge(one.setting.truth, "exact_match") for one in exact)
