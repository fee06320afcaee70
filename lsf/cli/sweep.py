"""`sweep`: the measured truth, every plan of a family tuned for the same steps under several seeds."""

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from lsf.cli.arguments import (
    add_settings,
    check_file,
    given_settings,
    load_asked_model,
    load_told_task,
    place,
    say_notes,
    source_options,
    whole,
)
from lsf.cli.terminal import TerminalReporter, listening
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.evidence.sweep import BASE, Sweep, SweepSpec
from lsf.files import held_for_writing
from lsf.wording import counted

ENGINES = ("local", "ray")
"""Both measure the same cells, and each goes on with what the other began."""
CarryOut = Callable[..., Sweep]
OWN = ("over", "seeds", "steps", "learning_rate", "batch_size", "max_length", "eval_limit")
"""Fields of a sweep's spec that are options of `sweep` alone."""


def sweep_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sweep`."""
    source_options(parser)
    add_settings(parser, SweepSpec, OWN)
    out = "file to write, updated after every run; an unfinished sweep there is continued, and failed runs are retried"
    where = "where runs go: local, one after another; ray, over an existing Ray cluster [default: local]"
    parser.add_argument("--engine", choices=ENGINES, default="local", help=where)
    address = "address of the cluster: HOST:PORT, ray://HOST:PORT or auto [default: RAY_ADDRESS, else one here]"
    parser.add_argument("--ray-address", metavar="ADDRESS", help=address)
    workers = "most workers [default: one per GPU of the cluster where the model is on CUDA, else one per CPU]"
    parser.add_argument("--ray-workers", type=whole, metavar="N", help=workers)
    parser.add_argument("--json", type=place, required=True, metavar="OUT", help=out)
    parser.set_defaults(command=sweep_command)


def sweep_command(arguments: argparse.Namespace) -> int:
    """Measure what OUT lacks; Ctrl-C and SIGTERM leave it to go on another time."""
    spec = SweepSpec(**given_settings(arguments, SweepSpec))
    check_file(arguments.json, read=(arguments.data, arguments.model))
    _check_engine(arguments)
    with held_for_writing(arguments.json):
        with _engine(arguments) as carry_out:
            done, stopped = _measured(arguments, spec, carry_out)
        done.save(arguments.json)
    print(_table(done))
    return _told(done, arguments.json, stopped)


def _measured(arguments: argparse.Namespace, spec: SweepSpec, carry_out: CarryOut) -> tuple[Sweep, bool]:
    """Return the sweep as far as it came, and whether it was stopped there."""
    earlier = Sweep.load(arguments.json) if arguments.json.exists() else None
    task = load_told_task(arguments)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.evidence.sweeping import start_sweep
        from lsf.training.splits import encode_splits

        spare_imports()

        def pause() -> None:
            reporter.stop = "pause"

        with listening(pause, pause):
            begun = start_sweep(loaded, task, spec, earlier)
            if earlier is not None and None in (earlier.prior, earlier.texts):
                begun.save(arguments.json)
            reporter.close()
            say_notes(*encode_splits(loaded, task, spec.run_spec(loaded.info.n_blocks, None, 0)).facts)
            done = carry_out(loaded, task, begun, reporter, lambda sweep: sweep.save(arguments.json))
    return done, reporter.stop is not None


def _check_engine(arguments: argparse.Namespace) -> None:
    """Refuse options of another engine, and fewer workers than one."""
    if arguments.engine != "ray" and (arguments.ray_address or arguments.ray_workers is not None):
        raise BadInputError("--ray-address and --ray-workers belong to --engine ray; add it, or leave them out.")
    if arguments.ray_workers is not None and arguments.ray_workers < 1:
        raise BadInputError(f"--ray-workers is {arguments.ray_workers}; 1 or more was expected.")


@contextmanager
def _engine(arguments: argparse.Namespace) -> Iterator[CarryOut]:
    """Hand out what carries a sweep out, connected to a cluster where it needs one."""
    if arguments.engine == "local":
        from lsf.evidence.sweeping import carry_out_sweep

        yield carry_out_sweep
        return
    if find_spec("ray") is None:
        raise BadInputError("--engine ray needs Ray, which is not installed: pip install -r requirements-ray.txt.")
    from lsf.evidence.ray_engine import carry_out_on_ray, connected

    with connected(arguments.ray_address):
        yield partial(carry_out_on_ray, n_workers=arguments.ray_workers)


def _told(sweep: Sweep, out: Path, stopped: bool) -> int:
    """Say what is there and what is missing; return the exit code."""
    print(
        f"{len(sweep.cells) - len(sweep.missing)} of {counted(len(sweep.cells), 'cell')} in {sweep.seconds:.1f} s -> "
        f"{out}"
    )
    if stopped:
        sys.stderr.write("lsf: The sweep was stopped; repeat the command to continue it.\n")
        return 1
    for cell in sweep.missing:
        sys.stderr.write(f"lsf: {cell.plan}, seed {cell.seed} is missing: {cell.reason}\n")
    return 1 if sweep.missing else 0


def _table(sweep: Sweep) -> str:
    """Return one line per plan: exact match and loss of every seed, `-` where it is missing."""
    lines = [f"{'tuned':<12}{'rate':>8}  exact match per seed; loss per seed"]
    for plan in dict.fromkeys(cell.plan for cell in sweep.cells):
        cells = [cell for cell in sweep.cells if cell.plan == plan]
        rate = "" if plan == BASE or cells[0].learning_rate is None else f"{cells[0].learning_rate:g}"
        scores = [
            " ".join(_number(getattr(cell.after, name, None)) for cell in cells) for name in ("exact_match", "loss")
        ]
        lines.append(f"{plan:<12}{rate:>8}  {scores[0]}; {scores[1]}")
    return "\n".join(lines)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
