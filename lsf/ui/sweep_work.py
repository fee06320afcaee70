"""The truth panel's job: a small sweep of single blocks on the chosen model and task, within a time that is given."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from lsf.jobs.job import Report
from lsf.jobs.sweep import Sweep, SweepSpec
from lsf.reporting import Forwarding, Stop
from lsf.ui.bench import Bench
from lsf.ui.work import Source

MOST_SEEDS = 3
"""Seeds measured at most, one after the other, as long as there is time."""


@dataclass(frozen=True)
class Swept:
    """A small sweep, finished or on its way, and what it is of."""

    source: Source
    """Model and data."""
    sweep: Sweep
    """What was measured."""


class _Timed(Forwarding):
    """A reporter that asks to pause when the time is over, and hands on sweeps with their source."""

    def __init__(self, report: Report, source: Source, seconds: float) -> None:
        super().__init__(report)
        self._source, self._end = source, time.monotonic() + seconds

    @property
    def stop(self) -> Stop | None:
        return self.report.stop or ("pause" if time.monotonic() > self._end else None)

    def partial(self, value: Any) -> None:
        self.report.partial(Swept(self._source, value))


def sweep_work(bench: Bench, source: Source, steps: int, seconds: float) -> Callable[[Report], Swept]:
    """Return the job that measures single blocks seed by seed until the time is over; what is measured stays.

    Args:
        bench: has the shelf.
        source: model and data.
        steps: of every run.
        seconds: from the first run on; a run that is not done by then is left out.
    """

    def work(report: Report) -> Swept:
        from lsf.training.sweep_start import start_sweep  # noqa: PLC0415 - imports torch
        from lsf.training.sweeping import carry_out_sweep  # noqa: PLC0415 - imports torch

        report.progress(0, None, "reading the data")
        task = source.load_task()
        report.progress(0, None, f"loading {source.model}")
        loaded = bench.shelf().load(source.model, source.dtype, source.device)
        timed, sweep = _Timed(report, source, seconds), None
        for seeds in range(1, MOST_SEEDS + 1):
            spec = SweepSpec(
                source.model,
                source.data,
                prompt_template=source.prompt_template,
                completion_template=source.completion_template,
                seeds=seeds,
                steps=steps,
                dtype=source.dtype,
                device=source.device,
            )
            begun = start_sweep(loaded, task, spec, sweep)
            done = carry_out_sweep(loaded, task, begun, timed, lambda _sweep: None)
            if sweep is not None and all(cell.after is None for cell in done.cells if cell.seed == seeds - 1):
                break  # not one run of this seed was done in time
            sweep = done
            if timed.stop is not None:
                break
        assert sweep is not None
        return Swept(source, sweep)

    return work
