"""d_90 on the bundled model: over lessons, over blocks allowed, along pre-training; kept for the app.

`python benchmarks/dimension.py [--parts lessons,along,blocks] [--seeds 1] [--cells FILE] [--checkpoints DIR]` prints
the bars and writes `lsf/bundled/dimension.json`, where parts not asked for stay as FILE has them. Every tuning is kept
in FILE and not done again. DIR comes from `python -m lsf demo pretrain --out OUT --checkpoints DIR`. `--done` only puts
together what FILE holds. How one d_90 is searched: `benchmarks/dimension_search.py`.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.dimension_search import ALONG_START, Cells, Search
from lsf.bundled.dimension import ALONG, FILE
from lsf.bundled.lessons import LESSONS
from lsf.figures.dimension_tasks import d90_of, fewer, progress_points, spearman
from lsf.files import write_json
from lsf.jobs.dimensions import ASKED, Study

LEARNT = 0.5
"""Exact match of full fine-tuning below which a checkpoint has no d_90."""


def lessons(cells: Cells, seeds: int) -> list[Study]:
    """Measure SAID and DID on the whole model, on every lesson, and print the bar."""
    asked = [Search(cells, "bundled", lesson, "all").study("bundled", ASKED, seeds) for lesson in LESSONS]
    found = [study for study in asked if study is not None]
    for study in found:
        _tell(study)
    whole = [study for study in found if {curve.method for curve in study.curves} == set(ASKED)]
    print(f"SAID d_90 < DID d_90 on {fewer(whole)} of {len(whole)} lessons measured (bar: 4 of 6)")
    return found


def blocks(cells: Cells, _seeds: int) -> list[Study]:
    """Measure `facts` where only the deepest blocks may move."""
    asked = [Search(cells, "bundled", "facts", some).study("bundled", ASKED, 1) for some in ("7", "6,7", "4,5,6,7")]
    found = [study for study in asked if study is not None]
    for study in found:
        _tell(study)
    return found


def along(cells: Cells, checkpoints: Path) -> list[Study]:
    """Measure SAID at every checkpoint and print Spearman's rho."""
    found = []
    here = [folder.name for folder in checkpoints.iterdir()] if checkpoints.is_dir() else []
    names = sorted({*here, *(key.partition("|")[0] for key in cells.known if key.startswith("step-"))})
    for lesson in ALONG_START:
        for name in names:
            steps = f"{ALONG}{int(name.removeprefix('step-'))}"
            search = Search(cells, str(checkpoints / name), lesson, "all")
            if (learnt := search.learnt) is not None and learnt < LEARNT:
                print(f"{lesson}, {steps}: full fine-tuning itself reaches {learnt:.2f}; 90 % of that says nothing")
                continue
            study = search.study(steps, ("said",), 1)
            if study is not None:
                found.append(study)
                _tell(study)
        points = progress_points([s for s in found if s.data == f"lesson:{lesson}"], f"lesson:{lesson}")
        print(f"{lesson}: d_90 along pre-training {points}, Spearman {spearman(points)} (bar: below 0)")
    return found


def _tell(study: Study) -> None:
    for method in dict.fromkeys(curve.method for curve in study.curves):
        tried = {curve.seed: {p.d: round(p.test, 3) for p in curve.points} for curve in study.of(method)}
        line = f"{study.model:<22}{study.data:<16}{study.plan.label:<14}{method:<6}d_90 = {d90_of(study, method)}"
        print(
            f"{line}  full {study.full[0].test:.3f}  by seed {[c.d_90 for c in study.of(method)]}  {tried}", flush=True
        )


def main() -> None:
    """Measure the parts asked for and keep them for the app."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="lessons,along,blocks")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--cells", type=Path, default=Path(__file__).with_name("dimension_cells.json"))
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--done", action="store_true", help="measure nothing; put together what is there")
    asked = parser.parse_args()
    wanted = asked.parts.split(",")
    parts: dict[str, Callable[[Cells], list[Study]]] = {
        "lessons": lambda cells: lessons(cells, asked.seeds),
        "along": lambda cells: along(cells, asked.checkpoints),
        "blocks": lambda cells: blocks(cells, asked.seeds),
    }
    studies: list[Study] = []
    for part in sorted(parts, key=lambda name: name not in wanted):
        studies += parts[part](Cells(asked.cells, only_kept=asked.done or part not in wanted))
    write_json(FILE, {"schema_version": 1, "studies": [study.to_json() for study in studies]})


if __name__ == "__main__":
    main()
