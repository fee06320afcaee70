"""From scores to blocks, plans as files, and what they cost."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lsf.criteria.result import Analysis, BlockRow
from lsf.errors import BadInputError, LsfError, PlanError
from lsf.plans.cost import BYTES, full_flops, predict, predict_full, training_bytes, training_flops
from lsf.plans.plan import Plan, format_blocks, full_plan, parse_blocks
from lsf.plans.policies import (
    FIXED_DEPTH,
    POLICIES,
    RECOMMENDED,
    both_ends,
    evenly_spaced,
    how_chosen,
    lacking,
    largest_within,
    make_plan,
    plan_by_hand,
    rank_average,
    recommended_plan,
    spaced_plan,
)
from tests.criteria.factory import analysis_of

SCORES = [0.1, 0.9, 0.3, 0.9, 0.2]


@pytest.mark.parametrize("name", POLICIES)
def test_every_policy_names_existing_blocks_within_the_budget(name: str) -> None:
    for budget in range(1, 6):
        chosen = POLICIES[name].choose(SCORES, budget)
        assert 1 <= len(chosen) <= budget
        assert list(chosen) == sorted(set(chosen))
        assert set(chosen) <= set(range(5))


@pytest.mark.parametrize(
    ("policy", "budget", "blocks"),
    [
        ("top_k", 1, (3,)),  # a tie goes to the deeper block
        ("top_k", 2, (1, 3)),
        ("top_k", 3, (1, 2, 3)),
        ("window", 2, (2, 3)),  # 1-2 and 2-3 both sum to 1.2
        ("window", 3, (1, 2, 3)),
        ("suffix", 3, (3, 4)),  # the peak is block 3
        ("suffix", 1, (4,)),
    ],
)
def test_policies_by_hand(policy: str, budget: int, blocks: tuple[int, ...]) -> None:
    plan = make_plan(analysis_of(SCORES), "deviation", policy, budget)
    assert plan.blocks == blocks
    assert set(plan.reasons) == {str(block) for block in blocks}


def by_reduction(scores: list[float]) -> Analysis:
    found = analysis_of(scores)
    rows = (replace(block, scores={"reduction": block.scores["deviation"]}) for block in found.blocks)
    return replace(found, blocks=tuple(rows))


def test_suffix_freezes_what_already_works_and_tunes_at_most_the_budgets_deepest() -> None:
    early_peak = by_reduction([0.1, 0.9, 0.3, 0.2, 0.1])
    assert make_plan(early_peak, "reduction", "suffix", 5).blocks == (2, 3, 4)
    assert make_plan(early_peak, "reduction", "suffix", 2).blocks == (3, 4)
    assert make_plan(by_reduction([0.1, 0.2, 0.9]), "reduction", "suffix", 2).blocks == (2,)


def test_suffix_begins_at_the_block_that_is_to_be_tuned_first() -> None:
    early_peak = analysis_of([0.1, 0.9, 0.3, 0.2, 0.1])
    assert make_plan(early_peak, "deviation", "suffix", 5).blocks == (1, 2, 3, 4)
    assert make_plan(early_peak, "deviation", "suffix", 2).blocks == (3, 4)
    assert make_plan(analysis_of([0.1, 0.2, 0.9]), "deviation", "suffix", 2).blocks == (2,)


def test_windows_of_the_same_scores_are_level_in_whatever_order_they_are_added() -> None:
    assert make_plan(analysis_of([0.1, 0.2, 0.3, 0.0, 0.3, 0.2, 0.1]), "deviation", "window", 3).blocks == (4, 5, 6)


@pytest.mark.parametrize("budget", [0, -1, 6])
def test_a_budget_outside_the_model_is_refused(budget: int) -> None:
    with pytest.raises(PlanError, match=f"The budget is {budget} blocks; this model allows 1 to 5"):
        make_plan(analysis_of(SCORES), "deviation", "top_k", budget)


def test_a_criterion_that_was_not_measured_is_refused() -> None:
    with pytest.raises(PlanError, match="no scores for 'reduction'; it has: deviation"):
        make_plan(analysis_of(SCORES), "reduction", "top_k", 1)


def test_a_plan_survives_its_file(tmp_path: Path) -> None:
    plan = make_plan(analysis_of(SCORES), "deviation", "top_k", 2)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("dtype", BYTES)
def test_a_plan_of_any_kind_of_base_survives_its_file(dtype: str, tmp_path: Path) -> None:
    found = analysis_of(SCORES, n_params=1001)
    found = replace(found, model=replace(found.model, dtype=dtype, n_params=6605))
    plan = make_plan(found, "deviation", "top_k", 2)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan
    assert plan.predicted.memory_bytes == 2002 * 16  # own copies, gradients and moments, whatever the base takes


def test_a_plan_edited_by_hand_is_accepted_or_refused_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text('{"schema_version": 1, "model": "toy", "n_blocks": 5, "blocks": [4, 0, 4]}')
    assert Plan.load(path).blocks == (0, 4)
    for text, sentence in [
        ('{"schema_version": 1, "model": "toy", "n_blocks": 5, "blocks": [5]}', "Block 5 does not exist"),
        ('{"schema_version": 1, "model": "toy", "n_blocks": 5, "blocks": []}', "tunes nothing"),
        ('{"schema_version": 2, "model": "toy", "n_blocks": 5, "blocks": [1]}', "schema_version 2"),
        ('{"schema_version": 1, "n_blocks": 5, "blocks": [1]}', "not a whole plan"),
        (
            '{"schema_version": 1, "model": "toy", "n_blocks": 5, "blocks": [1], "extra": 1}',
            "it has the field 'extra'; known are: ",
        ),
        ('{"model": "toy", "n_blocks": 5, "blocks": ["1"]}', "blocks[0] is '1'; a whole number was expected"),
        ('{"model": "toy", "n_blocks": 5, "blocks": "1"}', "blocks is '1'; a list was expected"),
        ('{"model": "toy", "n_blocks": 5, "blocks": [1], "modules": [3]}', "modules[0] is 3; text was expected"),
        ('{"model": 3, "n_blocks": 5, "blocks": [1]}', "model is 3; text was expected"),
        ('{"model": "toy", "n_blocks": 5, "blocks": [1], "embedding": "no"}', "'no'; true or false was expected"),
        ("[1, 2]", "a JSON object was expected"),
        ("{", "line 1 is not valid JSON"),
    ]:
        path.write_text(text)
        with pytest.raises(LsfError) as caught:
            Plan.load(path)
        assert sentence in str(caught.value)


def test_blocks_are_read_and_written_as_ranges() -> None:
    assert parse_blocks("3,5-7", 8) == (3, 5, 6, 7)
    assert format_blocks((3, 5, 6, 7)) == "3, 5-7"
    assert Plan("toy", 8, (3, 5, 6, 7), head=True).label == "blocks 3, 5-7 + head"
    assert full_plan("toy", 8).label == "full"
    for text in ("", "x", "3,", "5-", "-1", "7-5", "7-5,1", "8", "0-99999999999999"):  # the last one is not written out
        with pytest.raises(PlanError):
            parse_blocks(text, 8)


def test_by_hand_is_said_in_the_reasons() -> None:
    assert plan_by_hand(analysis_of(SCORES), [4, 1]).reasons == {"1": "chosen by hand", "4": "chosen by hand"}
    for rate in (0.0, 1.5, True):
        with pytest.raises(PlanError, match=r"the plan is .*; it must be above 0 and at most 1"):
            Plan("tiny", 5, (1,), rates={"full": rate})
    with pytest.raises(PlanError, match="tunes nothing"):
        plan_by_hand(analysis_of(SCORES), [])


def test_the_cost_of_a_suffix_follows_the_law_and_frozen_blocks_between_save_less() -> None:
    analysis = analysis_of([0.0] * 12, n_params=1_000_000_000)
    assert training_flops(analysis, range(12)) / full_flops(analysis) == pytest.approx(1, abs=1e-6)
    for frozen in range(12):
        ratio = training_flops(analysis, range(frozen, 12)) / full_flops(analysis)
        assert ratio == pytest.approx(1 - 2 / 3 * frozen / 12, abs=1e-6)
    assert training_flops(analysis, [0]) / full_flops(analysis) == pytest.approx(2 / 3 + 1 / 36, abs=1e-6)
    assert predict(analysis, [0, 11]).trainable_params == 2_000_000_000


def test_attention_counts_where_examples_are_long() -> None:
    short, long = analysis_of([0.0] * 4, mean_tokens=1.0), analysis_of([0.0] * 4, mean_tokens=1000.0)
    by_hand = 4 * (2000 + 2 * 16 * 1000) + 2 * 16 * 50  # forward of all blocks, and the head
    by_hand += 2 * 16 * 50 + (2000 + 4 * 16 * 1000) + 2000  # backward to block 3 alone, its weights
    assert training_flops(long, [3]) == by_hand
    assert training_flops(long, [3]) > training_flops(short, [3])


def test_attention_is_counted_by_the_rows_in_which_tokens_stand() -> None:
    rows = [10] * 90 + [1000] * 10
    mean, attended = sum(rows) / len(rows), sum(size**2 for size in rows) / sum(rows)
    mixed = analysis_of([0.0] * 4, mean_tokens=mean, attended_tokens=attended)
    alone = (training_flops(analysis_of([0.0] * 4, attended_tokens=float(size)), [1]) * size for size in rows)
    assert training_flops(mixed, [1]) == pytest.approx(sum(alone) / sum(rows))
    older = analysis_of([0.0] * 4, mean_tokens=mean)  # which knows no other
    assert training_flops(older, [1]) == training_flops(analysis_of([0.0] * 4, attended_tokens=mean), [1])


def test_memory_counts_weights_copies_gradients_and_adam() -> None:
    analysis = analysis_of(SCORES)
    assert predict(analysis, [2]).memory_bytes == (4 + 4 + 8) * 1000
    assert predict_full(analysis).memory_bytes == 16 * 6600


def test_embedding_and_head_of_a_base_in_4_bits_are_counted_as_floats() -> None:
    analysis = analysis_of(SCORES)
    packed = replace(analysis, model=replace(analysis.model, dtype="nf4"))
    n_blocks = sum(block.n_params for block in analysis.blocks)
    assert training_bytes(packed, 0) == round(n_blocks * (0.5 + 4 / 64)) + 2 * (6600 - n_blocks)


@pytest.mark.parametrize("policy", POLICIES)
def test_the_largest_plan_within_a_share_has_the_size_that_it_is_told_with(policy: str) -> None:
    analysis, share = analysis_of(SCORES), 0.6 if POLICIES[policy].scored else 0.9  # spread ones reach the first block
    plan = largest_within(analysis, partial(make_plan, analysis, "deviation", policy), share, "compute")
    assert plan is not None and plan.predicted.flops_ratio is not None
    assert plan.predicted.flops_ratio <= share
    assert plan.budget["blocks"] <= 5
    again = make_plan(analysis, "deviation", policy, len(plan.blocks))
    assert again.blocks == plan.blocks  # a budget of so many blocks is this plan
    assert largest_within(analysis, partial(make_plan, analysis, "deviation", policy), 0.01, "memory") is None


def test_an_analysis_survives_its_file(tmp_path: Path) -> None:
    analysis = analysis_of(SCORES)
    analysis.save(tmp_path / "a.json")
    assert Analysis.load(tmp_path / "a.json") == analysis
    analysis.save(str(tmp_path / "b.json"))
    assert Analysis.load(str(tmp_path / "b.json")) == analysis
    plan = make_plan(analysis, "deviation", "window", 2)
    plan.save(str(tmp_path / "plan.json"))
    assert Plan.load(str(tmp_path / "plan.json")) == plan
    with pytest.raises(BadInputError, match=r"no\.json"):
        Plan.load(str(tmp_path / "no.json"))
    value = json.loads((tmp_path / "a.json").read_text())
    assert next(iter(value)) == "schema_version"
    del value["states"][0]["deviation"]
    with pytest.raises(BadInputError, match="not a whole analysis"):
        Analysis.from_json(value, "a.json")
    with pytest.raises(BadInputError, match="is not a whole analysis: it has no 'model'"):
        Analysis.from_json({}, "a.json")


SCORED = [0.4, 0.1, 0.2, 0.35]


@pytest.fixture
def scored() -> Analysis:
    blocks = tuple(BlockRow(block, 1000, dict.fromkeys(RECOMMENDED, score)) for block, score in enumerate(SCORED))
    return replace(analysis_of(SCORED), blocks=blocks)


@pytest.mark.parametrize(
    ("n_blocks", "budget", "blocks"),
    [
        (30, 8, (0, 4, 8, 12, 17, 21, 25, 29)), (30, 1, (15,)), (4, 2, (0, 3)), (4, 4, (0, 1, 2, 3)), (4, 3, (0, 2, 3)),
        (6, 3, (0, 2, 5)), (1, 1, (0,)),
    ],
)  # fmt: skip
def test_evenly_spaced_blocks_reach_from_the_first_to_the_last(
    n_blocks: int, budget: int, blocks: tuple[int, ...]
) -> None:
    assert evenly_spaced(n_blocks, budget) == blocks


def test_an_evenly_spaced_plan_is_no_criterion_s_whatever_the_scores(scored: Analysis) -> None:
    plan = spaced_plan(scored, 3)
    assert (plan.blocks, plan.criterion, plan.policy) == ((0, 2, 3), None, "evenly_spaced")
    assert plan == make_plan(scored, "deviation", "evenly_spaced", 3)
    assert plan.predicted == plan_by_hand(scored, (0, 2, 3)).predicted
    assert set(plan.reasons.values()) == {"evenly spaced from the first block to the last"}
    hand = plan_by_hand(scored, (0, 2, 3))
    tried = replace(hand, rates={"full": 0.01})
    assert [one.by_hand for one in (hand, plan, tried, make_plan(scored, RECOMMENDED[0], "top_k", 1))] == [
        True,
        *[False] * 3,
    ]
    with pytest.raises(PlanError, match="allows 1 to 4"):
        spaced_plan(scored, 5)


@pytest.mark.parametrize(("budget", "blocks"), [(1, (3,)), (2, (0, 3)), (3, (0, 2, 3)), (4, (0, 1, 2, 3))])
def test_both_ends_take_the_odd_block_from_the_deeper(budget: int, blocks: tuple[int, ...]) -> None:
    assert both_ends(4, budget) == blocks


def test_the_recommended_plan_follows_the_scores_and_says_so(scored: Analysis) -> None:
    assert lacking(scored) == ()
    plan = recommended_plan(scored, 1)
    assert plan.blocks == (0,)
    assert "recommended by" in plan.reasons["0"]
    assert recommended_plan(scored, 2).blocks == (2, 3)  # neighbours: 0.55 against 0.5 and 0.3
    assert plan.predicted.trainable_params is not None
    assert not plan.by_hand


def test_what_chose_the_blocks_is_said_in_one_way(scored: Analysis) -> None:
    hand = plan_by_hand(scored, (1,))
    told = {
        "chosen by hand": hand,
        "chosen by trying": replace(hand, rates={"full": 0.1}),
        "chosen by the recommended rule": recommended_plan(scored, 1),
        "evenly spaced": spaced_plan(scored, 2),
        "at a depth fixed beforehand": replace(hand, policy=FIXED_DEPTH),
        "chosen by Gradient alignment": make_plan(scored, "alignment", "window", 1),
        "chosen by magic": Plan("m", 2, (0,), criterion="magic"),
    }
    assert {how_chosen(plan): plan for plan in told.values()} == told
    assert [words for words, plan in told.items() if plan.by_hand] == ["chosen by hand"]


def test_an_analysis_without_the_criterion_is_told_what_it_lacks() -> None:
    analysis = analysis_of(SCORED)
    assert lacking(analysis) == RECOMMENDED
    with pytest.raises(PlanError, match="This analysis has no scores for"):
        recommended_plan(analysis, 1)
    with pytest.raises(PlanError, match="this model allows 1 to 4"):
        recommended_plan(analysis, 5)


def test_a_rank_average_shares_the_ranks_of_ties() -> None:
    assert rank_average([[1.0, 2.0, 2.0], [3.0, 1.0, 2.0]]) == [2.0, 1.75, 2.25]
