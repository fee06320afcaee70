"""Learning rates, outwards from the best."""

import math

import pytest

from lsf.methods.default_rates import outwards

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
