"""What criteria say on a site of the study, on how many examples, and how long that takes."""

import time
from typing import Any

AFFORDABLE: dict[str, float] = {
    "forward": 1 / 4,
    "vocabulary": 1 / 4,
    "states": 1 / 4,
    "backward": 1 / 12,
    "per_example": 1 / 12,
    "kernel": 1 / 24,
    "trial_step": 1 / 24,
    "weights": 1 / 24,
    "nothing": 1 / 24,
}
"""Need -> examples of the small sample over those that the steps of one run see: as many as cost about 8 % of a full
fine-tune, counting a forward pass as 1, forward and backward as 3, a trial step as 6. Short runs cost more."""
LEAST, MOST = 8, 200
"""Examples of a sample."""


def score(loaded: Any, task: Any, limits: dict[str, int]) -> dict[str, Any]:
    """Return criteria's scores on the training rows, and the wall seconds of an analysis for each need.

    Args:
        loaded: the model.
        task: the data.
        limits: need -> examples read at most; criteria of other needs are left out.
    """
    from lsf.analysis.criteria import CRITERIA  # noqa: PLC0415
    from lsf.analysis.settings import AnalysisSettings  # noqa: PLC0415
    from lsf.measure.analyze import analyze  # noqa: PLC0415
    from lsf.reporting import Silent  # noqa: PLC0415
    from lsf.training.probing import probe_blocks  # noqa: PLC0415

    found: dict[str, Any] = {"scores": {}, "seconds": {}, "params": None}
    for need, limit in limits.items():
        names = tuple(name for name, entry in CRITERIA.items() if entry.needs == need)
        settings = AnalysisSettings(criteria=names, split="train", limit=limit)
        begun = time.perf_counter()
        analysis = analyze(loaded, task, settings, Silent(), probe_blocks)
        found["seconds"][need] = round(time.perf_counter() - begun, 3)
        found["scores"] |= {name: analysis.scores(name) for name in names}
        found["params"] = [block.n_params for block in analysis.blocks]
    return found
