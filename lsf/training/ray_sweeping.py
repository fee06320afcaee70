"""A sweep on a Ray cluster: Ray places the workers and carries results; each measures as the local engine does."""

import time
from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lsf.data.task import Task
from lsf.errors import LsfError, RunError
from lsf.jobs.sweep import BASE, Cell, Sweep
from lsf.measure.loading import LoadedModel
from lsf.reporting import Reporter
from lsf.training.ray_cluster import room, start_worker
from lsf.training.sweeping import Save, told_left

POLL_SECONDS = 0.2
"""How long a wish to stop may go unseen."""
TRIES = 2
"""Workers a cell may cost before it counts as lost."""
Key = tuple[str, int]


def carry_out_on_ray(
    loaded: LoadedModel, task: Task, sweep: Sweep, report: Reporter, save: Save, n_workers: int | None = None
) -> Sweep:
    """Measure what a sweep lacks on the Ray cluster this process is connected to, and return it.

    A worker gets one cell at a time, the base model first, and a plan whose rate is to be searched gets its first seed
    before the others: the cells are those of `lsf.training.sweeping.carry_out_sweep`, and each engine goes on with what
    the other began. A cell whose worker dies is tried once more by another worker.

    Args:
        loaded: the model the sweep names; workers load it again by its name and refuse other weights.
        task: the data; workers get these rows.
        sweep: as `lsf.training.sweep_start.start_sweep` returned it.
        report: told of runs done, with the time left; partial results; any wish to stop ends the sweep where it is.
        save: called with the sweep so far after every cell.
        n_workers: at most so many; None: one per GPU of the cluster where the model is on CUDA, else one per CPU.

    Raises:
        BadInputError: the cluster has no such device, or a worker reads another model.
        RunError: no worker could start, or none survives the base model.
    """
    mapping = _Mapping(loaded, task, sweep, report, save, n_workers)
    try:
        mapping.carry_out()
    finally:
        for worker in mapping.workers:
            ray.kill(worker)
    return mapping.sweep


class _Mapping:
    """The sweep so far, the workers, and which of them has which cell."""

    def __init__(
        self, loaded: LoadedModel, task: Task, sweep: Sweep, report: Reporter, save: Save, n_workers: int | None
    ) -> None:
        self.sweep, self.report, self.save = sweep, report, save
        info, self.kind = loaded.info, loaded.device.type
        self.begun, self.earlier, self.todo = time.perf_counter(), sweep.seconds, sweep.missing
        self.asked = (ray.put(task), info.name, info.dtype, self.kind, sweep.weights)
        self.n_workers = min(n_workers or room(self.kind), len(self.todo))
        self.workers, self.idle = set[Any](), list[Any]()
        self.busy = dict[Any, tuple[Any, Cell | None]]()
        self.deaths, self.lost, self.still_born = Counter[Key](), set[Key](), 0

    def carry_out(self) -> None:
        """Keep every worker busy until each missing cell is measured or lost."""
        for _ in range(self.n_workers):
            self.start_worker()
        while any(cell.key not in self.lost for cell in self.sweep.missing):
            self.hand_out()
            self.tell()
            done = list[Any]()
            while not done:
                if self.report.stop is not None:
                    return
                done, _ = ray.wait(list(self.busy), timeout=POLL_SECONDS)
            self.take(done[0])

    def start_worker(self) -> None:
        """Ask Ray for a worker; it is idle once it has loaded the model."""
        worker = start_worker(self.kind, self.asked)
        self.workers.add(worker)
        self.busy[worker.begin.remote()] = worker, None

    def hand_out(self) -> None:
        """Give idle workers cells, as far as there are any that can be measured now."""
        while self.idle and (cell := next_cell(self.sweep, self.away, self.lost)) is not None:
            worker = self.idle.pop()
            known = tuple(one for one in self.sweep.cells if one.plan == BASE and one.key != cell.key)
            part = replace(self.sweep, cells=(*known, cell))
            self.busy[worker.measured.remote(part)] = worker, cell

    @property
    def away(self) -> set[Key]:
        """Keys of the cells that workers have."""
        return {cell.key for _, cell in self.busy.values() if cell is not None}

    def take(self, done: Any) -> None:
        """Keep what a worker measured, or see that another one tries what it died of."""
        worker, cell = self.busy.pop(done)
        try:
            part: Sweep | None = ray.get(done)
        except RayTaskError as error:
            raise (error.cause if isinstance(error.cause, LsfError) else error) from None
        except RayError as error:
            self.workers.discard(worker)
            self.replace_worker(cell, f"Ray says: {str(error).strip().partition(chr(10))[0]}")
            return
        self.idle.append(worker)
        if part is not None and cell is not None:
            self.keep(next(one for one in part.cells if one.key == cell.key), part)

    def replace_worker(self, cell: Cell | None, why: str) -> None:
        """Start another worker for one that died, and give its cell up where that happened before."""
        if cell is None:
            self.still_born += 1
            if self.still_born <= self.n_workers:
                self.start_worker()
            elif not self.workers:
                raise RunError(f"No worker of the Ray cluster lives until it has loaded the model: {why}")
            return
        self.start_worker()
        self.deaths[cell.key] += 1
        if self.deaths[cell.key] < TRIES:
            return
        reason = f"Its worker on the Ray cluster died, and so did the next that tried: {why}"
        if cell.plan == BASE:
            raise RunError(f"The base model could not be measured. {reason}")
        self.keep(replace(cell, reason=reason), self.sweep)

    def keep(self, cell: Cell, part: Sweep) -> None:
        """Put a cell and its plan's rate in their places, save, and show."""
        if cell.after is None:
            self.lost.add(cell.key)
        rates = {**self.sweep.rates, **{plan: rate for plan, rate in part.rates.items() if plan == cell.plan}}
        seconds = self.earlier + time.perf_counter() - self.begun
        self.sweep = replace(self.sweep.with_cell(cell), rates=rates, seconds=seconds)
        self.save(self.sweep)
        self.report.partial(self.sweep)

    def tell(self) -> None:
        """Report cells done, how many are at work, and the time left at the pace so far."""
        open_keys = {cell.key for cell in self.sweep.missing} - self.lost
        left = [cell for cell in self.todo if cell.key in open_keys]
        done = [cell for cell in self.todo if cell.key not in open_keys]
        words = f"run: {len(self.away)} on the cluster" if self.away else "waiting for workers of the cluster"
        words += told_left(self.sweep, done, left, time.perf_counter() - self.begun)
        total = len(self.sweep.cells)
        self.report.progress(total - len(left), total, words)


def next_cell(sweep: Sweep, away: Collection[Key], lost: Collection[Key]) -> Cell | None:
    """Return the first missing cell that can be measured now; None where all wait for one that is being measured.

    Args:
        sweep: what is known so far.
        away: keys of the cells that are being measured.
        lost: keys of the cells that were given up.
    """
    missing = [cell for cell in sweep.missing if cell.key not in lost]
    if missing and missing[0].plan == BASE:
        missing = missing[:1]  # every other cell holds its score
    searched = sweep.spec.learning_rate is None
    waited = {plan for plan, _ in away if searched and plan not in sweep.rates}
    return next((cell for cell in missing if cell.key not in away and cell.plan not in waited), None)
