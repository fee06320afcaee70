"""`graft`: each tuned block of a run alone in the base model, and taken out of the tuned one, on the test rows."""

import argparse
import json
from pathlib import Path

from lsf.cli.arguments import check_file, load_asked_model, load_asked_task
from lsf.cli.terminal import TerminalReporter
from lsf.environment import spare_imports
from lsf.files import write_json
from lsf.runs.graft import Difference, Graft, Reading, which_did_it
from lsf.runs.store import tuned_run


def graft_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `graft`."""
    parser.add_argument("run", type=Path, help="folder of a run that has ended; the graft is kept there as graft.json")
    parser.add_argument("--json", type=Path, metavar="OUT", help="file to write, or - for the terminal")
    parser.set_defaults(command=graft_command)


def graft_command(arguments: argparse.Namespace) -> int:
    """Measure the graft of a run, keep it in the run's folder and print it."""
    to_terminal = arguments.json == Path("-")
    check_file(None if to_terminal else arguments.json)
    _, spec = tuned_run(arguments.run)
    reporter = TerminalReporter()
    try:
        task = load_asked_task(spec)
        loaded = load_asked_model(spec, reporter)
        from lsf.training.graft import measure_graft

        spare_imports()
        found = measure_graft(loaded, task, arguments.run, reporter)
    finally:
        reporter.close()
    if to_terminal:
        print(json.dumps(found.to_json(), indent=1))
        return 0
    print("\n".join(graft_lines(found)))
    if arguments.json:
        write_json(arguments.json, found.to_json())
    return 0


def graft_lines(found: Graft) -> list[str]:
    """Return a graft as lines of text: a table, what its numbers are, and the answer."""
    rows = [
        ("floor", found.floor, None),
        ("base model", found.base, None),
        *((f"base + {part.name}", part.alone.reading, part.alone.by_loss) for part in found.parts),
        ("tuned model", found.tuned, found.gain),
        *((f"tuned - {part.name}", part.without.reading, part.without.by_loss) for part in found.parts),
    ]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':<{width}}    loss   exact   nats over the floor, or lost, with 95 % interval"]
    lines += [f"{name:<{width}}{_numbers(reading, difference)}" for name, reading, difference in rows]
    return [*lines, *filter(None, which_did_it(found))]


def _numbers(reading: Reading, difference: Difference | None) -> str:
    loss = "   not finite" if reading.loss is None else f"{reading.loss:8.3f}"
    told = "" if difference is None else f"   {difference.mean:+.3f} ({difference.words})"
    return f"{loss}{reading.exact_match:8.3f}{told}"
