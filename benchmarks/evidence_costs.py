"""What the analysis behind a recommendation costs beside one full fine-tune of the study, timed in turn."""

import time
from collections.abc import Mapping
from dataclasses import replace
from statistics import median
from typing import Any

TURNS = 3
"""Of the analysis and the fine-tune, whose medians are compared."""


def in_turn(loaded: Any, task: Any, sweep: Any, limits: Mapping[str, int]) -> dict[str, float]:
    """Return median wall seconds: of the steps of full fine-tuning, and of the analysis of what is recommended.

    Args:
        loaded: the model.
        task: the data.
        sweep: of the setting, with the rate of full fine-tuning.
        limits: need -> examples read.
    """
    from lsf.criteria.registry import CRITERIA  # noqa: PLC0415
    from lsf.criteria.result import AnalysisSettings  # noqa: PLC0415
    from lsf.evidence.sweep import FULL, Cell  # noqa: PLC0415
    from lsf.evidence.sweeping import (  # noqa: PLC0415
        carry_out_sweep,
        start_sweep,
    )
    from lsf.lens.analyze import analyze  # noqa: PLC0415
    from lsf.plans.policies import RECOMMENDED  # noqa: PLC0415
    from lsf.progress import Silent  # noqa: PLC0415

    fresh = start_sweep(loaded, task, replace(sweep.spec, seeds=1))
    full = next(cell for cell in fresh.cells if cell.plan == FULL)
    fresh = replace(fresh, cells=(fresh.cells[0], Cell(FULL, full.blocks, 0)), rates={FULL: sweep.rates[FULL]})
    needs = dict.fromkeys(CRITERIA[name].needs for name in RECOMMENDED)
    times: dict[str, list[float]] = {FULL: [], **{need: [] for need in needs}}
    for turn in range(TURNS + 1):
        for need in needs:
            names = tuple(name for name in RECOMMENDED if CRITERIA[name].needs == need)
            settings = AnalysisSettings(criteria=names, split="train", limit=limits[need])
            begun = time.perf_counter()
            analyze(loaded, task, settings, Silent())
            times[need].append(time.perf_counter() - begun)
        done = carry_out_sweep(loaded, task, fresh, Silent(), lambda _sweep: None)
        times[FULL].append(next(cell.seconds for cell in done.cells if cell.plan == FULL) or 0.0)
        if turn == 0:  # the first turn warms up
            times = {what: [] for what in times}
    return {what: round(median(values), 4) for what, values in times.items()}
