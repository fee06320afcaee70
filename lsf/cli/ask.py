"""`ask`: a person's own prompt, answered by the base model and by what runs made of it, token by token."""

import argparse
import json
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lsf.cli.arguments import add_settings, asked_runs, check_file, given_settings, load_asked_model, place, run_option
from lsf.cli.terminal import TerminalReporter
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.files import write_json
from lsf.runs.answers import Answer, AnswerSettings, Voice
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run, tuned_run

WIDTH = 100
"""Characters of a line with the lens."""


def ask_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `ask`."""
    run_option(parser, "folders of runs that tuned the same model", several=True)
    parser.add_argument(
        "--prompt", action="append", required=True, metavar="TEXT", help="prompt to answer; repeat for more"
    )
    add_settings(parser, AnswerSettings, ("tokens", "seed"))
    parser.add_argument("--json", type=place, metavar="OUT", help="file to write, or - for the terminal")
    parser.set_defaults(command=ask_command)


def ask_command(arguments: argparse.Namespace) -> int:
    """Let the base model and each run's answer every prompt, streaming, with the lens under each answer."""
    settings = AnswerSettings(**given_settings(arguments, AnswerSettings))
    check_file(None if arguments.json == Path("-") else arguments.json)
    runs = {folder: tuned_run(folder)[0] for folder in asked_runs(arguments)}
    voices = [Voice(), *map(Voice, runs)]
    return answer_prompts(_common_spec(runs), voices, runs, arguments.prompt, settings, arguments.json)


def answer_prompts(
    spec: RunSpec,
    voices: Sequence[Voice],
    runs: Mapping[Path, Run],
    prompts: list[str],
    settings: AnswerSettings,
    out: Path | None,
) -> int:
    """Let models answer prompts on the terminal as they write, and write the answers to a file where one is asked for.

    Args:
        spec: of a run whose base all of them share.
        voices: who answers.
        runs: those of the voices, by their folders.
        prompts: to be answered.
        settings: how they write.
        out: a file, `-` for the terminal alone, or None.
    """
    to_terminal = out == Path("-")
    with TerminalReporter() as reporter:
        loaded = load_asked_model(spec, reporter)
        from lsf.training.asking import ask

        spare_imports()
    shown = _Shown(prompts, runs, settings, quiet=to_terminal)
    answers = ask(loaded, voices, prompts, settings, shown.tell)
    plain = {
        "schema_version": 1,
        "model": spec.model,
        "prompts": prompts,
        "settings": asdict(settings),
        "answers": [{**asdict(answer), "voice": _name(answer.voice, runs)} for answer in answers],
    }
    if to_terminal:
        print(json.dumps(plain, indent=1, ensure_ascii=False))
    elif out:
        write_json(out, plain)
    return 0


def _common_spec(runs: Mapping[Path, Run]) -> Any:
    """Return the spec of the first run, whose base is everybody's.

    Raises:
        BadInputError: two of them tuned different models.
    """
    first, *others = runs.values()
    assert first.spec is not None
    assert first.result is not None
    for run in others:
        if run.spec is not None and run.result is not None and run.result.weights != first.result.weights:
            raise BadInputError(
                f"{run.id} tuned {run.spec.model} and {first.id} tuned {first.spec.model}, whose weights differ; ask "
                "runs of one model at a time."
            )
    return first.spec


def _name(voice: Voice, runs: Mapping[Path, Run]) -> str:
    run = None if voice.run is None else runs[voice.run]
    if run is None or run.spec is None:
        return voice.words
    graft = f"{voice.words}: " if voice.way else ""
    return f"{graft}{run.spec.plan.label}, {run.spec.how} ({run.id})"


class _Shown:
    """Writes answers to the terminal as they come."""

    def __init__(self, prompts: list[str], runs: Mapping[Path, Run], settings: AnswerSettings, quiet: bool) -> None:
        self._prompts, self._runs, self._quiet = prompts, runs, quiet
        self._now: tuple[Voice, int] | None = None
        self._written = ""
        if not quiet:
            print(f"At most {settings.tokens} new tokens; {settings.words}.")

    def tell(self, answer: Answer) -> None:
        """Write what is new of an answer."""
        if self._quiet:
            return
        if (answer.voice, answer.prompt) != self._now:
            self._now, self._written = (answer.voice, answer.prompt), ""
            print(f"\n{_name(answer.voice, self._runs)}, the prompt {answer.rendering}")
            sys.stdout.write(f"{_printable(self._prompts[answer.prompt])} >")
        text = _printable(answer.text)
        sys.stdout.write(text.removeprefix(self._written) if text.startswith(self._written) else f"\n>{text}")
        sys.stdout.flush()
        self._written = text
        if answer.done:
            print("" if answer.ended else " ...")
            print(lens_lines(answer))


def _printable(text: str) -> str:
    """Return a text without what would steer a terminal."""
    return "".join(one if one.isprintable() or one in "\n\t" else "\ufffd" for one in text)


def lens_lines(answer: Answer) -> str:
    """Return the most likely token of every state at the prompt's last position, as lines of text."""
    from lsf.figures.palette import visible

    cells = [
        f"{'embedding' if state == 0 else state - 1}\xa0{_printable(visible(one.token))}\xa0{one.probability:.0%}"
        for state, one in enumerate(answer.lens)
    ]
    lines = textwrap.wrap("   ".join(cells), WIDTH, initial_indent="  by block: ", subsequent_indent="    ",
                          break_long_words=False, break_on_hyphens=False)  # fmt: skip
    return "\n".join(lines).replace("\xa0", " ")
