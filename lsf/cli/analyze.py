"""`analyze`: one pass over examples, deviations and criteria per block."""

import argparse
import sys
from pathlib import Path

from lsf.cli.arguments import (
    add_settings,
    check_file,
    given_settings,
    load_asked_model,
    load_asked_task,
    place,
    say_notes,
    source_options,
)
from lsf.cli.terminal import TerminalReporter, keeping, say_stopped
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.encode import straddling_words
from lsf.data.report import texts_in_words
from lsf.data.task import Task
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.files import write_json, write_text
from lsf.wording import counted

BLOCKS_PER_LINE = 8
"""Of the table on the terminal."""
SETTLED = {None: "", True: ", the ranking has settled", False: ", the ranking did not settle"}

WITH_TEST = (
    "lsf: the analysis also read rows that `tune` would test on; to tune on the same file, analyse it with "
    "--split train.\n"
)


def analyze_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `analyze`."""
    source_options(parser)
    names = ("limit", "split", "positions", "reading", "virtual", "criteria", "batch_size", "max_length", "seed")
    add_settings(parser, AnalysisSettings, names)
    parser.add_argument("--json", type=place, required=True, metavar="OUT", help="file to write the analysis to")
    parser.add_argument("--html", type=place, metavar="OUT", help="also write an HTML report that opens offline")
    parser.add_argument("--notebook", type=place, metavar="OUT", help="also write a notebook that redraws the figures")
    parser.set_defaults(command=analyze_command)


def analyze_command(arguments: argparse.Namespace) -> int:
    """Measure, score, and write analysis.json; Ctrl-C ends it with what was measured, a second one at once."""
    given = given_settings(arguments, AnalysisSettings)
    if "limit" in given and given["limit"] is None:  # --limit auto
        given["settle"] = True
    if given.get("criteria") == ("all",):
        given["criteria"] = tuple(CRITERIA)
    if given.get("criteria") == ():
        raise BadInputError(f"--criteria names none; accepted are all, or some of: {', '.join(CRITERIA)}.")
    for name in given.get("criteria", ()):
        CRITERIA[name]  # an unknown name is refused before a model is loaded
    settings = AnalysisSettings(**given)
    check_file(arguments.json, arguments.html, arguments.notebook, read=(arguments.data, arguments.model))
    task = load_asked_task(arguments)
    say_notes(*task.seen.notes)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.lens.analyze import analyze

        short_runs = None
        if any(CRITERIA[name].needs == "runs" for name in settings.criteria):
            from lsf.training.short_runs import probe_blocks as short_runs
        spare_imports()
        with keeping(reporter):
            analysis = analyze(loaded, task, settings, reporter, short_runs)
    analysis.save(arguments.json)
    if arguments.html:
        from lsf.figures.report import analysis_page

        write_text(arguments.html, analysis_page(analysis))
    if arguments.notebook:
        from lsf.export.notebook import analysis_notebook

        write_json(arguments.notebook, analysis_notebook(analysis))
    _tell(analysis, task, arguments.json)
    return 0 if reporter.stop is None else say_stopped(arguments.json)


def _tell(analysis: Analysis, task: Task, out: Path) -> None:
    """Print the scores and what they rest on, and on stderr what else there is to say of them."""
    print(_table(analysis))
    print(
        f"{counted(len(analysis.states), 'state')}, {counted(len(analysis.blocks), 'block')}, "
        f"{counted(analysis.data.n_examples, 'example')} ({analysis.data.n_dropped} "
        f"dropped{SETTLED[analysis.data.settled]}) in {analysis.timing.total_seconds:.1f} s -> {out}"
    )
    print(f"texts: {texts_in_words(analysis.data.rendering or '')}; positions: {analysis.data.positions}")
    read = analysis.data.n_read
    if (rows := analysis.data.n_rows) is not None and rows > read:
        limited = "; --limit takes the first ones, in the order of the source" if read == analysis.data.n_taken else ""
        print(f"{read:,} of {rows:,} rows were read{limited}.")
    if (kernels := analysis.data.kernel_examples) is not None and kernels < analysis.data.n_examples:
        names = [name for name in analysis.blocks[0].scores if CRITERIA[name].needs == "kernel"]
        print(f"Tangent kernels ({', '.join(names)}) were computed on the first {counted(kernels, 'example')}.")
    if (sampled := analysis.data.sampled_positions) is not None and sampled < analysis.data.n_positions:
        print(
            f"The similarity of positions (cka) was computed on {counted(sampled, 'position')}, those of the first "
            "examples."
        )
    if (ablated := analysis.data.ablation_positions) is not None and ablated < analysis.data.n_positions:
        print(f"Blocks were bypassed (ablation) at {counted(ablated, 'position')}, those of the first examples.")
    if not task.own_splits and analysis.data.split == "all" and (task.validation or task.test):
        sys.stderr.write(WITH_TEST)
    if told := straddling_words(analysis.data.n_straddling or 0):
        sys.stderr.write(f"lsf: {told}\n")
    data = analysis.data
    for sentence in filter(None, (*data.told, data.unknown, data.unlike, data.short)):
        sys.stderr.write(f"lsf: {sentence}\n")
    if analysis.data.jittered:
        sys.stderr.write("lsf: the LM head is singular; its semantic bases were computed with a jitter of 1e-6.\n")


def _table(analysis: Analysis) -> str:
    """Return one line per criterion with the score of every block, `-` where it is unknown; few blocks at a time."""
    width = max(len(name) for name in analysis.blocks[0].scores)
    lines = []
    for start in range(0, len(analysis.blocks), BLOCKS_PER_LINE):
        rows = analysis.blocks[start : start + BLOCKS_PER_LINE]
        lines.append(f"{'block':<{width}}" + "".join(f"{row.block:>10}" for row in rows))
        for name in analysis.blocks[0].scores:
            scores = [row.scores[name] for row in rows]
            lines.append(f"{name:<{width}}" + "".join(f"{'-' if s is None else f'{s:.4g}':>10}" for s in scores))
    return "\n".join(lines)
