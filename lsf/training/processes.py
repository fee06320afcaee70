"""One run in several processes of one `accelerate launch`, and the CPU threads each computes with."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, broadcast_object_list, gather_object

from lsf.environment import launched_processes, launched_rank
from lsf.errors import BadInputError
from lsf.files import write_bytes
from lsf.runs.lock import SPEC

Said = TypeVar("Said")


@contextmanager
def computing_on(threads: int | None) -> Iterator[int]:
    """Compute with so many threads inside the `with`, in the thread that entered it, and yield their number.

    Args:
        threads: None leaves them as the machine is set (lsf.environment.settle_torch).
    """
    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield torch.get_num_threads()
    finally:
        torch.set_num_threads(before)


def n_processes() -> int:
    """Return how many processes share the run: as many as a launcher started, or 1."""
    return launched_processes()


def place_on_machine() -> tuple[int, int]:
    """Return this process's number among those of its machine, and how many they are."""
    if n_processes() == 1:
        return 0, 1
    return int(os.environ["LOCAL_RANK"]), int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def said_by_any(mine: Said) -> Said:
    """Return what the first process says that says anything; every one must ask, or those that do wait for ever.

    Signals and clocks reach processes at different steps, and what one does alone in a step the others wait for.

    Args:
        mine: what this process says; nothing where it is false.
    """
    return mine if n_processes() == 1 else next((one for one in gather_object([mine]) if one), mine)


def wait_for_all() -> None:
    """Wait until every process is here."""
    if n_processes() > 1:
        PartialState().wait_for_everyone()


@contextmanager
def agreed_folder(make: Callable[[], Path], on_cpu: bool) -> Iterator[tuple[Path, Path]]:
    """Let the first process make the run folder, and tell the others where it is.

    Args:
        make: makes it; called in the first process only.
        on_cpu: whether the run is on the CPU: the processes then talk by gloo.

    Yields:
        The folder this process writes to, and the run folder, where checkpoints go. In the first process they are the
        same; the others write to a folder of their own that is thrown away after the `with`, so that every file has
        one writer.

    Raises:
        BadInputError: the launcher was asked for FSDP on CPUs, where it would run DDP without a word.
    """
    if n_processes() == 1:
        folder = make()
        yield folder, folder
        return
    state = PartialState(cpu=on_cpu)
    if os.environ.get("ACCELERATE_USE_FSDP") == "true" and state.distributed_type is DistributedType.MULTI_CPU:
        raise BadInputError(
            "accelerate shards models (--use_fsdp) over GPUs only; on CPUs launch with --multi_gpu: whole copies (DDP)."
        )
    named = [str(make()) if launched_rank() == 0 else None]
    broadcast_object_list(named, from_process=0)
    run = Path(str(named[0]))
    state.wait_for_everyone()
    if launched_rank() == 0:
        yield run, run
        return
    with tempfile.TemporaryDirectory(prefix="lsf-process-") as own:
        write_bytes(Path(own) / SPEC, (run / SPEC).read_bytes())
        yield Path(own), run
