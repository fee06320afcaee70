"""`dimension`: how few numbers a task needs, d_90 of SAID and DID."""

import argparse
from pathlib import Path

from lsf.cli.arguments import (
    add_settings,
    check_file,
    given_settings,
    load_asked_model,
    load_told_task,
    place,
    source_options,
)
from lsf.cli.terminal import TerminalReporter, keeping, say_stopped
from lsf.dimension.study import ASKED, DimensionSettings, Study
from lsf.environment import spare_imports
from lsf.plans.plan import Plan, full_plan, parse_blocks

OWN = ("projection", "low", "high", "bisections", "share", "seeds", "rates", "steps", "batch_size")
"""Fields of the settings that are options of `dimension`: all of them."""


def dimension_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `dimension`."""
    source_options(parser)
    parser.add_argument("--blocks", metavar="B", help="blocks that may move, such as 3,5-7; default: the whole model")
    parser.add_argument("--methods", default=",".join(ASKED), metavar="M", help="said, did or both [default: said,did]")
    add_settings(parser, DimensionSettings, OWN)
    parser.add_argument("--json", type=place, required=True, metavar="OUT", help="file to write, updated after every d")
    parser.set_defaults(command=dimension_command)


def dimension_command(arguments: argparse.Namespace) -> int:
    """Search d_90 in the foreground; Ctrl-C or SIGTERM ends it with what is known, a second one at once."""
    settings = DimensionSettings(**given_settings(arguments, DimensionSettings))
    check_file(arguments.json, read=(arguments.data, arguments.model))
    task = load_told_task(arguments)
    with _Saving(arguments.json) as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.dimension.search import study_dimension

        spare_imports()
        name, count = loaded.info.name, loaded.info.n_blocks
        blocks = arguments.blocks
        plan = Plan(name, count, parse_blocks(blocks, count)) if blocks is not None else full_plan(name, count)
        methods = [method.strip() for method in arguments.methods.split(",")]
        with keeping(reporter):
            study = study_dimension(loaded, task, plan, settings, reporter, methods)
    study.save(arguments.json)
    print("\n".join(study_lines(study)))
    return 0 if reporter.stop is None else say_stopped(arguments.json)


class _Saving(TerminalReporter):
    """A terminal's reporter that keeps every partial study."""

    def __init__(self, out: Path) -> None:
        super().__init__()
        self._out = out

    def partial(self, value: Study) -> None:
        """Write what is known so far."""
        value.save(self._out)


def study_lines(study: Study) -> list[str]:
    """Return a study as lines of text: one per point, and every d_90."""
    lines = [f"{study.whole}, seed {n}: {point.test:.3f} at rate {point.rate:g}" for n, point in enumerate(study.full)]
    for curve in study.curves:
        lines += [
            f"{curve.method} seed {curve.seed}: d = {point.d:<8,} {point.test:.3f} at rate {point.rate:g}"
            for point in sorted(curve.points, key=lambda point: point.d)
        ]
        lines.append(f"{curve.method} seed {curve.seed}: {study.sought} {curve.summary} (target {curve.target:.3f})")
    return lines
