"""The command line: what the app can do, by the same code.

Exit codes: 0 done, 2 bad input, 1 failed or stopped with what was measured, 130 Ctrl-C.
"""

import errno
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from lsf import __version__
from lsf.cli.analyze import analyze_options
from lsf.cli.arguments import Parser
from lsf.cli.ask import ask_options
from lsf.cli.classroom import class_options
from lsf.cli.data import data_options
from lsf.cli.demo import demo_options
from lsf.cli.depths import try_options
from lsf.cli.dimension import dimension_options
from lsf.cli.evidence import evidence_options
from lsf.cli.graft import graft_options
from lsf.cli.plan import export_options, plan_options
from lsf.cli.recipes import beacons_options, edit_options, merge_options
from lsf.cli.runs import compare_options, runs_options
from lsf.cli.sweep import sweep_options
from lsf.cli.tune import tune_options
from lsf.environment import settle_torch, uncollected
from lsf.errors import BadInputError, LsfError

CLOSED = (errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP)
"""Why the system does not open a file or folder that the user names."""
LOG_FILE = Path(os.environ.get("LSF_LOG") or "~/.cache/lsf/lsf.log").expanduser()


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    settle_torch()
    try:
        arguments = build_parser().parse_args(argv)
        with uncollected():
            return arguments.command(arguments)
    except BadInputError as error:
        _say(f"lsf: {error}\n")
        return 2
    except LsfError as error:
        _say(f"lsf: {error}\n")
        return 1
    except KeyboardInterrupt:
        _say("lsf: interrupted.\n")
        return 130
    except BrokenPipeError:
        with suppress(OSError):  # it has the rest of what nobody reads
            sys.stderr.close()
        return 1
    except OSError as error:
        if error.errno not in CLOSED or error.filename is None:
            return _fail(error)
        _say(f"lsf: {error.filename} cannot be opened: {error.strerror}.\n")
        return 2
    except Exception as error:  # noqa: BLE001 - the border: the user gets a sentence, the log file the traceback
        return _fail(error)


def _say(text: str) -> None:
    """Write to standard error; nothing where nobody reads that."""
    with suppress(OSError):
        sys.stderr.write(text)


def _fail(error: Exception) -> int:
    """Say in a sentence what is no fault of the input; return the exit code."""
    if _is_short_of_memory(error):
        _say(f"lsf: this machine has too little free memory ({error}); close other programs and try again.\n")
        return 1
    _say(f"lsf: internal error ({type(error).__name__}); {_keep_traceback(error)}.\n")
    return 1


def _keep_traceback(error: Exception) -> str:
    """Write the traceback to the log file, or to the terminal where there can be none; say where it is."""
    lines = "".join(traceback.format_exception(error))
    try:
        LOG_FILE.parent.mkdir(parents=True, exist_ok=True)
        with LOG_FILE.open("a", encoding="utf-8") as log:
            log.write(lines)
    except OSError:
        sys.stderr.write(lines)
        return f"{LOG_FILE} cannot be written, so the traceback is above"
    return f"the traceback is in {LOG_FILE}"


def _is_short_of_memory(error: Exception) -> bool:
    """Say whether memory did not even suffice to begin; torch need not have been imported."""
    words = ("can't start new thread", "allocate memory", "out of memory", "not enough memory")
    return isinstance(error, MemoryError) or any(part in str(error).lower() for part in words)


def build_parser() -> Parser:
    """Return the parser of all commands."""
    called = "python -m lsf" if Path(sys.argv[0]).name == "__main__.py" else "lsf"  # what can be typed again
    parser = Parser(prog=called, description="Which layers of a language model are worth tuning, with evidence.")
    parser.add_argument("--version", action="version", version=f"lsf {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    analyze_options(commands.add_parser("analyze", help="score every block by the criteria, in one pass over examples"))
    data_options(commands.add_parser("data", help="show what a data file holds, and its rows as a model gets them"))
    plan_options(commands.add_parser("plan", help="turn the scores into a plan within a budget"))
    try_options(commands.add_parser("try", help="tune neighbours at five depths and some rates briefly; plan the best"))
    tune_options(commands.add_parser("tune", help="fine-tune once, in the foreground"))
    compare_options(commands.add_parser("compare", help="compare runs: one row each, with ratios to the full run"))
    ask_options(commands.add_parser("ask", help="have the base model and tuned ones answer your own prompt"))
    graft_options(
        commands.add_parser("graft", help="measure what each tuned block brings alone, and what is lost without it")
    )
    sweep_options(commands.add_parser("sweep", help="measure the truth: tune every block, suffix or window"))
    evidence_options(commands.add_parser("evidence", help="count your own sweeps as evidence for the recommendation"))
    dimension_options(commands.add_parser("dimension", help="measure how few numbers a task needs: d_90"))
    beacons_options(commands.add_parser("beacons", help="choose training examples by semantic distance, and at random"))
    edit_options(commands.add_parser("edit", help="edit facts into one window of blocks after another"))
    merge_options(commands.add_parser("merge", help="merge what a run tuned into a plain model"))
    export_options(commands.add_parser("export", help="write a plan for another trainer"))
    runs_options(commands.add_parser("runs", help="list, show, bundle or delete runs"))
    class_options(commands.add_parser("class", help="serve the lessons to a class on the network"))
    demo_options(commands.add_parser("demo", help="describe the bundled model and its lessons, or pretrain it again"))
    return parser
