"""`tune`: one fine-tune in the foreground, or what it would need, told and not done."""

import argparse
import sys
from contextlib import ExitStack
from dataclasses import fields, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lsf.cli.arguments import (
    add_settings,
    check_folder,
    describe_setting,
    given_settings,
    load_asked_model,
    load_told_task,
    place,
    say_notes,
    source_options,
)
from lsf.cli.terminal import TerminalReporter, listening
from lsf.data.encode import straddling_words
from lsf.data.report import texts_in_words
from lsf.environment import foreign_precision, launched_rank, spare_imports
from lsf.errors import BadInputError, RunPausedError
from lsf.methods.catalogue import CATALOGUE, check_base, read_pairs
from lsf.methods.optimization import check_optimizer
from lsf.plans.plan import Plan, full_plan, parse_blocks
from lsf.runs.lock import SPEC
from lsf.runs.memory_forecast import PART_WORDS, Forecast, in_words
from lsf.runs.result import PHASES, RunResult
from lsf.runs.spec import NEEDS, REPORTERS, RunSpec
from lsf.runs.store import new_run, reopen_run, runs_folder, spec_to_repeat
from lsf.wording import counted


def print_forecast(loaded: Any, task: Any, spec: RunSpec) -> int:
    """Forecast a run and print it; return the exit code: 0 also where it does not fit, since nothing failed."""
    from lsf.training.forecast import forecast

    print("\n".join(forecast_lines(forecast(loaded, task, spec, here=False))))
    return 0


def forecast_lines(found: Forecast) -> list[str]:
    """Return a forecast as lines of text."""
    parts = {PART_WORDS[name]: value for name, value in vars(found.parts).items()}
    rows = [
        (f"{found.spec.plan.label}, method {found.spec.how}", f"on {found.device}"),
        ("tuned parameters", f"{found.trainable_params:,}"),
        ("FLOPs over full fine-tuning's", f"{found.flops_ratio:.2f}"),
        ("seconds per step", "not tried" if found.step_seconds is None else f"{found.step_seconds:.3f}"),
        ("seconds from start to end", f"{sum(found.phases.values()):.1f}"),
        *((f"seconds: {PHASES[name]}", f"{seconds:.1f}") for name, seconds in found.phases.items() if seconds >= 0.05),
        *((f"memory: {name}", "not tried" if value is None else in_words(value)) for name, value in parts.items()),
    ]
    lines = [f"{name:36} {value}" for name, value in rows]
    lines.append(found.sentence)
    if found.offer is not None:
        lines.append(f"What would fit: {found.offer.words}. {found.offer.forecast.sentence}")
    elif found.fits is False:
        lines.append("No smaller version of the run fits; choose a smaller model.")
    return lines


OF_SAME_SIZE = ("first", "last", "middle", "random")
"""Policies whose plans stand in a comparison for themselves."""
SWITCHES = ("embedding", "final_norm", "head")
"""Modules a plan knows by a word."""
OWN = (
    "general", "general_share",
    "method", "steps", "epochs", "until", "keep", "learning_rate", "optimizer", "weight_decay", "warmup_steps",
    "reweight_tau", "batch_size", "micro_batch", "cache", "activation_checkpointing", "checkpoint_steps",
    "checkpoint_seconds", "report_to", "max_length", "eval_every", "eval_limit", "answer_pattern",
    "generate_limit", "generate_tokens", "proof", "latency", "threads", "seed",
)  # fmt: skip
"""Fields of a run's spec that are options of `tune`."""


