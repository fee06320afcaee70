"""Many sweeps together, by hand; and that what is packed and recommended follows from the committed results."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.evidence_files import find_site
from benchmarks.settings import SETTINGS, waves_of
from lsf.criteria.registry import CRITERIA
from lsf.errors import BadInputError
from lsf.evidence.packed import (
    PACKED,
    candidates_of,
    elsewhere,
    gaining,
    load_evidence,
    pack,
    packed_evidence,
    packed_record,
    shown,
)
from lsf.evidence.regret import Truth, regret
from lsf.evidence.study import (
    Entry,
    Rule,
    Setting,
    budgets_of,
    candidate_rules,
    decided,
    entries,
    judge_choices,
    least_difference,
    leave_out,
    level_with_best,
    of_depth,
    of_rule,
    paired_difference,
    simplest_of_the_best,
)
from lsf.plans.policies import ENDS_FROM, RECOMMENDED

PAIRS = {(0, 1): 0.5, (1, 2): 0.6, (2, 3): 0.9, (0, 3): 1.0}


def setting(
    name: str, singles: list[float], scores: dict[str, list[float]], pairs: dict[tuple[int, ...], float]
) -> Setting:
    """Return a setting of four blocks where full tuning gains 1; two seeds that agree."""
    plans = {(block,): (score, score) for block, score in enumerate(singles)}
    plans |= {blocks: (score, score) for blocks, score in pairs.items()}
    return Setting(name, "toy", name, Truth(4, 0.0, (1.0, 1.0), plans, {}), scores)


ONE = setting(
    "one", [0.2, 0.4, 0.6, 0.8], {"deviation": [1, 2, 3, 4], "reduction": [4, 3, 2, 1], "first": [4, 3, 2, 1]}, PAIRS
)
TWO = setting("two", [0.9, 0.1, 0.1, 0.5], {"deviation": [1, 2, 3, 4], "reduction": [4, 3, 2, 1]}, {})


def rows(settings: list[Setting]) -> dict[str, Entry]:
    return {row.name: row for row in entries(settings)}


def test_every_criterion_and_control_loses_what_is_worked_out_by_hand() -> None:
    found = rows([ONE, TWO])
    assert found["deviation"].relative == {
        ("one", 1): 0.0,
        ("one", 2): pytest.approx(0.1),
        ("two", 1): pytest.approx(0.4),
    }
    assert found["reduction"].relative["one", 1] == pytest.approx(0.6)
    assert found["random"].relative["one", 1] == pytest.approx(0.3)
    assert found["full"].relative["one", 1] == pytest.approx(-0.2)
    assert found["constant"].relative["one", 1] == 0  # block 3 has regret 0 and 0.4, block 0 has 0.6 and 0
    assert found["constant"].relative["two", 1] == pytest.approx(0.4)
    assert set(found["first"].relative) == {("one", 1), ("one", 2)}
    assert budgets_of(TWO) == (1,)


def test_a_fixed_depth_is_that_of_the_other_models_and_never_of_its_own() -> None:
    other = replace(setting("three", [0.9, 0.1, 0.1, 0.5], {}, {}), model="another")
    found = rows([ONE, other])["depth"].relative
    # On `one` the deepest block is best, on `three` the first: each is judged by the other's.
    assert found["three", 1] == pytest.approx(0.4)
    assert found["one", 1] == pytest.approx(0.6)
    assert "depth" not in rows([ONE, TWO])  # one model: there is no other


def test_the_mean_weighs_every_site_the_same_whatever_its_budgets() -> None:
    assert rows([ONE, TWO])["deviation"].mean() == pytest.approx((0.05 + 0.4) / 2)
    assert rows([ONE, TWO])["deviation"].mean(2) == pytest.approx(0.1)
    assert rows([ONE, TWO])["deviation"].mean(without={"two"}) == pytest.approx(0.05)
    assert Entry("empty", "rule", {}).mean() is None


def test_both_ends_take_over_from_two_blocks_on() -> None:
    rule = Rule(("deviation",), ends=True)
    assert rule.choose(ONE.scores, 1, 4) == (3,)
    assert rule.choose(ONE.scores, 2, 4) == (0, 3)
    assert of_rule([ONE], rule)["one", 2] == 0
    assert Rule(("fisher",)).choose(ONE.scores, 1, 4) is None


def test_a_rank_average_does_not_depend_on_the_scale_of_its_parts() -> None:
    small, large = [[0.1, 0.3, 0.2], [3.0, 1.0, 2.0]], [[100.0, 300.0, 200.0], [3.0, 1.0, 2.0]]
    for parts in (small, large):
        scores: dict[str, list[float]] = {"a": parts[0], "b": parts[1]}
        assert Rule(("a", "b")).choose(scores, 1, 3) == (2,)  # all tie: the deeper


def test_candidates_come_simplest_first_and_once() -> None:
    rules = candidate_rules(["a", "b", "c"])
    assert [rule.complexity for rule in rules] == sorted(rule.complexity for rule in rules)
    assert len({rule.name for rule in rules}) == len(rules) == 2 * (3 + 3)


def test_what_is_chosen_for_a_site_does_not_see_it() -> None:
    def row(name: str, a: float, b: float, c: float, complexity: int = 1) -> Entry:
        return Entry(name, "rule", {("a", 1): a, ("b", 1): b, ("c", 1): c}, complexity)

    good_but_at_a = row("good but at a", 0.9, 0.1, 0.1)
    even = row("even", 0.3, 0.3, 0.3)
    groups = {name: [name] for name in "abc"}
    found = leave_out([good_but_at_a, even], groups)
    assert found.chosen == {"a": "good but at a", "b": "even", "c": "even"}
    assert found.mean == pytest.approx((0.9 + 0.3 + 0.3) / 3)
    changed = leave_out([row("good but at a", 0.0, 0.1, 0.1), even], groups)
    assert changed.chosen["a"] == "good but at a"
    assert simplest_of_the_best([row("two parts", 0.2, 0.2, 0.2, 2), row("one", 0.205, 0.2, 0.2)]).name == "one"
    assert simplest_of_the_best([row("two parts", 0.1, 0.1, 0.1, 2), row("one", 0.2, 0.2, 0.2)]).name == "two parts"


def test_groups_are_left_out_whole() -> None:
    def row(name: str, a: float, b: float, c: float) -> Entry:
        return Entry(name, "rule", {("a", 1): a, ("b", 1): b, ("c", 1): c})

    found = leave_out([row("x", 0.0, 0.0, 0.9), row("y", 0.5, 0.5, 0.0)], {"ab": ["a", "b"], "c": ["c"]})
    assert found.chosen == {"a": "y", "b": "y", "c": "x"}


def test_the_paired_interval_is_students() -> None:
    one = {("a", 1): 0.1, ("b", 1): 0.2, ("c", 1): 0.3}
    other = {("a", 1): 0.2, ("b", 1): 0.4, ("c", 1): 0.6, ("d", 1): 9.0}
    middle, low, high = paired_difference(one, other) or (0.0, 0.0, 0.0)
    half = 4.302653 * np.std([0.1, 0.2, 0.3], ddof=1) / 3**0.5  # t of 2 degrees of freedom
    assert (middle, low, high) == (pytest.approx(0.2), pytest.approx(0.2 - half), pytest.approx(0.2 + half))
    assert paired_difference(one, {("a", 1): 0.5}) is None


def test_verdicts_are_sorted_and_what_was_not_measured_is_unknown() -> None:
    found = judge_choices(ONE.truth, ONE.scores, 2)
    lost = [one.regret for one in found if one.regret is not None]
    assert lost == sorted(lost)
    assert {one.label for one in found} >= {"Deviation", "Reduction", "Drawn at random (mean)", "Full fine-tuning"}
    with pytest.raises(BadInputError, match="holds no plan of 3 blocks"):
        judge_choices(ONE.truth, ONE.scores, 3)


def test_a_loss_is_shown_the_right_way_round() -> None:
    assert (shown(-1.5, "loss"), shown(0.5, "exact_match")) == ("1.500 nats", "0.50")


def test_what_is_packed_is_what_was_committed(tmp_path: Path) -> None:
    known = [find_site(name, SETTINGS[name].metric) for name in SETTINGS]
    pack([one.small for one in known if one is not None], tmp_path / "packed.json")
    assert (tmp_path / "packed.json").read_text() == PACKED.read_text()
    assert len(load_evidence(PACKED)) == sum(one is not None for one in known)


def test_what_is_packed_says_of_chance_what_was_committed() -> None:
    n_seen, undecided = 0, []
    for one in packed_evidence():
        packed, found = one.setting.truth, find_site(one.setting.name, SETTINGS[one.setting.name].metric)
        assert found is not None
        raw = found.setting.truth
        for size in budgets_of(one.setting):
            n_seen += 1
            least, told = (least_difference(truth, size) for truth in (packed, raw))
            assert (least is None) == (told is None)
            assert least == pytest.approx(told, rel=1e-3), (one.setting.name, size)
            assert decided(packed, size) == decided(raw, size)
            assert set(level_with_best(packed, size)) == set(level_with_best(raw, size)), (one.setting.name, size)
            best = [regret(truth, truth.plans(size)[0]).best for truth in (packed, raw)]
            assert best[0] == best[1], (one.setting.name, size)
            undecided += [(one.setting.name, size)] if decided(raw, size) is False else []
    assert n_seen == 124
    assert ("gpt2x12-labels", 1) in undecided  # one plan's seeds agree there, which float noise hid


def test_results_of_another_version_are_refused(tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text('{"schema_version": 7}')
    with pytest.raises(BadInputError, match="has schema_version 7; results of schema_version 1 were expected"):
        load_evidence(tmp_path / "old.json")


def test_the_recommended_rule_is_the_simplest_of_the_best_on_the_committed_results() -> None:
    best = simplest_of_the_best(candidates_of(gaining(packed_evidence())))
    assert best.name == Rule(RECOMMENDED, ENDS_FROM is not None).name


def first_screen() -> str:
    """Return the README up to its first picture, on one line."""
    readme = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
    return " ".join(readme.partition("![")[0].split())


def test_every_site_belongs_to_one_wave() -> None:
    waves = waves_of(SETTINGS)
    tests = waves.pop("all tests")
    assert sorted(name for own in waves.values() for name in own) == sorted(SETTINGS)
    assert [one.setting.name for one in packed_evidence() if one.announced] == [
        name for name in SETTINGS if name in tests
    ]


def test_the_readme_tells_the_record_of_the_recommendation() -> None:
    record = packed_record()
    told = first_screen()
    for share in (record.mean, record.first, record.last, record.random, record.without_task, record.without_model):
        assert f"{100 * share:.1f} %" in told
    assert f"on {record.n_sites} pairs" in told
    fixed = Entry("depth", "control", of_depth(gaining(packed_evidence()))).mean() or 0.0
    assert f"neighbours at the depth that was best on the other models {100 * fixed:.1f} %" in told
    assert record.announced is not None and record.announced_random is not None
    tested = f"it lost {100 * record.announced:.1f} % (at random {100 * record.announced_random:.1f} %)"
    assert f"on the {record.n_announced} that were announced before they were measured {tested}" in told
    assert f"{record.n_sites - record.n_announced} of the pairs had been seen when the rule was made" in told
    for failing in record.failing:
        assert f"({failing.model} {100 * failing.mean:.1f} %, at random {100 * failing.random:.1f} %)" in told
    assert f"It can fail: {100 * record.worst:.0f} % at one block of one pair" in told
    assert record.worst_site == "narrow12-dialect"
    assert record.n_models == 10
    assert "of one of ten small models" in told
    needs = {CRITERIA[name].needs for name in RECOMMENDED}
    cost = np.mean([sum(one.cost[need] for need in needs) for one in packed_evidence() if one.setting.truth.gains])
    assert f"for {100 * cost:.0f} % of one fine-tune's time" in told
    assert len(elsewhere(packed_evidence(), RECOMMENDED, ENDS_FROM, 1)) == record.n_sites
