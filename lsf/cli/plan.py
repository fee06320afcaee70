"""`plan` and `export`: scores to a plan under a budget, and a plan for other trainers."""

import argparse
import math
from pathlib import Path

from lsf.cli.arguments import check_file, load_asked_task, number, place, say_notes, size, whole
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis
from lsf.data.contents import Chat
from lsf.data.encode import context_length
from lsf.data.task import Task
from lsf.errors import BadInputError, DataError, RunStateError, UnknownNameError
from lsf.evidence.own import record_here
from lsf.evidence.real import spacing, trying_helps
from lsf.evidence.standing import is_unproven, standing_rule, trust_words
from lsf.files import write_text
from lsf.plans.plan import Plan
from lsf.plans.policies import (
    EVENLY_SPACED,
    KNAPSACK,
    POLICIES,
    RECOMMENDED_POLICY,
    make_knapsack_plan,
    make_plan,
    spaced_plan,
)
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, load_run

KNOWN_POLICIES = (*POLICIES, KNAPSACK)


def plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plan`."""
    parser.add_argument("--analysis", type=place, required=True, metavar="FILE", help="an analysis.json")
    names = f"one of: {', '.join(CRITERIA)}; {EVENLY_SPACED} takes none"
    parser.add_argument("--criterion", metavar="NAME", help=names)
    known = ", ".join(KNOWN_POLICIES)
    parser.add_argument("--policy", default="top_k", metavar="NAME", help=f"one of: {known} [default: top_k]")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--blocks", type=whole, metavar="K", help="number of blocks to tune")
    budget.add_argument("--flops", type=number, metavar="SHARE", help="knapsack: share of full fine-tuning's FLOPs")
    memory = "knapsack: weights, gradients, optimizer state, such as 24e9 or 24G"
    budget.add_argument("--memory", type=size, metavar="BYTES", help=memory)
    parser.add_argument("--json", type=place, required=True, metavar="PLAN", help="file to write the plan to")
    parser.set_defaults(command=plan_command)


def plan_command(arguments: argparse.Namespace) -> int:
    """Choose blocks and write plan.json."""
    check_file(arguments.json, read=(arguments.analysis,))
    for name in ("flops", "memory"):
        if (given := getattr(arguments, name)) is not None and not 0 < given < math.inf:
            raise BadInputError(f"--{name} is {given:g}; a number above 0 was expected.")
    if arguments.policy not in KNOWN_POLICIES:
        raise UnknownNameError("policy", arguments.policy, KNOWN_POLICIES)
    spaced = arguments.policy == EVENLY_SPACED
    if spaced == (arguments.criterion is not None):
        raise BadInputError(
            f"The policy {EVENLY_SPACED} looks at no score; leave out --criterion."
            if spaced
            else f"--criterion NAME is missing, which the policy {arguments.policy} chooses by."
        )
    analysis, criterion = Analysis.load(arguments.analysis), arguments.criterion
    if (arguments.policy == KNAPSACK) == (arguments.blocks is not None):
        raise BadInputError("The policy knapsack takes --flops or --memory; every other policy takes --blocks.")
    if arguments.policy == KNAPSACK:
        plan = make_knapsack_plan(analysis, criterion, arguments.flops, arguments.memory)
    elif spaced:
        plan = spaced_plan(analysis, arguments.blocks)
    else:
        plan = make_plan(analysis, criterion, arguments.policy, arguments.blocks)
    plan.save(arguments.json)
    print(f"tune {plan.label} of {plan.n_blocks}: {plan.predicted.trainable_params:,} parameters -> {arguments.json}")
    for block, reason in plan.reasons.items():
        print(f"  block {block}: {reason}")
    if (criterion,) == standing_rule(analysis.weights).criteria and (
        arguments.policy == RECOMMENDED_POLICY or len(plan.blocks) == 1
    ):
        trusted, unproven = trust_words(analysis, len(plan.blocks), record_here()), is_unproven(analysis)
        who = "the study of small models" if unproven else "the evidence"
        print(f"{CRITERIA[criterion].label} is what {who} recommends: {trusted}")
        if unproven and trying_helps(len(plan.blocks)):
            print("`try` tunes a few depths briefly and plans the best of them.")
        if unproven and (held := spacing(len(plan.blocks))) is not None and held.stands:
            print(f"`--policy {EVENLY_SPACED}` needs no analysis of the blocks. {held.words}")
    return 0


def _of_run(run: Run, spec: RunSpec, target: str, out: Path | None) -> str:
    """Return a run's plan as another trainer takes it, and write its rows beside, where that trainer reads them."""
    from lsf.export.recipe_data import SECTIONS, are_chats
    from lsf.export.targets import load_skeleton, recipe_of_run, script_of_run, told_method, told_settings
    from lsf.models.weights import tokenizer_of

    skeleton, is_script = load_skeleton(spec.plan), target == "transformers"
    text = "" if is_script else recipe_of_run(skeleton, spec, target)
    told = [words for words in (told_method(run, spec, target), told_settings(run, spec, target)) if words]
    say_notes(*told)
    if target not in SECTIONS:
        return text
    tokenizer, context, _ = tokenizer_of(spec.model)
    length, files, lines, raw = context_length(context, spec.max_length), {}, (), False
    try:
        task = _rows_of(run, spec)
        if not is_script and not are_chats(task, tokenizer):
            say_notes(f"{_why_left(run, task)}; the recipe leaves out its data.")
        elif out is not None:
            found = SECTIONS[target](out, spec, task, tokenizer, length)
            files, lines, raw = found.files, found.lines, any(example.content is None for example in task.train)
        elif not is_script:
            raise BadInputError("The rows of a run on chats are written beside the recipe; give --out FILE.")
    except (DataError, RunStateError) as error:
        if not is_script:
            raise
        say_notes(f"Its rows are not written beside the script: {error}")
    places = {out.parent / name: held for name, held in files.items()} if out is not None else {}
    if there := next((file for file in places if file.exists()), None):
        raise BadInputError(f"{there} already exists; name another file with --out, or another folder.")
    for file, held in places.items():
        write_text(file, held)
        print(f"beside it: {file}")
    if is_script:
        text = script_of_run(skeleton, run, spec, length, next(iter(files), None), raw)
    return "".join([*(f"# {words}\n" for words in told), text, *(f"{line}\n" for line in lines)])


def _why_left(run: Run, task: Task) -> str:
    """Return why the rows of a run are not in a recipe of chats."""
    if all(isinstance(example.content, Chat) and not example.content.pair for example in task.train):
        return f"{run.id} was trained on chats by a plain template, since its model has none, which other trainers lack"
    return f"{run.id} was not trained on chats"


def _rows_of(run: Run, spec: RunSpec) -> Task:
    """Return the data of a run, which has to be what it was."""
    task = load_asked_task(spec)
    if run.result is not None and run.result.data_fingerprint not in (None, task.fingerprint):
        raise RunStateError(f"The data of {run.id} ({spec.data}) has changed since the run; it cannot be exported.")
    return task


TARGETS = ("peft", "axolotl", "llamafactory", "transformers")


def export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--plan", type=place, metavar="PLAN", help="a plan.json")
    run = (
        "folder of a run: its plan is exported, and its rows: to transformers, and of chats to axolotl and llamafactory"
    )
    which.add_argument("--run", type=place, metavar="RUN", help=run)
    parser.add_argument("--to", required=True, metavar="NAME", help=f"one of: {', '.join(TARGETS)}")
    parser.add_argument("--out", type=place, metavar="FILE", help="file to write; default: standard output")
    parser.set_defaults(command=export_command)


def export_command(arguments: argparse.Namespace) -> int:
    """Write a plan as another trainer takes it, and of a run on chats its data."""
    if arguments.to not in TARGETS:
        raise UnknownNameError("export target", arguments.to, TARGETS)
    check_file(arguments.out, read=(arguments.plan,))
    run = None if arguments.run is None else load_run(arguments.run)
    if run is not None and run.spec is None:
        raise BadInputError(f"{arguments.run} cannot be exported: {run.problem}")
    from lsf.export.targets import EXPORTS, load_skeleton

    target = EXPORTS[arguments.to]
    if run is None or run.spec is None:
        plan = Plan.load(arguments.plan)
        text = target.write(load_skeleton(plan), plan)
    else:
        plan, text = run.spec.plan, _of_run(run, run.spec, arguments.to, arguments.out)
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
        print(f"{target.label}: {plan.label} of {plan.n_blocks} -> {arguments.out}")
    return 0
