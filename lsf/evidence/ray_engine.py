"""A sweep on a Ray cluster: Ray places the workers and carries results; each measures as the local engine does."""

import logging
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

import lsf
from lsf.data.task import Task
from lsf.environment import EAGER, THREADING, spare_imports
from lsf.errors import BadInputError, LsfError, RunError
from lsf.evidence.sweep import BASE, Cell, Sweep
from lsf.evidence.sweeping import Save, carry_out_sweep, told_left
from lsf.models.loading import LoadedModel, load_model, weights_hash
from lsf.progress import Reporter, Silent

ANSWER_SECONDS = 5
"""How long a cluster named by its address may take to answer; Ray itself would try for most of a minute."""
THREADS = {**THREADING, **EAGER, "OMP_NUM_THREADS": "1"}
"""Of a worker, which has one CPU of its cluster to itself; a local sweep with one thread has the same bits."""


class SweepWorker:
    """Lives in a process of the cluster, which Ray gives one CPU or GPU; reads the model once, then measures cells."""

    def __init__(self, task: Task, model: str, dtype: str, device: str, weights: str) -> None:
        """Note what to load: the rows themselves, and the model's name, number type, device and SHA-256."""
        self.task, self.asked, self.weights = task, (model, dtype, device), weights
        self.loaded: LoadedModel | None = None

    def begin(self) -> None:
        """Load the model.

        Raises:
            BadInputError: it cannot be loaded here, or its weights are others.
        """
        logging.getLogger("transformers").setLevel(logging.ERROR)
        machine, name = socket.gethostname(), self.asked[0]
        try:
            loaded = load_model(*self.asked)
        except LsfError as error:
            raise BadInputError(f"A worker on {machine} cannot load the model: {error}") from None
        if weights_hash(loaded.model) != self.weights:
            raise BadInputError(f"The weights of {name} on {machine} differ from those here; give both the same files.")
        self.loaded = loaded
        spare_imports()

    def measured(self, part: Sweep) -> Sweep:
        """Measure the missing cells of a small sweep; what lies below the tuned blocks is kept for the next one."""
        assert self.loaded is not None
        return carry_out_sweep(self.loaded, self.task, part, Silent(), lambda _: None, keep_states=True)


@contextmanager
def connected(address: str | None = None) -> Iterator[None]:
    """Be connected to a Ray cluster inside the `with`; its workers receive this very package, wherever they are.

    Args:
        address: HOST:PORT, `ray://HOST:PORT`, or `auto`; None: RAY_ADDRESS, else a cluster that runs on this machine.

    Raises:
        BadInputError: there is none, or one of another version.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "auto"
    shipped = {"py_modules": [lsf.__path__[0]], "excludes": ["__pycache__"]}
    handler = signal.getsignal(signal.SIGTERM)
    try:
        _check_answers(address)
        ray.init(address, runtime_env=shipped, log_to_driver=False, logging_level=logging.CRITICAL)
    except (OSError, RuntimeError, ValueError) as error:
        why = str(error).strip().partition("\n")[0].rstrip(".:")
        raise BadInputError(
            f"No Ray cluster to run on at {address} ({why}): start one by `ray start --head`, join other machines by "
            "`ray start --address=HOST:6379`, and name it by --ray-address or RAY_ADDRESS."
        ) from None
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)  # Ray sets its own
    try:
        yield
    finally:
        ray.shutdown()


def _check_answers(address: str) -> None:
    """Raise OSError where nothing listens at an address, ValueError where it is none."""
    if address in ("auto", "local"):
        return
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if not host or not port.isdecimal():
        raise ValueError("HOST:PORT, ray://HOST:PORT or auto was expected")
    socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()


def room(kind: str) -> int:
    """Return how many workers the cluster has room for: one per GPU for a model on CUDA, else one per CPU.

    Raises:
        BadInputError: for none.
    """
    name = "GPU" if kind == "cuda" else "CPU"
    if not (known := int(ray.cluster_resources().get(name, 0))):
        raise BadInputError(
            f"The Ray cluster has no {name} for a model on {kind}; add one, or choose another --device."
        )
    return known


def start_worker(kind: str, asked: tuple[Any, ...]) -> Any:
    """Ask Ray for a worker and return its handle; it may be long until there is room for it.

    Args:
        kind: of device: cpu, cuda or mps.
        asked: arguments of `SweepWorker`.
    """
    actor: Any = ray.remote(num_cpus=1, num_gpus=1 if kind == "cuda" else 0)(SweepWorker)
    return actor.options(runtime_env={"env_vars": THREADS}).remote(*asked)


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
    before the others: the cells are those of `lsf.evidence.sweeping.carry_out_sweep`, and each engine goes on with what
    the other began. A cell whose worker dies is tried once more by another worker.

    Args:
        loaded: the model the sweep names; workers load it again by its name and refuse other weights.
        task: the data; workers get these rows.
        sweep: as `lsf.evidence.sweeping.start_sweep` returned it.
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
