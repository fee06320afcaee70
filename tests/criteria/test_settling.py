"""When a ranking has settled."""

import numpy as np

from lsf.criteria.agreement import settled


def test_halves_that_agree_have_settled_and_halves_that_do_not_have_not() -> None:
    scores = np.arange(12.0)
    assert settled(scores.tolist(), (2 * scores + 1).tolist())
    swapped_top = scores.copy()
    swapped_top[[8, 9]] = swapped_top[[9, 8]]  # another block enters the first quarter
    assert not settled(scores.tolist(), swapped_top.tolist())
    reordered = scores.copy()
    reordered[:6] = reordered[:6][::-1]  # the same first quarter, another order below
    assert not settled(scores.tolist(), reordered.tolist())
    assert settled([3.0], [1.0])
