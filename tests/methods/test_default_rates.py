"""The default rate as a function of method, model and plan, and what a search for one may cost."""

import math

import pytest

from lsf.errors import UnknownNameError
from lsf.methods.catalogue import CATALOGUE
from lsf.methods.optimization import (  # fmt: skip
    BY_SHARE,
    BY_WIDTH,
    LARGE,
    LAWS,
    LEAST_WIDTH,
    WIDTH,
    Tuned,
    default_rate,
    outwards,
    share_of,
)
from lsf.plans.plan import Plan, full_plan
from lsf.training.rate_search import best_of
from lsf.training.search_budget import LEAST_STEPS, MOST_STEPS, SHARE, search_budget

SMALL = Tuned(WIDTH, 1_000_000, 1.0)


@pytest.mark.parametrize("method", list(CATALOGUE))
def test_every_method_has_a_law_with_its_source_and_never_more_than_what_is_published_above_a_billion(
    method: str,
) -> None:
    law = LAWS[method]
    assert 0 < law.rate <= 1 and law.source
    assert default_rate(method, SMALL) == pytest.approx(law.rate, rel=0.05)
    large = default_rate(method, Tuned(4096, 7 * LARGE, 1 / 32))
    assert large <= (law.most or 1.0)


def test_full_fine_tuning_of_7_billion_stays_within_the_published_rates_and_lora_too() -> None:
    assert 1e-5 <= default_rate("full", Tuned(4096, 7 * LARGE, 1.0)) <= 2e-5
    assert 1e-4 <= default_rate("lora", Tuned(4096, 7 * LARGE, 1.0)) <= 2e-4


def test_the_rate_falls_with_width_and_rises_where_fewer_blocks_are_tuned() -> None:
    whole = default_rate("full", SMALL)
    assert default_rate("full", Tuned(4 * WIDTH, 10**8, 1.0)) == pytest.approx(whole * 4**BY_WIDTH, rel=0.05)
    assert default_rate("full", Tuned(WIDTH, 10**6, 1 / 8)) == pytest.approx(whole * 8**-BY_SHARE, rel=0.05)
    assert default_rate("full", Tuned(16, 10**4, 1.0)) == default_rate("full", Tuned(LEAST_WIDTH, 10**5, 1.0))
    assert BY_WIDTH < 0 and all(law.by_share < 0 for law in LAWS.values())


def test_on_the_real_model_the_defaults_lie_where_its_first_runs_were_good() -> None:
    # TREC (benchmarks/real_cells.jsonl): gain is flat from 2e-4 to 5e-4 where the whole model is tuned, and only the
    # former leaves it what it knew; 8 blocks are best at 5e-4; one block gains at 2e-3 what it lacks at 1e-3
    whole, quarter, block = (default_rate("full", Tuned(576, 134_515_008, share)) for share in (1.0, 8 / 30, 1 / 30))
    assert 1.5e-4 <= whole <= 3e-4 and 4e-4 <= quarter <= 7e-4 and 1.5e-3 <= block <= 3e-3
    assert 1e-3 <= default_rate("lora", Tuned(576, 134_515_008, 1.0)) <= 2e-3


def test_the_share_is_of_blocks_unless_embedding_or_head_are_tuned_too() -> None:
    assert share_of(Plan("m", 8, (6, 7))) == 0.25
    assert share_of(full_plan("m", 8)) == 1.0
    assert share_of(Plan("m", 8, (7,), head=True)) == 1.0
    assert share_of(Plan("m", 8, (), final_norm=True)) == 0.125


def test_an_unknown_method_is_answered_with_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match="known are: full, lora"):
        default_rate("magic", SMALL)


@pytest.mark.parametrize("steps", [10, 60, 100, 150, 400, 5000])
@pytest.mark.parametrize("reading", [0.2, 1.0, 3.0])
def test_a_search_never_costs_more_than_a_fifth_of_its_run(steps: int, reading: float) -> None:
    budget = search_budget(steps, reading)
    if budget is None:
        assert 3 * (LEAST_STEPS + reading) > SHARE * steps
        return
    assert LEAST_STEPS <= budget.steps <= MOST_STEPS and budget.trials >= 3
    assert budget.share(budget.trials * budget.steps, budget.trials, steps) <= SHARE + 1e-9


def test_a_rate_that_forgets_more_than_a_nat_more_loses_against_another_within_noise_of_its_loss() -> None:
    one, other, worse = [1.0, 2.0, 3.0, 1.5], [1.2, 1.7, 3.3, 1.5], [4.0, 5.0, 6.0, 4.5]
    assert best_of({1e-3: other, 3e-3: one}, {1e-3: 3.7, 3e-3: 4.0}) == 3e-3
    assert best_of({1e-3: other, 3e-3: one}, {1e-3: 3.7, 3e-3: 9.0}) == 1e-3
    assert best_of({1e-3: worse, 3e-3: one}, {1e-3: 3.7, 3e-3: 9.0}) == 3e-3  # not within noise
    assert best_of({}, {}) is None


LADDER = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ({1e-4: 3.0, 1e-3: 2.0, 1e-2: 3.0}, None),
        ({1e-4: 1.0, 1e-3: 2.0, 1e-2: 3.0}, 1e-5),
        ({1e-5: 1.0, 1e-4: 2.0}, None),
        ({1e-4: 3.0, 1e-3: 2.0}, 1e-2),
        ({1e-2: 3.0, 1e-1: 2.0}, None),
        ({1e-2: math.inf, 1e-3: math.inf}, 1e-4),
        ({1e-2: math.inf, 1e-3: 2.0, 1e-4: 3.0}, None),
    ],
)
def test_rates_are_tried_outwards_while_the_best_is_at_an_edge_and_down_while_all_are_lost(
    losses: dict[float, float], wanted: float | None
) -> None:
    assert outwards(losses, LADDER) == wanted
