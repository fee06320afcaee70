"""d_90 on the bundled model: over lessons, over blocks allowed, along pre-training; kept for the app.

`python benchmarks/dimension.py [--parts lessons,along,blocks] [--seeds 1] [--cells FILE] [--checkpoints DIR]` prints
the bars and writes `lsf/dimension/dimension.json`, where parts not asked for stay as they are. Every tuning is kept in
FILE and not done again. DIR comes from `python -m lsf demo pretrain --out OUT --checkpoints DIR`. `--done` only puts
together what FILE holds; `--readings` reads the kept tunings by other choices of a rate. How one d_90 is
searched: `benchmarks/dimension_search.py`.
"""

import argparse
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.dimension_search import ALONG, SETTINGS, Store, search
from lsf.data.lessons import LESSONS
from lsf.dimension.study import ALONG as NAMED
from lsf.dimension.study import ASKED, FILE, ROUNDING, Study, along_pretraining, over_blocks, over_lessons
from lsf.environment import spare_imports
from lsf.figures.dimension import fewer, progress_points, spearman
from lsf.files import write_records

FINER = 3
"""Middles between two d of the grid, instead of one, where SAID's and DID's medians are equal."""
Tuning = dict[str, Any]
"""One tuning, as the file holds it."""
Tunings = dict[tuple[str, ...], list[Tuning]]
"""Lesson, method, seed and d -> a tuning per rate."""
Badness = Callable[[Tuning], tuple[float, ...]]
"""What the best rate has the least of."""
LEARNT = 0.5
"""Exact match of full fine-tuning below which a checkpoint has no d_90."""
ALONG_LESSONS = ("facts", "sums")
"""Measured at every checkpoint of the pre-training."""


def lessons(store: Store, seeds: int) -> list[Study]:
    """Measure SAID and DID on the whole model, on every lesson, and print the bar."""
    settings, found = replace(SETTINGS, seeds=seeds), []
    for lesson in LESSONS:
        study = search(store, "bundled", lesson, settings=settings)
        if study is not None and study.d_90("said") is not None and study.d_90("said") == study.d_90("did"):
            study = search(store, "bundled", lesson, settings=replace(settings, bisections=FINER))
        if study is not None:
            found.append(study)
    for study in found:
        _tell(study)
    whole = [study for study in found if {curve.method for curve in study.curves} == set(ASKED)]
    print(f"SAID d_90 < DID d_90 on {fewer(whole)} of {len(whole)} lessons measured (bar: 4 of 6)")
    return found


def blocks(store: Store, seeds: int) -> list[Study]:
    """Measure `facts` where only the deepest blocks may move."""
    settings = replace(SETTINGS, seeds=seeds)
    asked = [search(store, "bundled", "facts", some, settings=settings) for some in ("7", "6,7", "4,5,6,7")]
    found = [study for study in asked if study is not None and study.curves]
    for study in found:
        _tell(study)
    return found


def along(store: Store, checkpoints: Path, seeds: int) -> list[Study]:
    """Measure SAID at every checkpoint and print Spearman's rho."""
    found, settings = [], replace(ALONG, seeds=seeds)
    folders = sorted(checkpoints.iterdir()) if checkpoints.is_dir() else []
    for lesson in ALONG_LESSONS:
        for folder in folders:
            steps = f"{NAMED}{int(folder.name.removeprefix('step-'))}"
            reference = search(store, str(folder), lesson, methods=(), settings=settings)
            if reference is None or reference.full[0].test < LEARNT:
                print(f"{lesson}, {steps}: full fine-tuning does not reach {LEARNT}, or is not measured; left out")
                continue
            study = search(store, str(folder), lesson, methods=("said",), settings=settings)
            if study is not None and study.curves:
                found.append(replace(study, model=steps))
                _tell(found[-1])
        points = progress_points([s for s in found if s.data == f"lesson:{lesson}"], f"lesson:{lesson}")
        print(f"{lesson}: d_90 along pre-training {points}, Spearman {spearman(points)} (bar: below 0)")
    return found


