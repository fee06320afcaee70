"""What checks annotations while tests run notices what is wrong."""

from typing import Any, cast

import numpy as np
import pytest
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError

from lsf.criteria.scores import power_law
from lsf.criteria.transitions import Arc, arc
from lsf.plans.cost import Load, Sizes, forward_flops
from lsf.plans.plan import parse_blocks
from tests.checker import checked


def test_an_array_of_another_shape_or_dtype_is_noticed() -> None:
    flat, wide = np.eye(2), np.eye(3)[:2]
    with pytest.raises(TypeCheckError):
        arc(flat, wide)  # each is an array of positions and a width; only together they are wrong
    with pytest.raises(TypeCheckError):
        Arc(flat, wide, np.ones(2))
    with pytest.raises(TypeCheckError):
        power_law(np.array([3, 2, 1]))


def test_another_type_is_noticed_in_a_function_a_method_and_a_dataclass() -> None:
    wrong: Any = "four"
    for call in (
        lambda: parse_blocks("1", wrong),
        lambda: Load(1, 1.0, 1.0).times(wrong),
        lambda: Load(1, 1.0, wrong),
        lambda: forward_flops(cast(Sizes, None), Load(1, 1.0, 1.0)),
    ):
        with pytest.raises(BeartypeCallHintViolation):
            call()


def test_a_function_inside_a_function_is_checked_where_it_takes_arrays() -> None:
    def lengths(vectors: Float[np.ndarray, "n width"]) -> Float[np.ndarray, " n"]:
        return vectors.sum(axis=0)

    assert len(checked(lengths)(np.eye(2))) == 2
    with pytest.raises(TypeCheckError):
        checked(lengths)(np.ones((2, 3)))
