"""When a validation loss is flat."""

from math import inf, nan

import pytest

from lsf.runs.spec import is_flat


@pytest.mark.parametrize(
    ("losses", "flat"),
    [
        ([3.0, 2.0, 1.0], False),  # too few
        ([3.0, 2.0, 1.0, 0.5], False),
        ([3.0, 1.0, 1.0, 1.0], False),  # the first of the three won a lot
        ([3.0, 1.0, 1.0, 1.0, 1.0], True),
        ([3.0, 1.0, 0.995, 1.2, 0.991], True),  # below, but by less than 0.01
        ([3.0, 1.0, 1.2, 1.2, 0.98], False),
        ([3.0, 1.0, None, None, None], True),  # no longer finite
        ([None, None, None, None, 2.0], False),
        ([3.0, nan, nan, nan], True),  # as they are before they are written down
        ([3.0, 2.9, nan, nan, inf], True),
        ([nan, 3.0, 2.9, 2.8, 2.7], False),
    ],
)
def test_three_readings_without_a_gain_of_a_hundredth_of_a_nat_are_flat(losses: list[float | None], flat: bool) -> None:
    assert is_flat(losses) == flat