def tune_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `tune`."""
    source_options(parser, required=False)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--plan", type=place, metavar="PLAN", help="a plan.json")
    which.add_argument("--blocks", metavar="B", help="blocks by hand, such as 3,5-7")
    which.add_argument("--all", action="store_true", help="full fine-tuning")
    which.add_argument(
        "--spec", type=place, metavar="SPEC", help="repeat a run by its spec.json; nothing else is needed"
    )
    which.add_argument("--resume", type=place, metavar="RUN", help="resume a run that ended early; needs nothing else")
    modules = "embedding, final_norm, head, or dotted names of the model's modules, tuned with --blocks B (or none)"
    parser.add_argument("--modules", default="", metavar="M", help=modules)
    add_settings(parser, RunSpec, OWN)
    search = "the same as --learning-rate auto: a short search on validation, whose cost is counted separately"
    parser.add_argument("--search-lr", action="store_true", help=search)
    parser.add_argument("--verify", dest="proof", action="store_const", const="hash", help="the same as --proof hash")
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help=_options_help())
    parser.add_argument(
        "--runs", type=place, metavar="DIR", help="folder the run's folder is made in; default: LSF_RUNS, or runs"
    )
    parser.add_argument("--forecast", action="store_true", help="say what the run would need, without tuning")
    parser.set_defaults(command=tune_command)


def tune_command(arguments: argparse.Namespace) -> int:
    """Fine-tune in the foreground; Ctrl-C once stops and keeps, twice discards; SIGTERM pauses."""
    if arguments.forecast and arguments.resume:
        raise BadInputError("--forecast tunes nothing, so there is nothing to resume; leave out one of the two.")
    known = _known_spec(arguments)
    if known is None and not (arguments.model and arguments.data):
        raise BadInputError("tune needs --model and --data, or --spec with a run's spec.json, or --resume with a run.")
    if (known or arguments).device == "map":
        raise BadInputError("--device map spreads a model to analyse it; tuning takes auto, cpu, cuda or mps.")
    if not arguments.forecast and not arguments.resume:
        check_folder(arguments.runs or runs_folder())
    asked = known or arguments
    check_optimizer(asked.optimizer or "adamw")
    check_base(asked.method or "full", asked.dtype)
    settings = _asked_settings(arguments) if known is None else {}
    _check_reporter(asked.report_to or "none")
    task = load_told_task(known or arguments)
    reporter = TerminalReporter()
    loaded = load_asked_model(known or arguments, reporter)
    spec = known or _asked_spec(arguments, settings, loaded.info.n_blocks)
    from lsf.methods.context import planned_names

    planned_names(loaded, spec.plan)  # a plan for another model is refused before there is a folder
    say_notes(*filter(None, [spec.plan.tied_words(loaded.info.tied_head)]))
    if arguments.forecast:
        spare_imports()
        reporter.close()
        return print_forecast(loaded, task, spec)
    from lsf.training.measuring import measure_kept
    from lsf.training.processes import agreed_folder, n_processes
    from lsf.training.run import tune

    if (asked := foreign_precision()) and launched_rank() == 0:
        reporter.close()
        sys.stderr.write(
            f"lsf: accelerate's mixed precision {asked} is ignored; --dtype sets what a run computes in.\n"
        )
    spare_imports()
    on_cpu, runs = loaded.device.type == "cpu", arguments.runs or runs_folder()
    with (
        ExitStack() as made,
        agreed_folder(lambda: arguments.resume or made.enter_context(new_run(runs, spec)), on_cpu) as (folder, shared),
    ):
        try:
            with listening(partial(_interrupt, reporter), partial(_pause, reporter)):
                result = tune(loaded, task, spec, folder, reporter, shared)
                if result.unmeasured and reporter.stop == "keep" and n_processes() == 1:
                    reporter.stop = None
                    result = measure_kept(loaded, task, folder, reporter)
        except RunPausedError as pause:
            if launched_rank() == 0:
                sys.stderr.write(f"lsf: {pause} Resume it with: python -m lsf tune --resume {shared}\n")
            return 1
        finally:
            reporter.close()
    if launched_rank() == 0:
        _print_end(result, spec, folder)
    return 0 if result.state == "succeeded" else 1


def _print_end(result: RunResult, spec: RunSpec, folder: Path) -> None:
    """Print how a run ended, and on stderr what else there is to say of it."""
    print(f"{result.state} after {counted(result.steps, 'step')}: {folder}")
    for words in (result.reason, *result.warnings):
        if words:
            sys.stderr.write(f"lsf: {words}\n")
    if result.unmeasured:
        sys.stderr.write(f"lsf: It has not been tested yet; test it with: python -m lsf runs measure {folder}\n")
    if result.rendering is not None:
        print(f"texts: {texts_in_words(result.rendering)}")
    if (mixed := result.general) is not None:
        share = "" if mixed.token_share is None else f", {mixed.token_share:.1%} of all"
        print(f"general data: {counted(mixed.n_trained, 'row')} trained on, {counted(mixed.tokens, 'token')}{share}")
    if result.after is not None and result.after.generated_match is not None and result.before is not None:
        shares = [f"{metrics.generated_match:.1%}" for metrics in (result.before, result.after)]
        print(
            f"right by generation: {shares[0]} before, {shares[1]} after, of {result.after.n_generated} test "
            f"examples in at most {counted(spec.generate_tokens, 'token')}; {result.after.n_unended} were cut off there"
        )
    if told := straddling_words(result.n_straddling or 0):
        sys.stderr.write(f"lsf: {told}\n")


def _known_spec(arguments: argparse.Namespace) -> RunSpec | None:
    """Return the spec of a run that is repeated or resumed; None where one is asked for by options."""
    if arguments.resume:
        _refuse_beside(arguments, "resume")
        # Of several launched processes the first one holds the run.
        return reopen_run(arguments.resume) if launched_rank() == 0 else RunSpec.load(arguments.resume / SPEC)
    return _read_spec(arguments) if arguments.spec else None


def _check_reporter(name: str) -> None:
    if name in REPORTERS and find_spec(name) is None:
        raise BadInputError(
            f"--report-to {name} needs the package {name}, which is not installed: pip install {name}, or leave the "
            "option out."
        )


def _asked_settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the fields of the run's spec that are asked for; what is wrong with them is said before a model is loaded.

    Raises:
        BadInputError: options that do not go together, a value out of its range, no such plan.
    """
    if arguments.modules and arguments.blocks is None:
        raise BadInputError("--modules goes with --blocks; write --blocks none to tune modules alone.")
    if arguments.search_lr and arguments.learning_rate is not None:
        raise BadInputError("--search-lr searches the learning rate; leave out --learning-rate.")
    for name, needed in NEEDS.items():
        if getattr(arguments, name) is not None and getattr(arguments, needed) is None:
            alone, other = (word.replace("_", "-") for word in (name, needed))
            raise BadInputError(f"--{alone} has no effect without --{other}; give both, or neither.")
    if arguments.steps is not None and arguments.epochs is not None:
        raise BadInputError("--steps and --epochs both say how long the run is; leave out one of the two.")
    given = given_settings(arguments, RunSpec)
    method = given.get("method", "full")
    if arguments.search_lr:
        given["learning_rate"] = None
    given["options"] = read_pairs(method, CATALOGUE[method].options, arguments.option)
    given["plan"] = Plan.load(arguments.plan) if arguments.plan else full_plan(arguments.model, 1)
    RunSpec(**given)
    return given


