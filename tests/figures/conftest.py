"""A small analysis made up by hand: 3 blocks, 4 states, 2 examples."""

import pytest

from lsf.criteria.result import Analysis, BlockRow, DataInfo, ExamplePath, StateRow, Timing, Trajectories
from lsf.models.info import ModelInfo

FACTUAL = ((0.0, 0.0, 0.0), (1.0, 0.5, 0.1), (2.0, 0.2, 0.2), (3.0, 1.0, 0.3))
VIRTUAL = ((0.0, 0.0, 0.0), (1.0, 1.5, 0.0), (2.0, 2.5, 0.0), (3.0, 3.0, 0.0))


def _example(target: str, ranks: tuple[int, ...], probabilities: tuple[float, ...]) -> ExamplePath:
    return ExamplePath(
        row=1,
        prompt="The capital of Arbia is",
        completion=target,
        current_token=" is",
        target_token=target,
        factual=FACTUAL,
        virtual=VIRTUAL,
        deviation=(0.0, 0.2, 0.5, 0.4),
        target_deviation=(1.0, 0.9, 0.8, 0.5),
        target_probability=probabilities,
        target_rank=ranks,
        top_tokens=tuple(((target, p), (" the", 0.1)) for p in probabilities),
    )


@pytest.fixture
def analysis() -> Analysis:
    deviations = (0.0, 0.25, 0.75, 0.5)
    states = tuple(
        StateRow(state, d, d - 0.05, d + 0.1, 1.0 - d / 2, None, None, 0.1 * state, 5.0 - state, ((" Lun", 0.4),))
        for state, d in enumerate(deviations)
    )
    scores = ((0.25, 3.0), (0.75, 1.0), (0.5, 2.0))
    blocks = tuple(BlockRow(b, 100, {"deviation": d, "last": r}) for b, (d, r) in enumerate(scores))
    examples = (
        _example(" Lun", (9, 4, 1, 1), (0.0, 0.1, 0.5, 0.8)),
        _example(" Mar", (9, 4, 3, 2), (0.0, 0.0, 0.1, 0.2)),
    )
    return Analysis(
        model=ModelInfo("made-up", None, "llama", 3, 16, 64, True, 1000, "float32", "cpu"),
        data=DataInfo("lesson:facts", "train", 2, 2, 0, "first", "lens", "even"),
        states=states,
        blocks=blocks,
        timing=Timing(0.5, 1.0, 100.0),
        environment={},
        trajectories=Trajectories((0.6, 0.25, 0.1), FACTUAL, VIRTUAL, examples),
    )
