"""Does the reading of a state matter? Lens, Jacobian and affine on a real model, beside what its blocks gain alone.

`python benchmarks/readings.py --model FOLDER [--tasks facts,sst2] [--readings lens,raw,affine] [--texts 128]` prints,
per task and reading: from which state on the most likely token is the model's own answer in half of the rows,
deviations over the depth, and what criteria of the forward pass name against the committed truth of single blocks
(real_sweep.jsonl): rank correlation and regret. Translators are fitted on so many texts and kept under LSF_CACHE.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.real_plans import BATCH, CELLS, SCORES, Cell, Scored, read_lines
from benchmarks.real_sweep import Bench
from benchmarks.real_tasks import LENGTH, real_task
from benchmarks.real_truth import truth_of
from lsf.criteria.agreement import rank_correlation, top_k
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.progress import Silent
from lsf.settings import TRANSLATED

NAMES = tuple(name for name, one in CRITERIA.items() if one.needs == "forward" and not one.name.startswith("block"))
"""Criteria that states are read for."""
SHOWN = (0, 0.25, 0.5, 0.75, 0.9, 1)
"""Shares of the depth whose deviation is printed."""


def agreement(loaded: Any, rows: Sequence[Any], reading: str, translate: Any) -> np.ndarray:
    """Return, per state, the share of first positions whose most likely token is that of the last state."""
    from lsf.lens.forward import Wanted, stream_readings  # noqa: PLC0415 torch, where there is work
    from lsf.lens.semantics import semantic_bases  # noqa: PLC0415
    from lsf.models.batches import MOST_PADDING, make_batches  # noqa: PLC0415

    batches = make_batches(rows, "first", BATCH, 0, loaded.device, MOST_PADDING)
    bases = semantic_bases(loaded.layout.head_weight)
    found = stream_readings(loaded.layout, bases, batches, Wanted(reading, translate))
    best = np.concatenate([one.top_tokens[:, :, 0] for one in found])
    return (best == best[:, -1:]).mean(axis=0)


def measure(folder: str, tasks: Sequence[str], readings: Sequence[str], n_texts: int) -> None:
    """Print the two tables."""
    from lsf.lens import translators  # noqa: PLC0415 torch, where there is work
    from lsf.lens.analyze import analyze  # noqa: PLC0415
    from lsf.models.loading import load_model  # noqa: PLC0415

    translators.TEXTS = n_texts
    loaded = load_model(folder, "float32", "cpu")
    fitted = dict[str, Any]()
    for reading in readings:
        if reading in TRANSLATED:
            begun = time.process_time()
            fitted[reading] = one = translators.translators_of(loaded, reading, Silent())
            print(f"{reading}: {one.n_sources} places, {time.process_time() - begun:.0f} s of CPU", flush=True)
    depth, named = list[list[str]](), list[list[str]]()
    cells, scored = read_lines(CELLS, Cell), read_lines(SCORES, Scored)
    for task in tasks:
        bench = Bench(loaded, real_task(task, loaded.tokenizer), BATCH)
        truth = truth_of(task, cells, scored, loaded.info.n_blocks)
        assert truth is not None
        alone = [truth.of(str(block)) or 0.0 for block in range(loaded.info.n_blocks)]
        rows = encode(loaded.tokenizer, bench.task.train, LENGTH).rows
        for reading in readings:
            agrees = agreement(loaded, rows, reading, fitted.get(reading))
            settings = AnalysisSettings(
                limit=len(rows), split="train", reading=reading, criteria=NAMES, max_length=LENGTH, batch_size=BATCH
            )
            found = analyze(loaded, bench.task, settings, Silent())
            states = [found.states[round(share * loaded.info.n_blocks)] for share in SHOWN]
            first = next((state for state, share in enumerate(agrees) if share >= 0.5), None)
            depth.append([task, reading, str(first), *(f"{state.deviation or 0.0:.2f}" for state in states)])
            row = [task, reading]
            for name in NAMES:
                scores = [score or 0.0 for score in found.scores(name)]
                (block,) = top_k(scores, 1)
                lost, rho = truth.regret(str(block)), rank_correlation(scores, alone)
                row.append(f"{0.0 if rho is None else rho:.2f}, {block}, {100 * (lost or 0.0):.0f} %")
            named.append(row)
            print(f"{task} {reading} agrees: {' '.join(f'{share:.2f}' for share in agrees)}", flush=True)
    show(["task", "reading", "half agree from state", *(f"deviation at {share:.0%}" for share in SHOWN)], depth)
    show(["task", "reading", *(f"{name}: rho, block, regret" for name in NAMES)], named)


def show(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table as Markdown."""
    print("", *(f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)), sep="\n")


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="folder of SmolLM2-135M-Instruct")
    parser.add_argument("--tasks", default="facts,sst2")
    parser.add_argument("--readings", default="lens,raw,affine")
    parser.add_argument("--texts", type=int, default=128)
    asked = parser.parse_args()
    measure(asked.model, asked.tasks.split(","), asked.readings.split(","), asked.texts)


if __name__ == "__main__":
    main()
