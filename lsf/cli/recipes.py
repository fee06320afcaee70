"""`edit`, `merge`, `beacons`: facts edited in windows, tuning on top of what was tuned, examples chosen by distance."""

import argparse
from dataclasses import asdict

from lsf.cli.arguments import (
    add_settings,
    check_file,
    check_seed,
    check_writable,
    given_settings,
    load_asked_model,
    load_asked_task,
    number,
    place,
    source_options,
    whole,
)
from lsf.cli.terminal import TerminalReporter, keeping, say_stopped
from lsf.data.contents import Document
from lsf.data.formats import example_line
from lsf.data.lessons import EDIT_OPTIONS, EditSettings
from lsf.environment import spare_imports
from lsf.errors import BadInputError
from lsf.files import make_folder, write_json, write_text
from lsf.runs.store import tuned_run
from lsf.settings import QUANTISED
from lsf.wording import counted


def edit_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `edit`."""
    parser.add_argument("--dtype", default="auto", help=argparse.SUPPRESS)
    parser.add_argument("--device", default="auto", help="where to run [default: auto]")
    add_settings(parser, EditSettings, EDIT_OPTIONS)
    parser.add_argument("--json", type=place, metavar="OUT", help="file to write")
    parser.set_defaults(command=edit_command, model="bundled")


def edit_command(arguments: argparse.Namespace) -> int:
    """Edit the lesson `facts` into one window after another; Ctrl-C ends it with those measured, a second at once."""
    settings = EditSettings(**given_settings(arguments, EditSettings))
    check_file(arguments.json)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.training.short_runs import edit_windows

        spare_imports()
        with keeping(reporter):
            found = edit_windows(loaded, settings, reporter)
    print(f"{'blocks':<10}{'values':>9}" + "".join(f"{name:>13}" for name in found[0].right))
    for one in found:
        blocks = f"{one.blocks[0]}-{one.blocks[-1]}" if one.blocks else "base"
        print(f"{blocks:<10}{one.values:>9}" + "".join(f"{value:>13.3f}" for value in one.right.values()))
    if arguments.json:
        asked = len(settings.windows(loaded.info.n_blocks))  # of which a stop leaves out the last
        windows = [asdict(one) for one in found]
        write_json(arguments.json, {"schema_version": 1, "n_windows": asked, "windows": windows})
    return 0 if reporter.stop is None else say_stopped(arguments.json or "the table")


def merge_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `merge`."""
    parser.add_argument("--run", type=place, required=True, metavar="RUN", help="folder of a finished run")
    parser.add_argument("--out", type=place, required=True, metavar="DIR", help="folder to write the model to")
    parser.set_defaults(command=merge_command)


def merge_command(arguments: argparse.Namespace) -> int:
    """Write what a run tuned as a plain model, on top of which the next run can tune."""
    _, spec = tuned_run(arguments.run)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise BadInputError(f"{arguments.out} already exists; --out names a folder that is new or empty.")
    check_writable(arguments.out)
    with TerminalReporter() as reporter:
        loaded = load_asked_model(spec, reporter)
    from lsf.training.artefacts import save_merged

    spare_imports()
    lost = save_merged(arguments.run, loaded, arguments.out)
    print(f"{spec.how} on {spec.plan.label} of {spec.model} -> {arguments.out}")
    packed = f"The base is held in {loaded.info.dtype} and was dequantised. " if loaded.info.dtype in QUANTISED else ""
    print(f"{packed}{lost.words}")
    return 0


CHOICES = ("filter", "reweight", "random")
"""Files of `beacons`: chosen greedily by distance, drawn by its weights, and drawn evenly."""


def beacons_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `beacons`."""
    source_options(parser)
    parser.add_argument("--count", type=whole, required=True, help="training examples to keep")
    softness = "softness of the weights (0.001 to 1000) [default: 0.2]"
    parser.add_argument("--tau", type=number, default=0.2, help=softness)
    parser.add_argument("--seed", type=whole, default=0, help="seed of the random choices [default: 0]")
    parser.add_argument(
        "--against", metavar="MODEL", help="folder of a tuned model: count the examples whose distance fell"
    )
    parser.add_argument("--out", type=place, required=True, metavar="DIR", help="folder for the files")
    parser.set_defaults(command=beacons_command)


def beacons_command(arguments: argparse.Namespace) -> int:
    """Choose training examples by their semantic distance, and as many at random, each as a file to tune on."""
    check_writable(arguments.out)
    if not 0.001 <= arguments.tau <= 1000:  # not a number neither
        raise BadInputError(f"tau is {arguments.tau:g}; it must lie between 0.001 and 1000.")
    check_seed(arguments.seed)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise BadInputError(f"{arguments.out} is a file; --out names a folder.")
    if arguments.out.is_dir():
        check_file(*(arguments.out / f"{name}.jsonl" for name in CHOICES), read=(arguments.data,))
    task = load_asked_task(arguments)
    if any(isinstance(example.content, Document) for example in task.train):
        raise BadInputError(f"beacons measures answers; {task.name} has rows of plain text, in which none begins.")
    with TerminalReporter() as reporter:
        loaded = load_asked_model(arguments, reporter)
        from lsf.data.encode import encode
        from lsf.models.loading import check_ids
        from lsf.training.reweighting import check_count, control, drawn, fell, filtered, target_distances

        spare_imports()
        encoding = encode(loaded.tokenizer, task.train, loaded.context)
        if encoding.n_dropped:
            does, them = ("does", "it") if encoding.n_dropped == 1 else ("do", "them")
            left_out = counted(encoding.n_dropped, "training example")
            raise BadInputError(f"{left_out} {does} not fit the context; remove {them} first.")
        check_ids(loaded, encoding.rows)
        check_count(len(encoding.rows), arguments.count)
        distance = target_distances(loaded.layout, encoding.rows)
        if arguments.against:
            arguments.model = arguments.against
            tuned = load_asked_model(arguments, reporter)
            check_ids(tuned, encoding.rows)
            later = target_distances(tuned.layout, encoding.rows)
            print(f"the distance fell for {fell(distance, later):.1%} of {counted(len(distance), 'example')}")
    count, seed = arguments.count, arguments.seed
    chosen = (
        filtered(distance, count),
        drawn(distance, count, arguments.tau, seed),
        control(len(distance), count, seed),
    )
    held_out = [example_line(one, split) for split in ("validation", "test") for one in getattr(task, split)]
    make_folder(arguments.out)
    for name, indices in zip(CHOICES, chosen, strict=True):
        lines = [example_line(encoding.rows[index].example, "train") for index in indices]
        write_text(arguments.out / f"{name}.jsonl", "".join([*lines, *held_out]))
        kept = distance[indices]
        spread = f" +- {kept.std(ddof=1):.3f}" if len(kept) > 1 else ""
        print(f"{name:<9} {counted(len(indices), 'example')}, distance {kept.mean():.3f}{spread}")
    print(
        f"each with the {len(task.validation)} validation and {counted(len(task.test), 'test row')} of {task.name} "
        f"-> {', '.join(str(arguments.out / f'{name}.jsonl') for name in CHOICES)}"
    )
    return 0
