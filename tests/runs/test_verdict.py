"""The verdict: worked by hand, and fair where runs are not."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from lsf.data.report import Floor, Prior
from lsf.figures.verdict import draw_verdict
from lsf.plans.plan import Plan, full_plan
from lsf.runs.comparison import compare
from lsf.runs.formats import render
from lsf.runs.result import RunState
from lsf.runs.seeds import ONE_SEED, estimate, summarise
from lsf.runs.store import Run
from lsf.runs.verdict import BETTER, TIED, WORSE, Verdict, verdicts
from tests.runs.test_comparison import make, with_result

FLOOR = Floor(2.5, 0.2, Prior("label frequencies", 2.5, 0.2))


def run(name: str, **changes: Any) -> Run:
    return with_result(make(name, **changes), floor=FLOOR)


def whole(name: str = "full", exact: float = 1.0, seed: int = 0, **changes: Any) -> Run:
    values = {"loss": 0.5, "seconds": 10.0, "params": 800, **changes}
    return run(name, plan="full", exact=exact, role="full", seed=seed, **values)


def lora(name: str, exact: float, seed: int = 0, **changes: Any) -> Run:
    found = run(name, exact=exact, seed=seed, role="full", method="lora", params=50, **changes)
    assert found.spec is not None
    return replace(found, spec=replace(found.spec, plan=full_plan("m", 8)))


def only(*runs: Run) -> Verdict:
    (found,) = verdicts(compare(runs))
    return found


def test_the_share_is_over_the_floor_and_not_over_the_base_model() -> None:
    found = only(run("some", exact=0.6), whole())
    assert found.score == "exact match"
    assert found.choice.share is not None and found.choice.time is not None and found.choice.memory is not None
    assert found.choice.share.mean == pytest.approx((0.6 - 0.2) / (1.0 - 0.2))
    assert found.choice.time.mean == pytest.approx(0.4)
    assert found.choice.memory.mean == pytest.approx(100 / 800)
    assert found.choice.forgetting is not None and found.choice.forgetting.mean == 0.25
    assert found.sentence == (
        "Block 7 keeps 50 % of the whole model's gain in exact match (1 seed) at 0.40 x its time and 0.12 x its "
        "memory; there is no control of its size, so it is unknown whether other blocks would do as well."
    )


def test_choices_of_several_models_data_sets_and_general_data_are_told_apart() -> None:
    def asked(name: str, **changes: Any) -> Run:
        made = run(name, exact=0.6, loss=1.5)
        assert made.spec is not None
        return replace(made, spec=replace(made.spec, **changes))

    one, other = verdicts(compare([asked("a", data="x.jsonl"), asked("b", data="y.jsonl")]))
    assert one.sentence.startswith("Block 7 (x.jsonl) gains 1 nats") and other.choice.name == "block 7 (y.jsonl)"
    plain, mixed = verdicts(compare([asked("a"), asked("b", general="g.jsonl", general_share=0.2)]))
    assert (plain.choice.name, mixed.choice.name) == ("block 7", "block 7 with 20 % general data")


def test_choices_that_differ_in_steps_or_rate_alone_have_names_of_their_own() -> None:
    runs = [run("a", steps=4), run("b", steps=8), whole(steps=8)]
    found = compare(runs)
    assert [one.choice.name for one in verdicts(found)] == ["block 7 (4 steps)", "block 7 (8 steps)"]
    assert [one.plan for one in summarise(found.rows)] == ["block 7, 4 steps", "block 7, 8 steps", "full, 8 steps"]
    rates = verdicts(compare([run("a", learning_rate=1e-3), run("b")]))
    apart = summarise(compare([with_result(whole("f", learning_rate=1e-2), learning_rate=1e-2), whole("g")]).rows)
    assert [one.plan for one in apart] == ["full, rate 0.01", "full, default rate"]
    assert [one.choice.name for one in rates] == ["block 7 (rate 0.001)", "block 7 (default rate)"]


def test_where_answers_are_hardly_ever_wholly_right_the_loss_is_the_score() -> None:
    found = only(run("some", exact=0.2, loss=1.5), whole(exact=0.25))
    assert found.score == "loss"
    assert found.choice.share is not None and found.choice.share.mean == (2.5 - 1.5) / (2.5 - 0.5)


@pytest.mark.parametrize(("exact", "score"), [(0.3, "exact match"), (0.28, "loss")])
def test_a_tenth_of_the_answers_is_a_tenth_whatever_its_last_bits(exact: float, score: str) -> None:
    assert exact - FLOOR.exact_match < 0.1  # 15 of 50 over 10 of 50 too
    assert only(run("some", exact=0.25), whole(exact=exact)).score == score


def test_a_share_of_answers_is_known_no_better_than_one_answer_whatever_its_seeds_have_alike() -> None:
    def tested(one: Run) -> Run:
        assert one.result is not None and one.result.after is not None
        return with_result(one, after=replace(one.result.after, n_examples=20))

    runs = [tested(whole(f"f{seed}", exact=1.0, seed=seed)) for seed in range(2)]
    runs += [tested(run(f"c{seed}", exact=0.6, seed=seed)) for seed in range(2)]
    found = only(*runs)
    share = found.choice.share
    assert share is not None and share.mean == pytest.approx(0.4 / 0.8)
    assert (share.low, share.high) == pytest.approx(((0.4 - 1 / 20) / 0.8, (0.4 + 1 / 20) / 0.8))
    (itself,) = found.others
    assert itself.share is not None and (itself.share.low, itself.share.high) == (1.0, 1.0)  # it is what is divided by
    (summary,) = [one for one in summarise(compare(runs).rows) if one.role == "choice"]
    quality = summary.over_full["x_quality"]
    assert quality is not None and (quality.low, quality.high) == pytest.approx((0.55, 0.65))


def test_an_interval_over_seeds_is_students_t() -> None:
    found = estimate([1.0, 2.0, 3.0])
    assert found is not None and found.low is not None and found.high is not None
    assert found.high - found.mean == pytest.approx(4.302653 / math.sqrt(3))
    assert (estimate([]), estimate([1.0])) == (None, type(found)(1.0, None, None, 1))


def test_controls_are_paired_by_seed_and_a_tie_is_a_verdict() -> None:
    runs = [whole(f"f{seed}", seed=seed) for seed in range(3)]
    for seed, level in enumerate((0.5, 0.7, 0.9)):  # seeds differ far more than places do
        runs.append(run(f"c{seed}", exact=level, seed=seed))
        runs.append(run(f"l{seed}", plan=(6,), role="last", exact=level - 0.1, seed=seed))
        runs.append(run(f"r{seed}", plan=(seed,), role="random", exact=level + 0.05 * (seed - 1), seed=seed))
        runs.append(run(f"m{seed}", plan=(4,), role="first", exact=level + 0.08, seed=seed))
        runs.append(lora(f"a{seed}", level, seed))
    found = only(*runs)
    stands = {other.role: other.apart for other in found.others}
    # The whole model is 0.5, 0.3 and 0.1 ahead: the interval of three seeds holds zero.
    assert stands == {"full": TIED, "lora": TIED, "last": BETTER, "random": TIED, "first": WORSE}
    tied = "the whole model, LoRA on all blocks and a random block"
    assert f"better than the last block; cannot be told apart from {tied};" in found.sentence
    assert found.sentence.endswith("worse than the first block.")
    assert found.onward == "Next: take the first block instead, or choose by another criterion."


def test_a_difference_below_one_test_example_is_no_difference() -> None:
    runs = [whole(f"f{seed}", seed=seed) for seed in range(2)]
    runs += [run(f"c{seed}", exact=0.80, seed=seed) for seed in range(2)]
    runs += [run(f"l{seed}", plan=(6,), role="last", exact=0.79, seed=seed) for seed in range(2)]
    assert {other.role: other.apart for other in only(*runs).others}["last"] == TIED


@pytest.mark.parametrize("right", range(1, 50))
def test_one_test_example_under_every_seed_is_no_difference_at_any_level(right: int) -> None:
    runs = [whole(f"f{seed}", seed=seed) for seed in range(3)]
    runs += [run(f"c{seed}", exact=(right + 1) / 50, seed=seed) for seed in range(3)]
    runs += [run(f"l{seed}", plan=(6,), role="last", exact=right / 50, seed=seed) for seed in range(3)]
    assert {other.role: other.apart for other in only(*runs).others}["last"] == TIED


def test_a_control_that_tunes_the_head_too_stands_for_no_choice_that_does_not() -> None:
    def also_head(found: Run) -> Run:
        assert found.spec is not None
        return replace(found, spec=replace(found.spec, plan=replace(found.spec.plan, head=True)))

    runs = []
    for seed in range(3):
        runs += [whole(f"f{seed}", seed=seed), run(f"c{seed}", plan=(3,), exact=0.60 + 0.01 * seed, seed=seed)]
        runs.append(run(f"l{seed}", role="last", exact=0.50 + 0.01 * seed, loss=1.2, seed=seed))
        runs.append(also_head(run(f"ch{seed}", plan=(3,), exact=0.95, loss=0.6, seed=seed)))
        runs.append(also_head(run(f"lh{seed}", role="last", exact=0.90, loss=0.7, seed=seed)))
    found = compare(runs)
    bare, headed = verdicts(found)
    for one, name, letters in ((bare, "the last block", "l"), (headed, "the last block + head", "lh")):
        (control,) = one.others[1:]
        assert (control.name, control.apart) == (name, BETTER)
        assert control.runs == tuple(f"{letters}{seed}" for seed in range(3))
        assert f"better than {name}." in one.sentence
    means = {one.plan: one.mean["exact_match_after"] for one in summarise(found.rows) if one.role == "last"}
    assert means == {"the last block": pytest.approx(0.51), "the last block + head": pytest.approx(0.90)}


def test_a_choice_is_not_compared_with_itself_and_it_is_said_which_control_it_is() -> None:
    runs = []
    for seed in range(3):
        runs += [whole(f"f{seed}", seed=seed), run(f"a{seed}", plan=(3,), exact=0.9, seed=seed)]
        runs += [run(f"b{seed}", exact=0.6, seed=seed), run(f"l{seed}", role="last", exact=0.6, seed=seed)]
        runs.append(run(f"r{seed}", plan=(5 + seed,), role="random", exact=0.3, seed=seed))  # seed 2 draws block 7
    block_3, block_7 = verdicts(compare(runs))
    assert "better than the last block and a random block." in block_3.sentence
    assert [(other.role, other.runs) for other in block_7.others[1:]] == [("random", ("r0", "r1"))]
    assert block_7.sentence.endswith("; better than a random block; it is itself the last block.")
    assert "hardly matters" not in block_7.onward
    assert block_7.warnings == ("A random block: 1 of 3 drawn is the choice itself, and left out.",)
    two = [run("c", plan=(6, 7)), run("l", plan=(6, 7), role="last"), whole()]
    assert only(*two).sentence.endswith(
        "; they are themselves the last 2 blocks; there is no other control of its size, so it is unknown whether "
        "other blocks would do as well."
    )


def test_a_share_over_seeds_is_mean_gain_over_mean_gain_and_says_where_it_has_no_interval() -> None:
    def kept(exact: tuple[float, ...]) -> Verdict:
        runs = [whole(f"f{seed}", exact=one, seed=seed) for seed, one in enumerate(exact)]
        return only(*runs, *(run(f"c{seed}", exact=0.4, seed=seed) for seed in range(len(exact))))

    for last in (0.22, 0.20):  # the mean of ratios is 367 %, or leaves the last seed out
        found = kept((0.6, 0.6, last))
        assert found.choice.share is not None
        assert found.choice.share.mean == pytest.approx(0.6 / (0.8 + last - 0.2))
        share = f"{100 * found.choice.share.mean:.0f} %"
        assert f"keeps {share} of the whole model's gain in exact match (no interval, 3 seeds) at" in found.sentence
        assert "it cannot be told from none; the share of it has no finite interval." in found.warnings[0]
        assert f"block 7: gain kept {share} (no interval, 3 seeds)" in draw_verdict(found).alt
    steady = kept((0.6, 0.64, 0.62))  # 0.2 over 0.42 ± 4.303 x 0.02 / sqrt(3)
    assert "keeps 48 % of the whole model's gain in exact match (43 % to 54 %, 3 seeds)" in steady.sentence
    assert steady.warnings == ()


def test_seeds_without_a_whole_model_are_counted_and_said() -> None:
    runs = [whole("f0"), whole("f1", seed=1), whole("f2", exact=0.1, loss=4.0, seed=2)]
    found = only(*runs, *(run(f"c{seed}", seed=seed) for seed in range(4)))
    assert "keeps 75 % of the whole model's gain in exact match (73 % to 78 %, 2 of 4 seeds) at" in found.sentence
    assert found.warnings == (
        "Under 2 of 4 seeds there is no whole-model run without a fault; the share, time and memory leave these out.",
    )
    assert found.choice.forgetting is not None and (found.choice.forgetting.n, found.choice.forgetting.lacking) == (
        4,
        0,
    )


def test_one_seed_tells_nothing_apart_and_says_what_would() -> None:
    found = only(run("c"), run("l", plan=(6,), role="last", exact=0.3), whole())
    assert [other.apart for other in found.others] == [ONE_SEED, ONE_SEED]
    assert "; the last block keeps 12 %, but 1 seed cannot rule out chance." in found.sentence
    assert found.onward.startswith("Next: tune the same with two more seeds")


def test_no_share_of_a_whole_model_that_diverged_is_below_the_floor_or_forgot() -> None:
    good = whole()
    assert good.result is not None
    wrecked = [
        ("below the floor", with_result(whole(loss=2.6, exact=0.1), learning_rate=0.03, default_rate=0.003)),
        ("forgot 2.5 nats", with_result(good, after=replace(good.result.after, general_loss=3.5))),  # type: ignore[type-var]
        ("diverged", with_result(good, state=RunState.FAILED, failure="DivergedError", after=None)),
    ]
    for words, full in wrecked:
        failed = words == "diverged"
        assert full.spec is not None
        full = replace(full, spec=replace(full.spec, role="choice"))  # as the shell makes it
        found = only(run("c"), replace(full, state=RunState.FAILED) if failed else full)
        assert (found.choice.share, found.choice.time, found.choice.memory) == (None, None, None), words
        assert f"because the whole model's run has a fault ({words})" in found.sentence
        assert any(told.startswith(f"The whole model: {words}") for told in found.warnings)
        assert found.onward.startswith("Next: tune the whole model again at the rate")
        assert [other.apart for other in found.others] == [None]


def test_a_choice_with_a_fault_has_a_verdict_that_says_only_that() -> None:
    found = only(run("c", loss=2.6, exact=0.1), whole())
    assert found.sentence == "Block 7: below the floor, too few steps, so nothing can be said for this choice."
    assert found.onward == "Next: tune the choice again with more steps."
    assert any(told.startswith("Block 7: below the floor, too few steps.") for told in found.warnings)
    wrecked = only(run("c", loss=9.9, exact=0.1), whole())
    assert wrecked.sentence == "Block 7: below the floor, so nothing can be said for this choice."
    assert wrecked.onward.startswith("Next: tune the choice again at the rate")


def test_another_regime_of_rates_is_said_in_the_same_place() -> None:
    full = whole()
    assert full.spec is not None
    searched = replace(full, spec=replace(full.spec, learning_rate=None))
    assert any("was searched, that of the choice default" in told for told in only(run("c"), searched).warnings)
    given = [run("c", learning_rate=3e-3), replace(full, spec=replace(full.spec, learning_rate=3e-3))]
    assert any("were given by hand" in told for told in only(*given).warnings)
    assert only(run("c"), full).warnings == ()


def test_states_of_an_earlier_run_are_said_beside_the_time() -> None:
    warm = with_result(run("c"), cache={"kind": "memory", "found": 12})
    assert any("its time leaves out computing them" in told for told in only(warm, whole()).warnings)


def test_without_a_whole_model_the_gain_over_the_floor_is_told_alone() -> None:
    found = only(run("c", loss=1.0))
    assert found.sentence.startswith("Block 7 gains 1.5 nats over the floor; the share of the whole")
    assert found.onward == "Next: tune the whole model beside it, with the same data, seed and steps."


def test_lora_on_all_blocks_is_no_choice_and_every_choice_has_its_own_verdict() -> None:
    two = make("two", plan=(5, 6))
    found = verdicts(compare([run("c"), lora("a", 0.9), with_result(two, floor=FLOOR), whole()]))
    assert [verdict.choice.name for verdict in found] == ["block 7", "blocks 5-6"]
    assert [other.name for other in found[1].others] == ["the whole model", "LoRA on all blocks"]
    assert verdicts(compare([whole()])) == ()


def test_lora_of_several_ranks_stands_beside_a_choice_each_rank_by_its_name() -> None:
    runs = []
    for seed, (small, large) in enumerate(((0.8, 0.9), (0.9, 0.8), (0.8, 0.9))):  # now one loss is less, now the other
        runs += [whole(f"f{seed}", seed=seed), run(f"c{seed}", exact=0.7, seed=seed)]
        runs.append(lora(f"small{seed}", 0.6, seed, loss=small, options={"r": 8}))
        runs.append(lora(f"large{seed}", 0.8, seed, loss=large, options={"r": 64}))
    named = {other.name: (other.apart, set(other.runs)) for other in only(*runs).others[1:]}
    assert named == {
        "LoRA on all blocks (r=8)": (BETTER, {"small0", "small1", "small2"}),
        "LoRA on all blocks (r=64)": (WORSE, {"large0", "large1", "large2"}),
    }
    twice = [lora("a", 0.4, options={"r": 8, "alpha": 4.0}), lora("b", 0.4, 1, options={"alpha": 4.0, "r": 8})]
    assert [other.name for other in only(run("c"), *twice).others] == ["LoRA on all blocks (alpha=4.0, r=8)"]
    single = only(run("c"), lora("a", 0.4, options={"r": 8}), whole(), run("l", plan=(6,), role="last"))
    assert "; LoRA on all blocks (r=8) keeps 25 % and the last block keeps 75 %, but 1 seed" in single.sentence


def test_the_shell_prints_the_same_sentence_and_json_holds_the_numbers() -> None:
    comparison = compare([run("c"), whole()])
    (verdict,) = verdicts(comparison)
    assert f"Verdict: {verdict.sentence} {verdict.onward}\n" in render(comparison)
    (plain,) = json.loads(render(comparison, "json"))["verdicts"]
    assert plain["choice"]["share"]["mean"] == pytest.approx(0.75)
    assert plain["sentence"] == verdict.sentence


def test_the_picture_has_a_panel_per_number_a_row_per_standing_and_whiskers_over_seeds() -> None:
    runs = [whole(f"f{seed}", seed=seed) for seed in range(2)] + [run(f"c{seed}", seed=seed) for seed in range(2)]
    verdict = only(*runs)
    picture = draw_verdict(verdict)
    figure: Any = picture.figure
    assert len(figure.data) == 4 * 2
    assert {trace.y[0] for trace in figure.data} == {"block 7", "the whole model"}
    assert all(trace.error_x.array is not None for trace in figure.data)
    assert picture.title == verdict.headline
    assert verdict.sentence.startswith(verdict.headline)
    assert "block 7: gain kept 75 % (73 % to 78 %, 2 seeds), time 0.40 x" in picture.alt
    assert Plan("m", 8, (7,)).label in picture.table["tuned"].tolist()


def test_a_choice_with_a_fault_is_drawn_by_what_is_known_of_it_alone() -> None:
    figure: Any = draw_verdict(only(run("c", loss=2.6, exact=0.1), whole(loss=2.6, exact=0.1))).figure
    assert [note.text for note in figure.layout.annotations] == ["forgetting (nats)"]
    assert {trace.y[0] for trace in figure.data} == {"block 7", "the whole model"}