ANNOUNCED = "exact match on validation, then loss"
READINGS: dict[str, Badness] = {
    ANNOUNCED: lambda one: (-one["validation"], one["validation_loss"]),
    "loss on validation": lambda one: (one["validation_loss"],),
    "exact match on test (what is possible)": lambda one: (-one["test"],),
}
"""How the rate at a d may be chosen -> what the best has the least of; searches go by the first."""


def readings(store: Store) -> None:
    """Print d_90 of SAID and DID on the whole model with the rate at each d chosen in several ways, median of seeds."""
    tuned: Tunings = {}
    for key, one in store.known.items():
        base, lesson, where, method, d, _, seed, _ = key.split("|")
        if (base, where) == ("bundled", "all") and one["validation"] is not None:
            tuned.setdefault((lesson, method, seed, d), []).append(one)
    for words, badness in READINGS.items():
        cells = []
        for lesson in LESSONS:
            seeds = sorted({seed for known, _, seed, _ in tuned if known == lesson})
            found = [[_least_d(tuned, (lesson, method, seed), badness) for seed in seeds] for method in ASKED]
            cells.append(" / ".join("-" if math.inf in ds else f"{median(ds):,.0f}" for ds in found))
        print(f"| {words} | {' | '.join(cells)} |")


def _least_d(tuned: Tunings, search: tuple[str, str, str], badness: Badness) -> float:
    """Return the least d at which the best rate reaches the share of full fine-tuning's best; infinite where none."""
    lesson, _, seed = search
    full = min(tuned[lesson, "full", seed, "0"], key=READINGS[ANNOUNCED])
    best = {int(key[3]): min(tries, key=badness) for key, tries in tuned.items() if key[:3] == search}
    return min(
        (d for d, one in best.items() if one["test"] >= SETTINGS.share * full["test"] - ROUNDING), default=math.inf
    )


def _tell(study: Study) -> None:
    """Print a study as rows of a table: base, lesson, blocks, full tuning, method, d_90, exact match at every d."""
    full = ", ".join(f"{point.test:.2f} at {point.rate:g}" for point in study.full)
    for method in dict.fromkeys(curve.method for curve in study.curves):
        tried = []
        for curve in study.of(method):
            points = ", ".join(f"{p.d:,}: {p.test:.2f}" for p in sorted(curve.points, key=lambda point: point.d))
            tried.append(f"seed {curve.seed} (wants {curve.target:.2f}): {points}")
        where = study.data.removeprefix("lesson:"), study.plan.label
        cells = study.model, *where, full, method, study.told(method), "; ".join(tried)
        print(f"| {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure the parts asked for and keep them for the app."""
    spare_imports()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="lessons,along,blocks")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cells", type=Path, default=Path(__file__).with_name("dimension_cells.json"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--done", action="store_true", help="measure nothing; put together what is there")
    parser.add_argument("--readings", action="store_true", help="only read what is there by other choices of a rate")
    asked = parser.parse_args()
    if asked.readings:
        readings(Store(asked.cells, only_kept=True))
        return
    wanted = asked.parts.split(",")
    parts: dict[str, Callable[[Store], list[Study]]] = {
        "lessons": lambda store: lessons(store, asked.seeds),
        "along": lambda store: along(store, asked.checkpoints, asked.seeds),
        "blocks": lambda store: blocks(store, asked.seeds),
    }
    there = {"lessons": over_lessons(), "along": along_pretraining(), "blocks": over_blocks()}
    studies: list[Study] = []
    for part in parts:
        studies += parts[part](Store(asked.cells, only_kept=asked.done)) if part in wanted else there[part]
    write_records(FILE, {"schema_version": 1, "studies": [study.to_json() for study in studies]})


if __name__ == "__main__":
    main()
