"""The command line: every ability of the app, on the same functions. Exit codes: 0 done, 2 bad input, 1 our failure."""

import argparse
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.knapsack import KNAPSACK, make_knapsack_plan
from lsf.analysis.plan import Plan, full_plan, load_plan, parse_blocks
from lsf.analysis.policies import POLICIES, make_plan
from lsf.analysis.result import load_analysis
from lsf.analysis.settings import AnalysisSettings
from lsf.axes import DEVICES, DTYPES
from lsf.bundled.lessons import LESSONS
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.environment import settle_threads
from lsf.errors import BadInputError, LsfError
from lsf.files import write_text
from lsf.jobs.bundle import COMMAND, save_bundle
from lsf.jobs.runs import create_run, delete_run, list_runs, load_run
from lsf.jobs.spec import RunSpec, load_spec
from lsf.options import Parser, add_settings, given_settings
from lsf.terminal import TerminalReporter

CONTROLS = ("first", "last", "middle", "random")
SETTLED = {None: "", True: ", the ranking has settled", False: ", the ranking did not settle"}
LOG_FILE = Path(os.environ.get("LSF_LOG", Path.home() / ".cache" / "lsf" / "lsf.log"))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    settle_threads()
    try:
        arguments = build_parser().parse_args(argv)
        return arguments.command(arguments)
    except BadInputError as error:
        sys.stderr.write(f"lsf: {error}\n")
        return 2
    except LsfError as error:
        sys.stderr.write(f"lsf: {error}\n")
        return 1
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except Exception as error:  # noqa: BLE001 - the border: the user gets a sentence, the log file the traceback
        LOG_FILE.parent.mkdir(parents=True, exist_ok=True)
        with LOG_FILE.open("a", encoding="utf-8") as log:
            log.write("".join(traceback.format_exception(error)))
        sys.stderr.write(f"lsf: a failure of ours ({type(error).__name__}); the traceback is in {LOG_FILE}.\n")
        return 1


def build_parser() -> Parser:
    """Return the parser of all commands."""
    parser = Parser(prog="lsf", description="Which layers of a language model are worth tuning, with evidence.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    _analyze_options(commands.add_parser("analyze", help="one pass over examples: deviations and criteria per block"))
    _plan_options(commands.add_parser("plan", help="scores to a plan under a number of blocks"))
    _tune_options(commands.add_parser("tune", help="one fine-tune in the foreground"))
    _compare_options(commands.add_parser("compare", help="one row per run, with ratios to the full run"))
    _runs_options(commands.add_parser("runs", help="list, show, bundle or delete runs"))
    _demo_options(commands.add_parser("demo", help="the bundled model and its lessons; pretrain it again"))
    return parser


def _source_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    parser.add_argument("--model", required=required, help="bundled, a local folder, or a Hugging Face id")
    parser.add_argument(
        "--data",
        required=required,
        help="lesson:NAME, a CSV, TSV, JSON, JSONL or Parquet file, or hub:NAME[:CONFIG][:SPLIT]",
    )
    add_settings(parser, RunSpec, ("prompt_template", "completion_template"))
    parser.add_argument("--dtype", choices=DTYPES, default="auto", help="of the weights [default: auto]")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="where to run [default: auto]")


def _analyze_options(parser: argparse.ArgumentParser) -> None:
    _source_options(parser)
    names = ("limit", "split", "positions", "reading", "virtual", "criteria", "batch_size", "max_length", "seed")
    add_settings(parser, AnalysisSettings, names)
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="where the analysis is written")
    parser.add_argument("--html", type=Path, metavar="OUT", help="a report that opens without a network")
    parser.set_defaults(command=analyze_command)


def analyze_command(arguments: argparse.Namespace) -> int:
    """Measure, score, and write analysis.json."""
    given = given_settings(arguments, AnalysisSettings)
    if "limit" in given and given["limit"] is None:  # --limit auto
        given["settle"] = True
    if given.get("criteria") == ("all",):
        given["criteria"] = tuple(CRITERIA)
    for name in given.get("criteria", ()):
        CRITERIA[name]  # an unknown name is refused before a model is loaded
    settings = AnalysisSettings(**given)
    _check_writable(arguments.json, arguments.html)
    task = _load_task(arguments)
    reporter = TerminalReporter()
    loaded = _load_model(arguments, reporter)
    from lsf.measure.analyze import analyze

    short_runs = None
    if any(CRITERIA[name].needs == "runs" for name in settings.criteria):
        from lsf.training.probing import probe_blocks as short_runs
    try:
        analysis = analyze(loaded, task, settings, reporter, short_runs)
    finally:
        reporter.close()
    analysis.save(arguments.json)
    if arguments.html:
        from lsf.figures.pages import analysis_page

        write_text(arguments.html, analysis_page(analysis))
    print(
        f"{len(analysis.states)} states, {len(analysis.blocks)} blocks, {analysis.data.n_examples} examples "
        f"({analysis.data.n_dropped} dropped{SETTLED[analysis.data.settled]}) in {analysis.timing.total_seconds:.1f} s "
        f"-> {arguments.json}"
    )
    return 0


