"""The study behind the recommendation: the measured truth on several models and tasks, and every criterion's regret.

`python benchmarks/evidence.py [--sites bundled-facts,...] [--seconds 60]` measures what is missing and can be ended and
started at any time; `--report` prints the table from the committed results; `--again SITE:PLAN:SEED` measures one cell
from scratch beside the committed one.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.sites import SITES, Site
from lsf.files import finite, write_text
from lsf.jobs.sweep import Sweep, SweepSpec, parse_sweep
from lsf.reporting import Stop

FOLDER = Path(__file__).parent / "evidence"
STAGES = (("single", 2), ("single,window:2", 2), ("single,window:2", 3), ("single,window:2,suffix", 3))
"""(Plans, seeds), measured on every site before the next stage begins."""


class Clock:
    """A reporter that asks to stop after so many seconds and prints what is being done."""

    def __init__(self, seconds: float) -> None:
        """Start the clock."""
        self.end = time.monotonic() + seconds
        self.told = ""

    @property
    def stop(self) -> Stop | None:
        """Pause, once the time is over."""
        return "pause" if time.monotonic() > self.end else None

    def progress(self, done: int, total: int | None, message: str = "") -> None:
        """Print one line per run."""
        line = f"{message} ({done} of {total})"
        if line != self.told:
            print(line, file=sys.stderr, flush=True)
        self.told = line

    def partial(self, value: Any) -> None:
        """Files are written by `measure`."""


def path_of(site: Site) -> Path:
    """Return the file of a site's results."""
    return FOLDER / f"{site.name}.json"


def write_site(site: Site, sweep: Sweep, scores: dict[str, Any] | None) -> None:
    """Write what is known of a site, compactly."""
    value = {"metric": site.metric, "sweep": sweep.to_json(), "criteria": scores}
    text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    write_text(path_of(site), text.replace('{"plan":', '\n{"plan":') + "\n")


def read_site(site: Site) -> tuple[Sweep | None, dict[str, Any] | None]:
    """Return a site's sweep and its criteria's scores, as far as they are there."""
    if not path_of(site).exists():
        return None, None
    value = json.loads(path_of(site).read_text(encoding="utf-8"))
    return parse_sweep(value["sweep"], str(path_of(site))), value["criteria"]


def spec_of(site: Site, over: str, seeds: int) -> SweepSpec:
    """Return what a stage asks of a site."""
    return SweepSpec(site.model, site.name, over, seeds=seeds, steps=site.steps, dtype="float32", device="cpu")


def measure(site: Site, over: str, seeds: int, clock: Clock) -> None:
    """Measure what one stage lacks on one site; files are written after every run."""
    earlier, scores = read_site(site)
    if earlier is not None and _covers(earlier, over, seeds) and scores is not None:
        return
    from lsf.measure.loading import load_model  # noqa: PLC0415 torch, only where there is work
    from lsf.training.sweeping import carry_out_sweep, start_sweep  # noqa: PLC0415

    print(f"{site.name}: {over}, {seeds} seeds", file=sys.stderr, flush=True)
    loaded, task = load_model(site.folder, "float32", "cpu"), site.task()
    sweep = start_sweep(loaded, task, spec_of(site, over, seeds), earlier)
    if scores is None:
        scores = score(loaded, task)
        write_site(site, sweep, scores)
    carry_out_sweep(loaded, task, sweep, clock, lambda known: write_site(site, known, scores))


def _covers(sweep: Sweep, over: str, seeds: int) -> bool:
    """Say whether a stage has nothing left to do; a run that failed is not tried again here."""
    asked = set(over.split(","))
    tried = all(cell.reason != "not measured yet" for cell in sweep.cells)
    return tried and asked <= set(sweep.spec.over.split(",")) and seeds <= sweep.spec.seeds


def score(loaded: Any, task: Any) -> dict[str, Any]:
    """Score the blocks by every criterion on training rows, and say how long each need took by itself."""
    from lsf.analysis.criteria import CRITERIA  # noqa: PLC0415
    from lsf.analysis.settings import AnalysisSettings  # noqa: PLC0415
    from lsf.measure.analyze import analyze  # noqa: PLC0415
    from lsf.reporting import Silent  # noqa: PLC0415
    from lsf.training.probing import probe_blocks  # noqa: PLC0415

    found: dict[str, Any] = {"scores": {}, "seconds": {}, "blocks": None}
    for need in dict.fromkeys(entry.needs for entry in CRITERIA.values()):
        names = tuple(name for name, entry in CRITERIA.items() if entry.needs == need)
        settings = AnalysisSettings(criteria=names, split="train")
        begun = time.perf_counter()
        analysis = analyze(loaded, task, settings, Silent(), probe_blocks)
        found["seconds"][need] = round(time.perf_counter() - begun, 3)
        found["scores"] |= {name: analysis.scores(name) for name in names}
        found["params"] = [block.n_params for block in analysis.blocks]
    del found["blocks"]
    return found


def main() -> None:
    """Measure for as long as asked, or print the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sites", default=",".join(SITES), help="names, separated by commas; default: all")
    parser.add_argument("--seconds", type=float, default=1e9, help="after which it ends, between two steps")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    clock = Clock(options.seconds)
    for over, seeds in STAGES:
        for name in options.sites.split(","):
            if SITES[name].there and clock.stop is None:
                measure(SITES[name], over, seeds, clock)
    if clock.stop is None:
        print("everything is measured", flush=True)


if __name__ == "__main__":
    main()
