"""`compare` and `runs`: what the run folders hold."""

import argparse
import json
import sys
from typing import Any

from lsf.cli.arguments import load_asked_model, load_asked_task, place
from lsf.cli.terminal import TerminalReporter
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.runs.formats import COMMAND, save_bundle
from lsf.runs.store import delete_run, list_runs, load_run, runs_folder, usage
from lsf.wording import counted


def compare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `compare`."""
    parser.add_argument("run", nargs="+", type=place, help="run folders, or folders that hold run folders")
    parser.add_argument(
        "--format", choices=("table", "csv", "json"), default="table", help="output format [default: table]"
    )
    parser.set_defaults(command=compare_command)


def compare_command(arguments: argparse.Namespace) -> int:
    """Print one row per run, those of a folder of runs in the order in which they were made."""
    from lsf.runs.comparison import compare
    from lsf.runs.formats import render

    runs = [run for folder in arguments.run for run in (list_runs(folder)[::-1] or [load_run(folder)])]
    each = {run.folder.resolve(): run for run in runs}  # one that is named twice was not run twice
    print(render(compare(list(each.values())), arguments.format), end="")
    return 0


def runs_options(parser: argparse.ArgumentParser) -> None:
    """Add the actions of `runs`."""
    actions = parser.add_subparsers(title="actions", required=True, metavar="list|show|bundle|measure|delete")
    listing = actions.add_parser("list", help="one line per run, newest first")
    listing.add_argument("--runs", type=place, metavar="DIR", help="folder of run folders; default: LSF_RUNS, or runs")
    listing.set_defaults(command=list_command)
    for name, command, text in (
        ("show", show_command, "spec and result of one run, as JSON"),
        ("measure", measure_command, "run the test that a stopped run left out"),
        ("delete", delete_command, "remove runs"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("run", nargs="+", type=place, help="run folders")
        action.set_defaults(command=command)

    bundle = actions.add_parser("bundle", help="zip what is needed to repeat a run with one command")
    bundle.add_argument("run", type=place, help="run folder")
    bundle.add_argument("--zip", type=place, required=True, metavar="OUT", help="file to write")
    bundle.set_defaults(command=bundle_command)


def bundle_command(arguments: argparse.Namespace) -> int:
    """Write a run's bundle."""
    save_bundle(load_run(arguments.run), arguments.zip)
    print(f"{arguments.zip}: unpack it, then {COMMAND.format(name=arguments.run.resolve().name)}")
    return 0


def list_command(arguments: argparse.Namespace) -> int:
    """Print one line per run."""
    folder = arguments.runs or runs_folder()
    if not folder.is_dir():
        raise BadInputError(f"There is no folder {folder}; --runs names the folder that holds run folders.")
    for run in list_runs(folder):
        what = f"{run.spec.model} {run.spec.data} {run.spec.plan.label}" if run.spec else run.problem
        print(f"{run.state:<12} {run.folder}  {what}")
    sys.stderr.write(f"{usage(folder)}\n")
    return 0


def show_command(arguments: argparse.Namespace) -> int:
    """Print runs as JSON."""
    for folder in arguments.run:
        run = load_run(folder)
        shown: dict[str, Any] = {"run": str(run.folder), "state": run.state, "problem": run.problem}
        shown["spec"] = run.spec and run.spec.to_json()
        shown["result"] = run.result and run.result.to_json()
        print(json.dumps(shown, indent=1, ensure_ascii=False))
    return 0


def measure_command(arguments: argparse.Namespace) -> int:
    """Test what stopped runs kept."""
    from lsf.training.measuring import measure_kept

    spare_imports()
    for folder in arguments.run:
        spec = load_run(folder).spec
        if spec is None:
            raise BadInputError(f"{folder} cannot be measured: {load_run(folder).problem}")
        with TerminalReporter() as reporter:
            task = load_asked_task(spec)
            result = measure_kept(load_asked_model(spec, reporter), task, folder, reporter)
        print(f"{result.state} after {counted(result.steps, 'step')}: {folder}")
    return 0


def delete_command(arguments: argparse.Namespace) -> int:
    """Remove run folders."""
    for folder in arguments.run:
        delete_run(folder)
        print(f"deleted {folder}")
    return 0
