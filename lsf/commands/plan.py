"""`plan`: scores to a plan under a budget."""

import argparse
import math
from pathlib import Path

from lsf.analysis.criteria import CRITERIA
from lsf.analysis.knapsack import KNAPSACK, make_knapsack_plan
from lsf.analysis.policies import POLICIES, make_plan
from lsf.analysis.result import load_analysis
from lsf.commands.sources import whole
from lsf.errors import BadInputError


def plan_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `plan`."""
    parser.add_argument("--analysis", type=Path, required=True, metavar="FILE", help="an analysis.json")
    parser.add_argument("--criterion", required=True, metavar="NAME", help=f"one of: {', '.join(CRITERIA)}")
    known = ", ".join((*POLICIES, KNAPSACK))
    parser.add_argument("--policy", default="top_k", metavar="NAME", help=f"one of: {known} [default: top_k]")
    budget = parser.add_mutually_exclusive_group(required=True)
    budget.add_argument("--blocks", type=whole, metavar="K", help="number of blocks to tune")
    budget.add_argument("--flops", type=float, metavar="SHARE", help="knapsack: share of full fine-tuning's FLOPs")
    budget.add_argument("--memory", type=float, metavar="BYTES", help="knapsack: weights, gradients, optimizer state")
    parser.add_argument("--json", type=Path, required=True, metavar="PLAN", help="where the plan is written")
    parser.set_defaults(command=plan_command)


def plan_command(arguments: argparse.Namespace) -> int:
    """Choose blocks and write plan.json."""
    if arguments.json.resolve() == arguments.analysis.resolve():
        raise BadInputError(f"--json would replace the analysis {arguments.analysis} by the plan; name another file.")
    for name in ("flops", "memory"):
        if (given := getattr(arguments, name)) is not None and not 0 < given < math.inf:
            raise BadInputError(f"--{name} is {given:g}; a number above 0 was expected.")
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
