"""What shorter tries would choose: `python -m benchmarks.short_tries FOLDER TASK[,TASK]` on SmolLM2-135M.

Single blocks at five depths, each the beginning of its run in the real sweep, at the rate of that sweep; the validation
loss after a twelfth, a sixth and a quarter of the steps. A line per block.
"""

import sys
from typing import Any

from benchmarks.real_plans import BATCH, CELLS, Cell, read_lines
from benchmarks.real_sweep import Bench
from benchmarks.real_tasks import real_task
from benchmarks.real_truth import rates_of
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.plans.tries import tried_sets
from lsf.training.caching import open_caching, open_held_out
from lsf.training.evaluation import evaluate
from lsf.training.fitting import short_run
from lsf.training.trainer import FitSettings, StepRow

SHARES = (12, 6, 4)
"""The validation loss is read after the steps over each of these."""


def read_briefly(bench: Bench, block: int, rate: float) -> dict[int, float | None]:
    """Return steps -> validation loss in nats per token, of the beginning of one block's run."""
    loaded, train, spec = bench.loaded, bench.splits.train, bench.spec(str(block))
    model = METHODS["full"].prepare(loaded, spec.plan, MethodContext(rows=train, batch_size=BATCH))
    settings = FitSettings(rate, bench.steps, BATCH, bench.steps // 10, 0.0, 0, "float32")
    at, found = {max(1, bench.steps // share) for share in SHARES}, dict[int, float | None]()

    def watch(row: StepRow) -> None:
        if row.step in at:
            rows = bench.splits.validation
            prefix = open_held_out(loaded, model, spec, rows, "validation", BATCH)
            found[row.step] = evaluate(model, rows, BATCH, prefix=prefix).loss

    def stop() -> Any:
        return "enough" if len(found) == len(at) else None

    caching = open_caching(loaded, model, spec.plan, train, "auto", 2 * len(train))
    try:
        short_run(model, train, settings, stop, watch, caching.prefix)
    finally:
        caching.close()
    return found


def main() -> None:
    """Read every task that is named."""
    folder, tasks = sys.argv[1:]
    loaded, cells = load_model(folder, "float32", "cpu"), read_lines(CELLS, Cell)
    for name in tasks.split(","):
        bench = Bench(loaded, real_task(name, loaded.tokenizer), BATCH)
        rate = rates_of([cell for cell in cells if cell.task == name])["1"]
        for (block,) in tried_sets(bench.n_blocks, 1)[::-1]:
            print(name, block, read_briefly(bench, block, rate or 0.0), flush=True)


if __name__ == "__main__":
    main()
