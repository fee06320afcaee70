"""`data`: what a file holds, why it is taken for that, and its rows as a model gets them."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from lsf.cli.arguments import MODEL_HELP, add_settings, load_asked_task, template_file, whole
from lsf.cli.terminal import TerminalReporter
from lsf.data.encode import context_length
from lsf.data.formats import FORMATS
from lsf.data.report import Piece, SplitReader, count_tokens, format_lines, pieces_of, token_lines
from lsf.data.task import Task
from lsf.errors import BadInputError
from lsf.runs.spec import RunSpec
from lsf.wording import counted

SHOWN = 3
"""Rows that are shown unless another number is asked for."""
END = "\033[0m"
COLOURS = {(False, False): ("", ""), (True, False): ("\033[1;32m", END), (True, True): ("\033[1;7;32m", END)}
"""(trained, ends) -> what a terminal is told before and after a token."""
PLAIN = {(False, False): ("", ""), (True, False): ("[", "]"), (True, True): ("[[", "]]")}
"""The same where nothing can be coloured."""


def data_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `data`."""
    kinds = "; ".join(f"{entry.name}: {entry.recognised}" for entry in FORMATS.values() if entry.name != "bundle")
    parser.add_argument("data", metavar="DATA", help="lesson:NAME, a file, a folder, or hub:NAME[:CONFIG][:SPLIT]")
    parser.add_argument("--model", help=f"model whose tokenizer and chat template are used: {MODEL_HELP}")
    parser.add_argument("--show", type=whole, default=SHOWN, metavar="N", help=f"rows to show [default: {SHOWN}]")
    names = ("prompt_template", "completion_template", "pairs", "train_on", "max_rows", "max_length")
    add_settings(parser, RunSpec, names)
    parser.add_argument("--format", default="auto", metavar="NAME", help=f"format of the rows: auto, or {kinds}")
    template = "file with a Jinja chat template, used instead of the model's own"
    parser.add_argument("--chat-template", type=template_file, metavar="FILE", help=template)
    parser.set_defaults(command=data_command)


def data_command(arguments: argparse.Namespace) -> int:
    """Tell what the data is; nothing is trained and no weights are read."""
    if arguments.show < 0:
        raise BadInputError(f"--show is {arguments.show}; 0 or more was expected.")
    task = load_asked_task(arguments)
    print("\n".join(printable(line) for line in [arguments.data, *format_lines(task)]))
    if arguments.model is None:
        _show_texts(task, arguments.show)
        return 0
    from lsf.models.weights import tokenizer_of

    tokenizer, context, vocabulary = tokenizer_of(arguments.model)
    length = context_length(context, arguments.max_length)
    with TerminalReporter() as reporter:
        reader = SplitReader(tokenizer, task, length, arguments.show, reporter)
        facts = count_tokens(reader.splits(), tokenizer, vocabulary)
    print("\n".join(printable(line) for line in token_lines(facts, length)))
    marks = COLOURS if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else PLAIN
    if arguments.show:
        how = "green, reversed where they end" if marks is COLOURS else "in [ ], in [[ ]] where they end"
        print(f"rows as the model gets them; trained tokens are {how} a turn or text:")
    for row in reader.shown:
        where = f"{row.example.where}, " if row.example.where else ""
        print(f"--- {where}{counted(len(row.ids), 'token')}, {row.n_targets:,} trained")
        print(marked(pieces_of(tokenizer, row), marks))
    return 0


def marked(pieces: Sequence[Piece], marks: Any) -> str:
    """Return a row's text with its trained tokens marked, each for itself; what would steer a terminal is spelled out.

    Args:
        pieces: the tokens.
        marks: (trained, ends) -> what stands before and after such a token.
    """
    parts = []
    for piece in pieces:
        before, after = marks[piece.trained, piece.ends]
        parts.append(f"{before}{printable(piece.text)}{after}")
    return "".join(parts)


def printable(text: str) -> str:
    """Return a text in which control characters, but for line ends and tabs, are spelled out."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in "\n\t" else ascii(one)[1:-1] for one in text)


def _show_texts(task: Task, count: int) -> None:
    print("Give --model for tokens, targets and the exact text; the rows are:")
    for example in task.train[:count]:
        print(f"--- {example.where}" if example.where else "---")
        print(printable(f"{example.prompt}[{example.completion}]"))
