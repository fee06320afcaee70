"""A small analysis made by hand."""

from collections.abc import Sequence
from typing import Any

from lsf.criteria.result import Analysis, BlockRow, DataInfo, StateRow, Timing
from lsf.models.info import ModelInfo


def analysis_of(scores: Sequence[float], n_params: int = 1000, **data: Any) -> Analysis:
    """Return an analysis whose `deviation` scores are these."""
    n = len(scores)
    return Analysis(
        model=ModelInfo("toy", None, "llama", n, 16, 50, False, n * n_params + 1600, "float32", "cpu"),
        data=DataInfo("toy", "train", 10, 10, 0, "first", "lens", "even", **data),
        states=tuple(StateRow(s, 0.1, None, None, 0.9, None, None, 0.1, 3.0, ((" x", 0.5),)) for s in range(n + 1)),
        blocks=tuple(BlockRow(b, n_params, {"deviation": score, "absent": None}) for b, score in enumerate(scores)),
        timing=Timing(1.0, 2.0, 3.0),
        environment={"lsf": "0"},
    )
