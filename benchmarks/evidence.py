"""The study behind the recommendation: the measured truth on several models and tasks, and every criterion's regret.

`python benchmarks/evidence.py [--settings bundled-facts,...] [--seconds 60]` measures what is missing and can be
ended and started at any time; of settings that are measured, `--scores` adds what new criteria say and `--costs`
times the recommendation beside a full fine-tune, `--priors` adds the best answer that ignores the prompt; `--report`
prints all that the committed results say, `--tables` what stands in docs/results; `--cell SETTING:PLAN:SEED` measures
one cell from scratch beside the committed one;
`--pack` puts what the app shows into the package. With `--real` it is the sweep on SmolLM2-135M that is measured
(`--model FOLDER`, `--tasks`), reported or packed.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.evidence_costs import in_turn
from benchmarks.evidence_files import RATES, find_site, read_site, write_site
from benchmarks.evidence_report import print_report
from benchmarks.evidence_scores import AFFORDABLE, missing_needs, scored
from benchmarks.evidence_tables import print_tables
from benchmarks.settings import SETTINGS, Setting
from lsf.environment import spare_imports
from lsf.evidence.packed import pack
from lsf.evidence.sweep import BASE, FULL, NOT_YET, Cell, Rate, Sweep, SweepSpec
from lsf.progress import Stop, Unheard

STAGES = (
    ("*-shakespeare", "single,window:2,ends:2", 3),
    ("*-trec", "single,window:2,ends:2", 3),
    ("bundled-*", "single,window:2,ends:2", 3),
    ("*-alpaca", "single,window:2,ends:2", 3),
    ("*-sst2", "single,window:2,ends:2", 3),
    ("reseeded-*", "single,window:2,ends:2", 3),
    ("*12-*", "single,window:2,window:3,ends:2,ends:3", 3),
    ("bundled-*", "single,window:2,ends:2,suffix", 3),
    ("*x8-*", "single,window:2,ends:2", 3),
    ("wide6-*", "single,window:2,ends:2", 3),
)
"""(Settings, plans, seeds), in the order in which they are measured."""


class Clock(Unheard):
    """A reporter that asks to stop after so many seconds and prints what is being done."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self.end = time.monotonic() + seconds
        self.told = ""

    @property
    def stop(self) -> Stop | None:
        """Pause, once the time is over."""
        return "pause" if time.monotonic() > self.end else None

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        """Print one line per run."""
        line = f"{message} ({done} of {total})"
        if line != self.told:
            print(line, file=sys.stderr, flush=True)
        self.told = line

    def partial(self, value: Any) -> None:
        """Files are written by `measure`."""


def spec_of(setting: Setting, over: str, seeds: int) -> SweepSpec:
    """Return what a stage asks of a setting."""
    return SweepSpec(
        setting.model,
        setting.name,
        over,
        seeds=seeds,
        steps=setting.steps,
        batch_size=setting.batch_size,
        eval_limit=setting.eval_limit,
        dtype="float32",
        device="cpu",
    )


def measure(setting: Setting, over: str, seeds: int, clock: Clock) -> None:
    """Measure what one stage lacks on one setting; files are written after every run."""
    earlier, scores = read_site(setting.name)
    if earlier is not None and _covers(earlier, over, seeds) and _scored(scores):
        return
    from lsf.evidence.sweeping import (  # noqa: PLC0415
        carry_out_sweep,
        start_sweep,
    )
    from lsf.models.loading import load_model  # noqa: PLC0415 torch, only where there is work

    print(f"{setting.name}: {over}, {seeds} seeds", file=sys.stderr, flush=True)
    loaded, task = load_model(setting.folder, "float32", "cpu"), setting.task()
    sweep = start_sweep(loaded, task, spec_of(setting, over, seeds), earlier)
    sweep = replace(sweep, rates={**known_rates(setting, sweep), **sweep.rates})
    if not _scored(scores):
        scores = scored(loaded, task, setting.steps * setting.batch_size, scores)
        write_site(setting.name, setting.metric, sweep, scores)
    sweep = searched_rates(loaded, task, sweep, clock)
    carry_out_sweep(loaded, task, sweep, clock, lambda known: write_site(setting.name, setting.metric, known, scores))


