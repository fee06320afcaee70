"""d_90 measured on a tiny model."""

import signal
import time
from dataclasses import replace
from typing import Any

import pytest

from lsf.data.encode import encode
from lsf.data.task import Example, Task
from lsf.dimension.search import FULL_RATES, grid_of, study_dimension, trained_on
from lsf.dimension.study import DimensionSettings, Study, Try
from lsf.errors import BadInputError, DataError, RunError
from lsf.methods.catalogue import options_of
from lsf.methods.registry import METHODS
from lsf.models.batches import training_order
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan
from lsf.progress import Silent, Stop
from tests.children import Child
from tests.tiny import save_tiny

SETTINGS = DimensionSettings(low=30, high=300, bisections=1, rates=1, steps=12, batch_size=8)


@pytest.fixture(scope="module")
def first(loaded, task):
    """A study of one point by DID, and every tuning that it made."""
    known = {}
    settings = replace(SETTINGS, high=30)
    return study_dimension(loaded, task, full_plan(loaded.info.name, 4), settings, Silent(), ["did"], known), known


@pytest.fixture
def full(first):
    """Full fine-tuning under seed 0, which every study needs, as it is known from the first one."""
    return {key: tried for key, tried in first[1].items() if key[0] == "full"}


class Collecting(Silent):
    """A reporter that keeps partial studies and may stop after some of them."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop: Stop | None = None
        self.partials: list[Study] = []
        self.stop_after = stop_after

    def partial(self, value: Any) -> None:
        self.partials.append(value)
        if len(self.partials) == self.stop_after:
            self.stop = "keep"


def test_both_methods_are_searched_under_every_seed_and_every_point_is_told(loaded, task, full):
    report = Collecting()
    settings = replace(SETTINGS, share=0.3, seeds=2, high=60, bisections=0)
    study = study_dimension(loaded, task, full_plan(loaded.info.name, 4), settings, report, known=full)
    assert [(curve.method, curve.seed) for curve in study.curves] == [("said", 0), ("did", 0), ("said", 1), ("did", 1)]
    assert len(study.full) == 2
    assert len(report.partials) == sum(len(curve.points) for curve in study.curves)
    assert report.partials[-1] == study
    for curve, reference in zip(study.curves, [study.full[0]] * 2 + [study.full[1]] * 2, strict=True):
        assert curve.target == pytest.approx(0.3 * reference.test)
        assert all(0 <= point.test <= 1 and point.seconds > 0 for point in curve.points)
        assert curve.points[0].d == 30
    assert study.n_train == len(task.train)


def test_the_gap_and_its_bound_are_of_the_examples_that_short_runs_really_see(loaded, task):
    rows = encode(loaded.tokenizer, task.train, 64, append_eos=True).rows
    visited = {rows[number].example for number in training_order(len(rows), 10, 1)}
    assert len(visited) == 10 < len(rows)
    assert set(trained_on(rows, 10, 1)) == visited
    assert trained_on(rows, 10_000, 1) == list(task.train)
    many = Task("many", task.train * 9, task.validation, task.test)
    study = study_dimension(loaded, many, full_plan(loaded.info.name, 4), replace(SETTINGS, high=30), Silent(), ["did"])
    assert study.n_train == SETTINGS.steps * SETTINGS.batch_size < len(many.train)


def test_the_same_seed_gives_the_same_points(loaded, task, full):
    plan, settings = full_plan(loaded.info.name, 4), replace(SETTINGS, high=30)
    one, other = (study_dimension(loaded, task, plan, settings, Silent(), ["said"], dict(full)) for _ in range(2))
    assert [replace(p, seconds=0.0) for p in one.curves[0].points] == [
        replace(p, seconds=0.0) for p in other.curves[0].points
    ]


def test_full_fine_tuning_is_searched_outwards_and_what_is_known_is_not_tuned_again(loaded, task, first):
    plan, settings = full_plan(loaded.info.name, 4), replace(SETTINGS, high=30)
    study, known = first[0], dict(first[1])
    rates = sorted(rate for method, _, rate, _ in known if method == "full")
    badness = [known["full", study.full[0].d, rate, 0].badness for rate in rates]
    best = badness.index(min(badness))
    assert study.full[0].rate == rates[best]
    assert 0 < best < len(rates) - 1 or rates[best] in (FULL_RATES[0], FULL_RATES[-1])
    assert {rate for method, _, rate, _ in known if method == "did"} == {study.curves[0].points[0].rate}
    held = dict(known)
    assert study_dimension(loaded, task, plan, settings, Silent(), ["did"], known) == study
    assert known == held  # their seconds too


def test_where_every_rate_loses_the_loss_the_study_says_so(loaded, task, full):
    lost = Try(None, None, None, None, 1.0)

    class AllLost(dict):
        def __contains__(self, key):
            return key[0] == "did" or super().__contains__(key)

        def __getitem__(self, key):
            return lost if key[0] == "did" else super().__getitem__(key)

    plan = full_plan(loaded.info.name, 4)
    with pytest.raises(RunError, match=r"did at d = 30 diverged at every rate from .* to "):
        study_dimension(loaded, task, plan, replace(SETTINGS, high=30), Silent(), ["did"], AllLost(full))


def test_a_stopped_study_keeps_what_it_has(loaded, task, full):
    report = Collecting(stop_after=1)
    settings = replace(SETTINGS, share=1.0)
    study = study_dimension(loaded, task, full_plan(loaded.info.name, 4), settings, report, known=full)
    assert [len(curve.points) for curve in study.curves] == [1]


def test_what_cannot_be_studied_is_refused_in_a_sentence(loaded, task):
    plan = full_plan(loaded.info.name, 4)
    with pytest.raises(BadInputError, match="The method lora has no dimension; accepted are: said, did"):
        study_dimension(loaded, task, plan, SETTINGS, Silent(), ["lora"])
    with pytest.raises(DataError, match="needs validation and test examples"):
        study_dimension(loaded, Task("bare", task.train, (), ()), plan, SETTINGS, Silent())
    with pytest.raises(BadInputError, match="d is 2; for whole model of"):
        study_dimension(loaded, task, plan, replace(SETTINGS, low=2, high=2, steps=40), Silent())
    frozen = replace(SETTINGS, steps=1, batch_size=1)
    with pytest.raises(RunError, match="gets no test example right"):
        study_dimension(loaded, task, plan, frozen, Silent())


def test_every_tuning_of_a_study_is_the_one_that_was_asked_for(loaded, task, monkeypatch):
    seen = []

    def spied(name):
        def prepare(base, plan, context):
            d, kind = (getattr(context.options, option, None) for option in ("d", "projection"))
            seen.append((name, plan.label, context.seed, d, kind))
            return METHODS[name].prepare(base, plan, context)

        return replace(METHODS[name], prepare=prepare) if name in ("full", "said") else METHODS[name]

    monkeypatch.setattr("lsf.dimension.search.METHODS", {name: spied(name) for name in METHODS})
    settings = replace(SETTINGS, high=30, bisections=0, projection="sparse", steps=20)
    study_dimension(loaded, task, Plan(loaded.info.name, 4, (2, 3)), settings, Silent(), ["said"])
    assert set(seen) == {("full", "blocks 2-3", 0, None, None), ("said", "blocks 2-3", 0, 30, "sparse")}


def test_the_test_split_alone_decides(loaded, task):
    wrong = tuple(Example(example.prompt, " mat mat") for example in task.test)
    other = Task("w", task.train, task.validation, wrong)
    with pytest.raises(RunError, match="gets no test example right"):
        study_dimension(loaded, other, full_plan(loaded.info.name, 4), SETTINGS, Silent(), ["did"])


@pytest.mark.parametrize(
    ("methods", "high", "sentence"),
    [(["said"], 5, "d is 5; .* it must lie between"), (["did", "did"], 300, "did is asked for more than once")],
)
def test_what_cannot_be_searched_is_refused_before_full_fine_tuning_is_measured(loaded, task, methods, high, sentence):
    known, settings = {}, replace(SETTINGS, low=min(30, high), high=high)
    with pytest.raises(BadInputError, match=sentence):
        study_dimension(loaded, task, full_plan(loaded.info.name, 4), settings, Silent(), methods, known)
    assert not known


def test_a_deep_model_is_searched_from_what_each_method_needs_at_least(tmp_path):
    deep = load_model(str(save_tiny("llama", tmp_path / "deep", num_hidden_layers=40)), "float32", "cpu")
    plan = full_plan("deep", 40)
    assert [min(grid_of(deep, plan, DimensionSettings(), method)) for method in ("did", "said")] == [30, 43]
    for method in ("did", "said"):  # 40 blocks, head and embeddings have a lambda each, beside one number at least
        for d in grid_of(deep, plan, DimensionSettings(), method):
            assert METHODS[method].count(deep, plan, options_of(method, {"d": d})) == d
    with pytest.raises(BadInputError, match=r"d is 42; .* it must lie between 43"):
        METHODS["said"].count(deep, plan, options_of("said", {"d": 42}))


def test_ctrl_c_ends_the_command_with_what_is_known(tiny, tmp_path):
    data, out = tmp_path / "rows.csv", tmp_path / "d.json"
    rows = [
        f"the {word} is, red,{split}"
        for split in ("train", "train", "validation", "test")
        for word in ("cat", "dog", "tree", "sky", "sun")
    ]
    data.write_text("prompt,completion,split\n" + "\n".join(rows) + "\n")
    few = ["--steps", "20", "--low", "12", "--rates", "1", "--batch-size", "4", "--seeds", "10"]
    command = ["-m", "lsf", "dimension", "--model", str(tiny("llama")), "--data", str(data), "--device", "cpu"]
    process = Child(*command, *few, "--json", out)
    end = time.monotonic() + 120
    while not out.exists():
        assert process.poll() is None, process.err
        assert time.monotonic() < end, "no point was measured in time"
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 1
    assert "Stopped; " in process.err
    assert "Traceback" not in process.err
    study = Study.load(out)
    assert study.full
    assert len(study.full) < 10
