"""An analysis on the pretend accelerator: the same numbers, one wait a batch, no states."""

import numpy as np

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.settings import AnalysisSettings
from lsf.measure.analyze import analyze
from lsf.reporting import Silent

WIDTH, VOCABULARY, STATES = 32, 28, 5
FORWARD = tuple(name for name in CRITERIA if CRITERIA[name].needs in ("none", "forward", "vocabulary", "states"))


def settings(criteria: tuple[str, ...], **changes: object) -> AnalysisSettings:
    return AnalysisSettings(**{"limit": None, "split": "train", "criteria": criteria, "batch_size": 8, **changes})


def same(one: object, other: object, rtol: float = 2e-4, atol: float = 2e-5) -> None:
    for name in one.blocks[0].scores:
        mine, theirs = (np.array([block.scores[name] for block in found.blocks], float) for found in (one, other))
        np.testing.assert_allclose(mine, theirs, rtol=rtol, atol=atol, err_msg=name)


def test_the_forward_pass_waits_once_a_batch_and_brings_only_pictures_to_the_host(
    on_device, on_cpu, many, accelerator
) -> None:
    asked = settings(("deviation", "block_influence"), positions="all")
    loaded = on_device()
    with accelerator.watched(width=WIDTH, states=10**6, waits=10**6, vocabulary=VOCABULARY) as seen:
        analyze(loaded, many, asked, Silent())
    n_batches = 1
    print(seen)
