"""`edit` and `merge`: recipes made of runs, one to edit facts, one to tune again on top of what was tuned."""

import argparse
from pathlib import Path

from lsf.commands.sources import check_writable, load_asked_model
from lsf.errors import BadInputError
from lsf.files import write_json
from lsf.jobs.runs import load_run
from lsf.options import add_settings, given_settings
from lsf.terminal import TerminalReporter
from lsf.training.edit_settings import OWN, EditSettings


def edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edit`."""
    parser.add_argument("--dtype", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="auto", help="where to run [default: auto]")
    add_settings(parser, EditSettings, OWN)
    parser.add_argument("--json", type=Path, metavar="OUT", help="file to write")
    parser.set_defaults(command=edit_command, model="bundled")


def edit_command(arguments: argparse.Namespace) -> int:
    """Edit the lesson `facts` into one window of the bundled model after another."""
    settings = EditSettings(**given_settings(arguments, EditSettings))
    check_writable(arguments.json)
    reporter = TerminalReporter()
    try:
        loaded = load_asked_model(arguments, reporter)
        from lsf.bundled.editing import edit_windows

        found = edit_windows(loaded, settings, reporter)
    finally:
        reporter.close()
    print(f"{'blocks':<10}{'values':>9}" + "".join(f"{name:>13}" for name in found[0].right))
    for one in found:
        blocks = f"{one.blocks[0]}-{one.blocks[-1]}" if one.blocks else "base"
        print(f"{blocks:<10}{one.values:>9}" + "".join(f"{value:>13.3f}" for value in one.right.values()))
    if arguments.json:
        write_json(arguments.json, {"schema_version": 1, "windows": [one.to_json() for one in found]})
    return 0


def merge_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `merge`."""
    parser.add_argument("--run", type=Path, required=True, metavar="RUN", help="folder of a run that ended well")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder the model is written to")
    parser.set_defaults(command=merge_command)


def merge_command(arguments: argparse.Namespace) -> int:
    """Write what a run tuned as a plain model, on top of which the next run can tune."""
    spec = load_run(arguments.run).spec
    if spec is None:
        raise BadInputError(f"{arguments.run} is not a run; a folder with spec.json and weights/ was expected.")
    check_writable(arguments.out)
    reporter = TerminalReporter()
    try:
        loaded = load_asked_model(spec, reporter)
    finally:
        reporter.close()
    from lsf.training.artefacts import load_tuned
    from lsf.training.merging import merge

    plain = merge(load_tuned(arguments.run, loaded), loaded)
    plain.save_pretrained(arguments.out)
    loaded.tokenizer.save_pretrained(arguments.out)
    print(f"{spec.how} on {spec.plan.label} of {spec.model} -> {arguments.out}")
    return 0