def _plan_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--analysis", type=Path, required=True, metavar="FILE", help="an analysis.json")
    parser.add_argument("--criterion", required=True, metavar="NAME", help=f"one of: {', '.join(CRITERIA)}")
    known = ", ".join((*POLICIES, KNAPSACK))
    parser.add_argument("--policy", default="top_k", metavar="NAME", help=f"one of: {known} [default: top_k]")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--blocks", type=_whole, metavar="K", help="number of blocks to tune")
    budget.add_argument("--flops", type=float, metavar="SHARE", help="knapsack: share of full fine-tuning's FLOPs")
    budget.add_argument("--memory", type=float, metavar="BYTES", help="knapsack: weights, gradients, optimizer state")
    parser.add_argument("--json", type=Path, required=True, metavar="PLAN", help="where the plan is written")
    parser.set_defaults(command=plan_command)


def plan_command(arguments: argparse.Namespace) -> int:
    """Choose blocks and write plan.json."""
    analysis, criterion = load_analysis(arguments.analysis), arguments.criterion
    if (arguments.policy == KNAPSACK) == (arguments.blocks is not None):
        raise BadInputError("The policy knapsack takes --flops or --memory; every other policy takes --blocks.")
    if arguments.policy == KNAPSACK:
        plan = make_knapsack_plan(analysis, criterion, arguments.flops, arguments.memory)
    else:
        plan = make_plan(analysis, criterion, arguments.policy, arguments.blocks)
    plan.save(arguments.json)
    print(f"tune {plan.label} of {plan.n_blocks}: {plan.predicted.trainable_params:,} parameters -> {arguments.json}")
    for block, reason in plan.reasons.items():
        print(f"  block {block}: {reason}")
    return 0


def _tune_options(parser: argparse.ArgumentParser) -> None:
    _source_options(parser, required=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--plan", type=Path, metavar="PLAN", help="a plan.json")
    which.add_argument("--blocks", metavar="B", help="blocks by hand, such as 3,5-7")
    which.add_argument("--all", action="store_true", help="full fine-tuning")
    which.add_argument(
        "--spec", type=Path, metavar="SPEC", help="repeat a run by its spec.json; nothing else is needed"
    )
    names = {"method", "steps", "epochs", "learning_rate", "weight_decay", "warmup_steps", "batch_size", "max_length"}
    add_settings(parser, RunSpec, names | {"eval_every", "eval_limit", "seed"})
    parser.add_argument("--runs", type=Path, required=True, metavar="DIR", help="folder the run's folder is made in")
    parser.set_defaults(command=tune_command)


def tune_command(arguments: argparse.Namespace) -> int:
    """Fine-tune in the foreground; Ctrl-C once stops and keeps, twice discards."""
    asked = _read_spec(arguments) if arguments.spec else None
    if asked is None and not (arguments.model and arguments.data):
        raise BadInputError("tune needs --model and --data, or --spec with a run's spec.json.")
    task = _load_task(asked or arguments)
    reporter = TerminalReporter()
    loaded = _load_model(asked or arguments, reporter)
    if asked is None:
        plan, role = _planned(arguments, loaded.info.n_blocks)
        asked = RunSpec(**{**given_settings(arguments, RunSpec), "plan": plan, "role": role})
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
    if given:
        raise BadInputError(f"--spec says everything already; leave out --{given[0].replace('_', '-')}.")
    spec = load_spec(arguments.spec)
    beside = arguments.spec.parent / spec.data  # a bundle's rows lie beside its spec
    return replace(spec, data=str(beside)) if beside.is_file() else spec


def _interrupt(reporter: TerminalReporter) -> None:
    reporter.stop = "discard" if reporter.stop else "keep"


def _planned(arguments: argparse.Namespace, n_blocks: int) -> tuple[Plan, str]:
    if arguments.all:
        return full_plan(arguments.model, n_blocks), "full"
    if arguments.plan:
        plan = load_plan(arguments.plan)
        return plan, plan.criterion if plan.criterion in CONTROLS else "choice"
    return Plan(arguments.model, n_blocks, parse_blocks(arguments.blocks, n_blocks)), "manual"


def _compare_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="+", type=Path, help="run folders")
    parser.add_argument("--format", choices=("table", "csv", "json"), default="table", help="[default: table]")
    parser.set_defaults(command=compare_command)


