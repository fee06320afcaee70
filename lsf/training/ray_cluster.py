"""What a sweep asks of Ray: a connection to a cluster that exists, its room, and workers that hold the model."""

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

import lsf
from lsf.data.task import Task
from lsf.environment import THREADING, spare_imports
from lsf.errors import BadInputError, LsfError
from lsf.jobs.sweep import Sweep
from lsf.measure.identity import weights_hash
from lsf.measure.loading import LoadedModel, load_model
from lsf.reporting import Silent
from lsf.training.sweeping import carry_out_sweep

ANSWER_SECONDS = 5
"""How long a cluster named by its address may take to answer; Ray itself would try for most of a minute."""
THREADS = {**THREADING, "OMP_NUM_THREADS": "1"}
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
