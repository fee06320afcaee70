"""`export`: a plan for other trainers."""

import argparse
from pathlib import Path

from lsf.analysis.plan import load_plan
from lsf.commands.sources import check_file
from lsf.errors import UnknownNameError
from lsf.files import write_text

TARGETS = ("peft", "axolotl", "llamafactory", "transformers")


def export_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `export`."""
    parser.add_argument("--plan", type=Path, required=True, metavar="PLAN", help="a plan.json")
    parser.add_argument("--to", required=True, metavar="NAME", help=f"one of: {', '.join(TARGETS)}")
    parser.add_argument("--out", type=Path, metavar="FILE", help="where it is written; default: standard output")
    parser.set_defaults(command=export_command)


def export_command(arguments: argparse.Namespace) -> int:
    """Write a plan as another trainer takes it."""
    if arguments.to not in TARGETS:
        raise UnknownNameError("export target", arguments.to, TARGETS)
    check_file(arguments.out)
    plan = load_plan(arguments.plan)
    from lsf.export.skeleton import load_skeleton
    from lsf.export.targets import EXPORTS

    target = EXPORTS[arguments.to]
    text = target.write(load_skeleton(plan), plan)
    if arguments.out is None:
        print(text, end="")
    else:
        write_text(arguments.out, text)
        print(f"{target.label}: {plan.label} of {plan.n_blocks} -> {arguments.out}")
    return 0
