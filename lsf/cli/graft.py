"""`graft`: tuned blocks of a run in the base model, and the base's in the tuned one: each alone, or some together."""

import argparse
import json
from dataclasses import replace
from pathlib import Path

from lsf.cli.arguments import asked_run, check_file, load_asked_model, load_asked_task, place, run_option
from lsf.cli.ask import answer_prompts
from lsf.cli.terminal import TerminalReporter
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.files import write_json
from lsf.plans.plan import parse_blocks
from lsf.runs.answers import AnswerSettings, Voice
from lsf.runs.graft import Difference, Graft, Mixture, Reading, Way, which_did_it
from lsf.runs.store import tuned_run
from lsf.wording import counted


def graft_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `graft`."""
    run_option(parser, "folder of a run that has ended; the graft of all its blocks is kept there as graft.json")
    parser.add_argument("--blocks", help="exchange these together, such as 3,5-7, and nothing else")
    parser.add_argument(
        "--from", dest="source", choices=("base", "tuned"),
        help="the model the blocks come from: the tuned one's go into the base model, or the base's into the tuned one",
    )  # fmt: skip
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument(
        "--prompt", action="append", metavar="TEXT", help="with --blocks: a prompt to answer; repeat for more"
    )
    instead.add_argument("--data", help="with --blocks: data whose test rows are read; default: the run's own")
    parser.add_argument("--json", type=place, metavar="OUT", help="file to write, or - for the terminal")
    parser.set_defaults(command=graft_command)


def graft_command(arguments: argparse.Namespace) -> int:
    """Measure the graft of a run, keep it in the run's folder and print it; or what some blocks do together."""
    to_terminal = arguments.json == Path("-")
    check_file(None if to_terminal else arguments.json, read=(arguments.data,))
    _refuse_halves(arguments)
    folder = asked_run(arguments)
    run, spec = tuned_run(folder)
    blocks = None if arguments.blocks is None else parse_blocks(arguments.blocks, spec.plan.n_blocks)
    if blocks is not None and arguments.prompt:
        way: Way = "alone" if arguments.source == "tuned" else "without"
        voices = [Voice(), Voice(folder, way, blocks), Voice(folder)]
        return answer_prompts(spec, voices, {folder: run}, arguments.prompt, AnswerSettings(), arguments.json)
    with TerminalReporter() as reporter:
        asked = spec if arguments.data is None else replace(spec, data=arguments.data, general=None)
        task = load_asked_task(asked, named_here=arguments.data is not None)
        loaded = load_asked_model(spec, reporter)
        from lsf.training.graft import measure_graft, measure_mixture

        spare_imports()
        if blocks is None:
            found = measure_graft(loaded, task, folder, reporter)
        else:
            found = measure_mixture(loaded, task, folder, blocks, arguments.source, reporter)
    if to_terminal:
        print(json.dumps(found.to_json(), indent=1))
        return 0
    print("\n".join(graft_lines(found) if isinstance(found, Graft) else mixture_lines(found)))
    if arguments.json:
        write_json(arguments.json, found.to_json())
    return 0


def _refuse_halves(arguments: argparse.Namespace) -> None:
    """Refuse a question of which a half is missing."""
    if (arguments.blocks is None) != (arguments.source is None):
        raise BadInputError("--blocks and --from go together: which blocks, and from which model, base or tuned.")
    if arguments.blocks is None and (arguments.prompt or arguments.data):
        raise BadInputError("--prompt and --data are for chosen blocks; add --blocks, such as 3,5-7, and --from.")


def mixture_lines(found: Mixture) -> list[str]:
    """Return what some blocks do together as lines of text."""
    rows = (("base model", found.base), (found.name, found.mixed), ("tuned model", found.tuned))
    width = max(len(name) for name, _ in rows)
    lines = [f"{counted(found.n_rows, 'test row')} of {found.data}", f"{'':<{width}}    loss   exact"]
    lines += [f"{name:<{width}}{_numbers(reading, None)}" for name, reading in rows]
    for words, nats, exact in (
        ("better than the base model by", found.over_base, found.over_base_exact),
        ("worse than the tuned model by", found.below_tuned, found.below_tuned_exact),
    ):
        by_loss = "a loss that is not finite" if nats is None else f"{nats.mean:.3g} nats ({nats.words})"
        lines.append(f"{words} {by_loss}, exact match by {exact.mean:.3g} ({exact.words}); 95 % intervals over rows")
    return lines


def graft_lines(found: Graft) -> list[str]:
    """Return a graft as lines of text: a table, what its numbers are, and the answer."""
    rows = [
        ("floor", found.floor, None),
        ("base model", found.base, None),
        *((f"base + {part.name}", part.alone.reading, part.alone.by_loss) for part in found.parts),
        ("tuned model", found.tuned, found.gain),
        *((f"tuned - {part.name}", part.without.reading, part.without.by_loss) for part in found.parts),
    ]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':<{width}}    loss   exact   nats over the floor, or lost, with 95 % interval"]
    lines += [f"{name:<{width}}{_numbers(reading, difference)}" for name, reading, difference in rows]
    return [*lines, *filter(None, which_did_it(found))]


def _numbers(reading: Reading, difference: Difference | None) -> str:
    loss = "   not finite" if reading.loss is None else f"{reading.loss:8.3f}"
    told = "" if difference is None else f"   {difference.mean:+.3f} ({difference.words})"
    return f"{loss}{reading.exact_match:8.3f}{told}"
