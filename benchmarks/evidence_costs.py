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
        sweep: of the site, with the rate of full fine-tuning.
        limits: need -> examples read.
    """
    from lsf.analysis.criteria import CRITERIA  # noqa: PLC0415
    from lsf.analysis.recommend import RECOMMENDED  # noqa: PLC0415
    from lsf.analysis.settings import AnalysisSettings  # noqa: PLC0415
    from lsf.jobs.sweep import FULL, Cell  # noqa: PLC0415
    from lsf.measure.analyze import analyze  # noqa: PLC0415
    from lsf.reporting import Silent  # noqa: PLC0415
    from lsf.training.sweep_start import start_sweep  # noqa: PLC0415
    from lsf.training.sweeping import carry_out_sweep  # noqa: PLC0415

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