def compare_command(arguments: argparse.Namespace) -> int:
    """Print one row per run."""
    from lsf.compare.formats import render
    from lsf.compare.table import compare

    print(render(compare([load_run(folder) for folder in arguments.run]), arguments.format), end="")
    return 0


def _runs_options(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(title="actions", required=True, metavar="list|show|bundle|delete")
    listing = actions.add_parser("list", help="one line per run, newest first")
    listing.add_argument("--runs", type=Path, required=True, metavar="DIR", help="folder of run folders")
    listing.set_defaults(command=list_command)
    for name, command, text in (
        ("show", show_command, "spec and result of one run, as JSON"),
        ("delete", delete_command, "remove runs"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("run", nargs="+", type=Path, help="run folders")
        action.set_defaults(command=command)

    bundle = actions.add_parser("bundle", help="one zip that repeats a run by one command")
    bundle.add_argument("run", type=Path, help="run folder")
    bundle.add_argument("--zip", type=Path, required=True, metavar="OUT", help="where it is written")
    bundle.set_defaults(command=bundle_command)


def bundle_command(arguments: argparse.Namespace) -> int:
    """Write a run's bundle."""
    save_bundle(load_run(arguments.run), arguments.zip)
    print(f"{arguments.zip}: unpack it, then {COMMAND.format(name=arguments.run.resolve().name)}")
    return 0


def list_command(arguments: argparse.Namespace) -> int:
    """Print one line per run."""
    if not arguments.runs.is_dir():
        raise BadInputError(f"There is no folder {arguments.runs}; --runs names the folder that holds run folders.")
    for run in list_runs(arguments.runs):
        what = f"{run.spec.model} {run.spec.data} {run.spec.plan.label}" if run.spec else run.problem
        print(f"{run.state:<12} {run.folder}  {what}")
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


def delete_command(arguments: argparse.Namespace) -> int:
    """Remove run folders."""
    for folder in arguments.run:
        delete_run(folder)
        print(f"deleted {folder}")
    return 0


def _demo_options(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(command=demo_command)
    actions = parser.add_subparsers(title="actions", metavar="pretrain")
    pretrain = actions.add_parser("pretrain", help="build the bundled model again (up to 30 minutes on 2 cores)")
    pretrain.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder the model is written to")
    pretrain.add_argument("--seed", type=_whole, default=0, help="[default: 0]")
    pretrain.set_defaults(command=pretrain_command)


def demo_command(_arguments: argparse.Namespace) -> int:
    """Say what the bundled model and its lessons are."""
    print("--model bundled: a Llama of 8 blocks, pretrained here on a small generated world.\n")
    for lesson in LESSONS.values():
        print(f"--data lesson:{lesson.name:<8} {lesson.title}\n{'':>22}{lesson.teaches}")
    return 0


def pretrain_command(arguments: argparse.Namespace) -> int:
    """Build the bundled model again."""
    import torch

    from lsf.bundled.pretrain import pretrain

    torch.set_num_threads(os.cpu_count() or 1)  # nothing else wants the machine for so long
    pretrain(arguments.out, seed=arguments.seed, progress=_say)
    print(f"written to {arguments.out}")
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _check_writable(*paths: Path | None) -> None:
    for path in paths:
        if path is not None and not path.parent.is_dir():
            raise BadInputError(f"Cannot write {path}: there is no folder {path.parent}.")


def _load_task(arguments: argparse.Namespace | RunSpec) -> Task:
    # Rows are always split in the same way: --seed is the run's, and runs of several seeds share their data.
    return load_task(arguments.data, arguments.prompt_template, arguments.completion_template)


def _load_model(arguments: argparse.Namespace | RunSpec, reporter: TerminalReporter) -> Any:
    logging.getLogger("transformers").setLevel(logging.ERROR)
    reporter.progress(0, None, f"loading {arguments.model}")
    from lsf.measure.loading import load_model

    return load_model(arguments.model, arguments.dtype, arguments.device)
