"""`tune`: one fine-tune in the foreground."""

import argparse
import signal
import sys
from dataclasses import fields, replace
from pathlib import Path

from lsf.analysis.plan import Plan, full_plan, load_plan, parse_blocks
from lsf.commands.sources import load_asked_model, load_asked_task, source_options
from lsf.errors import BadInputError
from lsf.jobs.runs import create_run
from lsf.jobs.spec import RunSpec, load_spec
from lsf.options import add_settings, describe_setting, given_settings
from lsf.terminal import TerminalReporter
from lsf.training.catalogue import CATALOGUE
from lsf.training.options import read_pairs

CONTROLS = ("first", "last", "middle", "random")


def tune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`."""
    source_options(parser, required=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--plan", type=Path, metavar="PLAN", help="a plan.json")
    which.add_argument("--blocks", metavar="B", help="blocks by hand, such as 3,5-7")
    which.add_argument("--all", action="store_true", help="full fine-tuning")
    which.add_argument(
        "--spec", type=Path, metavar="SPEC", help="repeat a run by its spec.json; nothing else is needed"
    )
    names = {"method", "steps", "epochs", "learning_rate", "weight_decay", "warmup_steps", "batch_size", "max_length"}
    add_settings(parser, RunSpec, names | {"eval_every", "eval_limit", "seed"})
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=_options_help())
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="folder the run's folder is made in")
    parser.set_defaults(command=tune_command)


def tune_command(arguments: argparse.Namespace) -> int:
    """Fine-tune in the foreground; Ctrl-C once stops and keeps, twice discards."""
    asked = _read_spec(arguments) if arguments.spec else None
    if asked is None and not (arguments.model and arguments.data):
        raise BadInputError("tune needs --model and --data, or --spec with a run's spec.json.")
    task = load_asked_task(asked or arguments)
    reporter = TerminalReporter()
    loaded = load_asked_model(asked or arguments, reporter)
    if asked is None:
        plan, role = _planned(arguments, loaded.info.n_blocks)
        given = given_settings(arguments, RunSpec)
        method = given.get("method", "full")
        given["options"] = read_pairs(method, CATALOGUE[method].options, arguments.option)
        asked = RunSpec(**{**given, "plan": plan, "role": role})
    spec = asked
    folder = create_run(arguments.runs, spec)
    signal.signal(signal.SIGINT, lambda *_: _interrupt(reporter))
    from lsf.training.run import tune

    try:
        result = tune(loaded, task, spec, folder, reporter)
    finally:
        reporter.close()
        signal.signal(signal.SIGINT, signal.default_int_handler)
    print(f"{result.state} after {result.steps} steps: {folder}")
    if result.reason:
        sys.stderr.write(f"lsf: {result.reason}\n")
    return 1 if result.state == "failed" else 0


def _read_spec(arguments: argparse.Namespace) -> RunSpec:
    given = [name for name in given_settings(arguments, RunSpec) if name not in ("plan", "dtype", "device")]
    given += ["option"] if arguments.option else []
    if given:
        raise BadInputError(f"--spec says everything already; leave out --{given[0].replace('_', '-')}.")
    spec = load_spec(arguments.spec)
    beside = arguments.spec.parent / spec.data  # a bundle's rows lie beside its spec
    return replace(spec, data=str(beside)) if beside.is_file() else spec


def _options_help() -> str:
    """Say which options each method has, from the records themselves."""
    listed = [
        f"{name}: {', '.join(describe_setting(item) for item in fields(way.options))}"
        for name, way in CATALOGUE.items()
        if fields(way.options)
    ]
    return "an option of the method, as often as needed. " + "; ".join(listed)


def _interrupt(reporter: TerminalReporter) -> None:
    reporter.stop = "discard" if reporter.stop else "keep"


def _planned(arguments: argparse.Namespace, n_blocks: int) -> tuple[Plan, str]:
    if arguments.all:
        return full_plan(arguments.model, n_blocks), "full"
    if arguments.plan:
        plan = load_plan(arguments.plan)
        return plan, plan.criterion if plan.criterion in CONTROLS else "choice"
    return Plan(arguments.model, n_blocks, parse_blocks(arguments.blocks, n_blocks)), "manual"