def searched_rates(loaded: Any, task: Any, sweep: Sweep, clock: Clock) -> Sweep:
    """Search one rate per number of tuned blocks, on the plan in the middle; the others of that size take it over.

    A search takes whole runs under seed 0, judged on validation; its best run is a cell of the sweep.
    """
    from lsf.evidence.sweeping import carry_out_sweep  # noqa: PLC0415

    for size in sorted({len(cell.blocks) for cell in sweep.cells if cell.plan != BASE}):
        plans = list(dict.fromkeys(cell.plan for cell in sweep.cells if len(cell.blocks) == size))
        middle = plans[len(plans) // 2]
        if clock.stop is not None or any(plan in sweep.rates for plan in plans):
            continue
        asked = tuple(cell for cell in sweep.cells if cell.plan == BASE or cell.key == (middle, 0))
        done = carry_out_sweep(loaded, task, replace(sweep, cells=asked), clock, lambda _sweep: None)
        measured = {cell.key: cell for cell in done.cells if cell.after is not None}
        cells = tuple(measured.get(cell.key, cell) for cell in sweep.cells)
        if middle not in done.rates:
            continue
        rates = {plan: Rate(done.rates[middle].learning_rate, ()) for plan in plans}
        rates = {**sweep.rates, **rates, middle: done.rates[middle]}
        sweep = replace(sweep, cells=cells, rates=rates, seconds=done.seconds)
    return sweep


def known_rates(setting: Setting, sweep: Sweep) -> dict[str, Rate]:
    """Return rates that need no search: those of the table of lessons, and what follows for several blocks.

    The table has the best rates of single blocks and of the whole model. Two blocks of the same best rate take it over;
    of two that differ it is searched. More than two take the lowest rate of theirs and the whole model's. Other
    settings search a rate per number of blocks.
    """
    table = json.loads(RATES.read_text(encoding="utf-8")).get(setting.name.removeprefix("bundled-"))
    if table is None:
        return {}
    found = {place: Rate(rate, ()) for place, rate in table.items()}
    for cell in sweep.cells:
        parts = {table[str(block)] for block in cell.blocks}
        if len(cell.blocks) == 2 and len(parts) == 1:
            found[cell.plan] = Rate(parts.pop(), ())
        elif len(cell.blocks) > 2 and cell.plan not in found:
            found[cell.plan] = Rate(min(*parts, table[FULL]), ())
    return found


def revisit(setting: Setting, costs: bool) -> None:
    """Add to a measured setting what new criteria say, or what the recommendation costs on a quiet machine."""
    sweep, scores = read_site(setting.name)
    if sweep is None or scores is None or not setting.there or (_scored(scores) and not costs):
        return
    from lsf.models.loading import load_model  # noqa: PLC0415

    print(setting.name, file=sys.stderr, flush=True)
    loaded, task = load_model(setting.folder, "float32", "cpu"), setting.task()
    if costs:
        scores |= {"in_turn": in_turn(loaded, task, sweep, scores["small"]["limits"])}
    else:
        scores |= scored(loaded, task, setting.steps * setting.batch_size, scores)
    write_site(setting.name, setting.metric, sweep, scores)


def add_prior(setting: Setting) -> None:
    """Add to a measured setting what the best answer that ignores the prompt comes to; no model is run.

    Where a model of `benchmarks.pretrained` is not there the bundled one stands in: it has the same tokens.
    """
    sweep, scores = read_site(setting.name)
    if sweep is None or sweep.prior is not None:
        return
    from lsf.evidence.sweeping import prior_score  # noqa: PLC0415
    from lsf.models.loading import load_model  # noqa: PLC0415

    loaded, task = load_model(setting.folder if setting.there else "bundled", "float32", "cpu"), setting.task()
    if task.fingerprint != sweep.fingerprint:
        raise SystemExit(f"The data of {setting.name} are not those that it was measured on.")
    prior = prior_score(loaded, task, sweep.spec)
    print(f"{setting.name}: {prior}", file=sys.stderr, flush=True)
    write_site(setting.name, setting.metric, replace(sweep, prior=prior), scores)


def _scored(scores: dict[str, Any] | None) -> bool:
    return scores is not None and not missing_needs(scores) and not missing_needs(scores.get("small", {}), AFFORDABLE)


def _covers(sweep: Sweep, over: str, seeds: int) -> bool:
    """Say whether a stage has nothing left to do; a run that failed is not tried again here."""
    asked = set(over.split(","))
    tried = all(cell.reason != NOT_YET for cell in sweep.cells)
    return tried and asked <= set(sweep.spec.over.split(",")) and seeds <= sweep.spec.seeds


def again(asked: str) -> None:
    """Measure one committed cell from scratch, at its committed rate, and print both.

    Args:
        asked: SETTING:PLAN:SEED, such as `bundled-facts:5:0`.
    """
    name, plan, seed = asked.split(":")
    known, _ = read_site(name)
    if known is None:
        raise SystemExit(f"There are no results of {name!r}; there are: {', '.join(SETTINGS)}.")
    by_key = {cell.key: cell for cell in known.cells if cell.after is not None}
    cell = by_key.get((plan, int(seed)))
    if cell is None or cell.learning_rate is None:
        raise SystemExit(f"{name} has no measured plan {plan!r} of seed {seed}.")
    from lsf.evidence.sweeping import (  # noqa: PLC0415
        carry_out_sweep,
        start_sweep,
    )
    from lsf.models.loading import load_model  # noqa: PLC0415

    setting = SETTINGS[name]
    if not setting.there:
        raise SystemExit(
            f"The model of {name} is not at {setting.folder}; benchmarks/pretrained.py makes it, or shared/ has it."
        )
    loaded, task = load_model(setting.folder, "float32", "cpu"), setting.task()
    fresh = start_sweep(loaded, task, spec_of(setting, "single", 1))
    cells = (fresh.cells[0], Cell(plan, cell.blocks, cell.seed))
    fresh = replace(fresh, cells=cells, rates={plan: Rate(cell.learning_rate, ())})
    done = carry_out_sweep(loaded, task, fresh, Clock(1e9), lambda _sweep: None)
    print(f"committed: {cell.after}\nagain:     {done.cells[1].after}")
    others = [one.after for key, one in by_key.items() if key[0] == plan]
    print("all seeds: " + ", ".join(f"{score.exact_match} / {score.loss}" for score in others if score))


def real(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Measure the sweep on a real model, or report it."""
    from benchmarks.real_packing import pack_measured  # noqa: PLC0415
    from benchmarks.real_plans import TASKS  # noqa: PLC0415
    from benchmarks.real_sweep import again as run_again  # noqa: PLC0415
    from benchmarks.real_sweep import measure  # noqa: PLC0415
    from benchmarks.real_sweep_report import report  # noqa: PLC0415
    from benchmarks.real_tasks import find_facts  # noqa: PLC0415

    if options.report:
        print(report())
        return
    if options.model is None:
        parser.error("--model: the folder of SmolLM2-135M-Instruct is needed with --real")
    tasks = options.tasks.split(",") if options.tasks else TASKS
    if unknown := [name for name in tasks if name not in TASKS]:
        parser.error(f"--tasks: {', '.join(unknown)} is none of {', '.join(TASKS)}")
    if options.pack:
        pack_measured(options.model)
    elif options.cell:
        run_again(options.model, options.cell)
    elif options.facts:
        find_facts(options.model)
    else:
        measure(options.model, tasks, options.seconds, options.most)


def main() -> None:
    """Measure for as long as asked, or print the report."""
    spare_imports()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", default=",".join(SETTINGS), help="names, separated by commas; default: all")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which it ends, between two steps")
    parser.add_argument("--report", action="store_true", help="print the table from the committed results")
    parser.add_argument("--tables", action="store_true", help="print the tables of docs/results/evidence.md")
    parser.add_argument("--scores", action="store_true", help="only score new criteria on settings that are measured")
    parser.add_argument("--costs", action="store_true", help="time the recommendation and a full fine-tune in turn")
    parser.add_argument("--priors", action="store_true", help="only add the best answer that ignores the prompt")
    parser.add_argument("--pack", action="store_true", help="write lsf/evidence/measured.json for the app")
    parser.add_argument(
        "--cell", metavar="SETTING:PLAN:SEED", help="measure one cell from scratch (TASK:PLAN:SEED with --real)"
    )
    parser.add_argument("--real", action="store_true", help="the sweep on a real model (benchmarks/real_sweep.py)")
    parser.add_argument("--model", help="with --real: folder of SmolLM2-135M-Instruct")
    parser.add_argument("--tasks", help="with --real: names, separated by commas; default: all")
    parser.add_argument("--most", type=int, help="with --real: runs and analyses at most")
    parser.add_argument("--facts", action="store_true", help="with --real: find the facts that the model knows")
    options = parser.parse_args()
    if options.real:
        real(options, parser)
        return
    names = options.settings.split(",")
    if options.pack or options.report or options.tables:
        found = {name: find_site(name, SETTINGS[name].metric) for name in (SETTINGS if options.pack else names)}
        known = [one for one in found.values() if one is not None]
        if options.pack:
            pack([one.small for one in known])
            return
        (print_tables if options.tables else print_report)(known)
        print("\nnot measured yet: " + (", ".join(name for name, one in found.items() if one is None) or "nothing"))
        return
    if options.cell:
        again(options.cell)
        return
    if options.scores or options.costs or options.priors:
        for name in names:
            add_prior(SETTINGS[name]) if options.priors else revisit(SETTINGS[name], options.costs)
        return
    clock = Clock(options.seconds)
    for pattern, over, seeds in STAGES:
        for name in names:
            if fnmatch(name, pattern) and SETTINGS[name].there and clock.stop is None:
                measure(SETTINGS[name], over, seeds, clock)
    if clock.stop is None:
        print("everything is measured", flush=True)


if __name__ == "__main__":
    main()
