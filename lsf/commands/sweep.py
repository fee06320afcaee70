"""`sweep`: the measured truth, every plan of a family tuned for the same steps under several seeds."""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsf.commands.sources import check_writable, load_asked_model, load_asked_task, source_options
from lsf.jobs.sweep import BASE, Sweep, SweepSpec, load_sweep
from lsf.options import add_settings, given_settings
from lsf.terminal import TerminalReporter

OWN = ("over", "seeds", "steps", "learning_rate", "batch_size", "max_length", "eval_limit")
"""Fields of a sweep's spec that are options of `sweep` alone."""


def sweep_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `sweep`."""
    source_options(parser)
    add_settings(parser, SweepSpec, OWN)
    out = "written after every run; a sweep that was begun there goes on, with what failed tried again"
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help=out)
    parser.set_defaults(command=sweep_command)


def sweep_command(arguments: argparse.Namespace) -> int:
    """Measure what OUT lacks; Ctrl-C and SIGTERM leave it to go on another time."""
    spec = SweepSpec(**given_settings(arguments, SweepSpec))
    check_writable(arguments.json)
    earlier = load_sweep(arguments.json) if arguments.json.exists() else None
    task = load_asked_task(arguments)
    reporter = TerminalReporter()
    loaded = load_asked_model(arguments, reporter)
    from lsf.training.sweep_start import start_sweep
    from lsf.training.sweeping import carry_out_sweep

    try:
        with _listening(reporter):
            begun = start_sweep(loaded, task, spec, earlier)
            done = carry_out_sweep(loaded, task, begun, reporter, lambda sweep: sweep.save(arguments.json))
    finally:
        reporter.close()
    done.save(arguments.json)
    print(_table(done))
    return _told(done, arguments.json, stopped=reporter.stop is not None)


@contextmanager
def _listening(reporter: TerminalReporter) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a wish to pause, inside the `with`."""

    def pause(*_: object) -> None:
        reporter.stop = "pause"

    before = {kind: signal.signal(kind, pause) for kind in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, handler)


def _told(sweep: Sweep, out: Path, stopped: bool) -> int:
    """Say what is there and what is missing; return the exit code."""
    print(f"{len(sweep.cells) - len(sweep.missing)} of {len(sweep.cells)} cells in {sweep.seconds:.1f} s -> {out}")
    if stopped:
        sys.stderr.write("lsf: The sweep was stopped; the same command goes on with it.\n")
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
