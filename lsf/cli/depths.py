"""`try`: neighbours at five depths, then two rates, each for the first half of a run, and the plan of the best."""

import argparse

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
from lsf.cli.terminal import TerminalReporter, keeping
from lsf.environment import spare_imports
from lsf.plans.plan import Plan, format_blocks
from lsf.plans.policies import check_budget
from lsf.plans.tries import Tries, short_words
from lsf.runs.spec import RunSpec
from lsf.wording import counted

OWN = (
    "method", "steps", "epochs", "learning_rate", "optimizer", "weight_decay", "warmup_steps", "batch_size",
    "micro_batch", "max_length", "eval_limit", "threads", "seed",
)  # fmt: skip
"""Fields of a run's spec that are options of `try`."""


def try_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `try`."""
    source_options(parser)
    parser.add_argument("--blocks", type=whole, required=True, metavar="N", help="how many neighbours are to be tuned")
    add_settings(parser, RunSpec, OWN)
    parser.add_argument("--json", type=place, required=True, metavar="OUT", help="file to write the plan to")
    parser.set_defaults(command=try_command)


def try_command(arguments: argparse.Namespace) -> int:
    """Try depths and rates and write the best plan, for `tune --plan`; Ctrl-C or SIGTERM ends it with nothing."""
    given = given_settings(arguments, RunSpec)
    check_file(arguments.json, read=(arguments.data, arguments.model))
    RunSpec(**given, plan=Plan("any", 1, (0,)))  # a bad value is refused before data or model are read
    task = load_told_task(arguments)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.training.depth_search import try_depths

        spare_imports()
        n_blocks = loaded.info.n_blocks
        check_budget(arguments.blocks, n_blocks)
        spec = RunSpec(**given, plan=Plan(loaded.info.name, n_blocks, tuple(range(arguments.blocks))))
        with keeping(reporter):
            tries = try_depths(loaded, task, spec, reporter)
    print("\n".join(tries_lines(tries)))
    plan = tries.plan
    if plan is None:
        say_notes("The loss diverged at every depth; give a smaller --learning-rate. No plan was written.")
        return 1
    plan.save(arguments.json)
    rate = plan.rates[tries.method]
    print(f"{plan.label} at rate {rate:g} in {tries.seconds:.1f} s -> {arguments.json}")
    if (told := short_words(tries.steps)) is not None:
        say_notes(told)
    if not tries.gained:
        say_notes("No try ended below the base model's loss: more steps or another rate may tell them apart.")
    return 0


def tries_lines(tries: Tries) -> list[str]:
    """Return tries as lines of text, the first blocks first, other rates last."""
    head = (
        f"validation loss of {counted(tries.examples, 'example')} after {tries.steps} of "
        f"{counted(tries.run_steps, 'step')}; base {tries.base_loss:.3f}"
    )
    rows = [
        f"{format_blocks(one.blocks):<12}{one.learning_rate:>9g}  "
        + ("diverged" if one.loss is None else f"{one.loss:.3f}")
        for one in (*tries.tries, *tries.rates)
    ]
    return [head, f"{'tuned':<12}{'rate':>9}  loss", *rows]