def _asked_spec(arguments: argparse.Namespace, given: dict[str, Any], n_blocks: int) -> RunSpec:
    plan, role = _planned(arguments, given["plan"], n_blocks)
    return RunSpec(**{**given, "plan": plan, "role": role})


def _refuse_beside(arguments: argparse.Namespace, asked: str) -> None:
    given = [name for name, value in given_settings(arguments, RunSpec).items() if name != "plan" and value != "auto"]
    given += [name for name in ("option", "modules", "search_lr") if getattr(arguments, name)]
    given += ["runs"] if asked == "resume" and arguments.runs is not None else []
    if given:
        raise BadInputError(f"--{asked} already sets everything; leave out --{given[0].replace('_', '-')}.")


def _read_spec(arguments: argparse.Namespace) -> RunSpec:
    _refuse_beside(arguments, "spec")
    spec = spec_to_repeat(arguments.spec)
    for name in ("data", "general"):  # a bundle's rows lie beside its spec
        beside = arguments.spec.parent / (getattr(spec, name) or "")
        spec = replace(spec, **{name: str(beside)}) if beside.is_file() else spec
    return spec


def _options_help() -> str:
    """Say which options each method has, from the records themselves."""
    listed = [
        f"{name}: {', '.join(describe_setting(item) for item in fields(info.options))}"
        for name, info in CATALOGUE.items()
        if fields(info.options)
    ]
    return "an option of the method; repeat for more. " + "; ".join(listed)


def _interrupt(reporter: TerminalReporter) -> None:
    reporter.stop = "discard" if reporter.stop == "keep" else reporter.stop or "keep"


def _pause(reporter: TerminalReporter) -> None:
    reporter.stop = reporter.stop or "pause"


def _planned(arguments: argparse.Namespace, plan: Plan, n_blocks: int) -> tuple[Plan, str]:
    if arguments.all:
        return full_plan(arguments.model, n_blocks), "full"
    if arguments.plan:
        return plan, plan.criterion if plan.criterion in OF_SAME_SIZE else "manual" if plan.by_hand else "choice"
    words = [word.strip() for word in arguments.modules.split(",") if word.strip()]
    embedding, final_norm, head = (word in words for word in SWITCHES)
    blocks = () if arguments.blocks == "none" else parse_blocks(arguments.blocks, n_blocks)
    others = tuple(word for word in words if word not in SWITCHES)
    return Plan(arguments.model, n_blocks, blocks, embedding, final_norm, head, others), "manual"
