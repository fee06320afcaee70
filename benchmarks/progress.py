"""What a run is said to take, beside what it takes: by phase, and the time left while it goes on.

python benchmarks/progress.py --model /opt/smollm2 --data shared/data/trec/train.csv --blocks 15 --steps 20
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from lsf.data.contents import options_in
from lsf.data.sources import load_task
from lsf.jobs.job import Report
from lsf.models.loading import load_model
from lsf.plans.plan import Plan, full_plan, parse_blocks
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.forecast import forecast
from lsf.training.run import tune

TENTHS = 10
"""Moments of a run, evenly spread, at which the time left is judged."""


def main() -> None:
    """Forecast a run, carry it out, and print both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, help="a folder, or bundled")
    parser.add_argument("--data", required=True, help="as `tune` takes it")
    parser.add_argument("--prompt-template", help="as `tune` takes it")
    parser.add_argument("--completion-template", help="as `tune` takes it")
    parser.add_argument("--blocks", required=True, help="blocks that are tuned, or all")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps [default: 20]")
    parser.add_argument("--eval-limit", type=int, default=64, help="held-out rows read at most [default: 64]")
    parser.add_argument("--json", type=Path, help="where a line is added")
    asked = parser.parse_args()
    print(json.dumps(measured(asked, told(asked)), indent=1))


def told(asked: argparse.Namespace) -> RunSpec:
    """Return what is asked, its plan still without a model."""
    return RunSpec(
        asked.model,
        asked.data,
        Plan(asked.model, 1, (0,)),
        prompt_template=asked.prompt_template,
        completion_template=asked.completion_template,
        pairs="raw",  # as the results on record were measured
        steps=asked.steps,
        learning_rate=1e-4,
        eval_limit=asked.eval_limit,
    )


def measured(asked: argparse.Namespace, spec: RunSpec) -> dict[str, object]:
    """Return forecast and measurement of one run."""
    loaded = load_model(spec.model)
    n_blocks = loaded.info.n_blocks
    plan = (
        full_plan(spec.model, n_blocks)
        if asked.blocks == "all"
        else Plan(spec.model, n_blocks, parse_blocks(asked.blocks, n_blocks))
    )
    spec = replace(spec, plan=plan)
    task = load_task(spec.data, spec.prompt_template, spec.completion_template, options=options_in(spec))
    begun = time.monotonic()
    before = forecast(loaded, task, spec, offering=False)
    asking = time.monotonic() - begun
    with tempfile.TemporaryDirectory() as runs:
        report, seen = Report(), list[tuple[float, float | None, float, str]]()
        timer = threading.Thread(target=watch, args=(report, seen, ended := threading.Event()))
        report.begin()
        timer.start()
        begun = time.monotonic()
        result = tune(loaded, task, spec, create_run(Path(runs), spec), report)
        took = time.monotonic() - begun
        ended.set()
        timer.join()
    phases = {
        key: [round(before.phases.get(key, 0.0), 1), round(result.phases.get(key, 0.0), 1)]
        for key in {**before.phases, **result.phases}
    }
    expected = before.predicted.wall_seconds or 0.0
    row = {
        "blocks": asked.blocks, "steps": asked.steps, "forecast_s": round(expected, 1), "wall_s": round(took, 1),
        "forecast_over_wall": round(expected / took, 2), "forecast_took_s": round(asking, 1),
        "phases_forecast_and_measured": phases, "eta_over_left": judged(seen, took),
        "bar_fell": any(one[2] > two[2] for one, two in pairwise(seen)),
    }  # fmt: skip
    if asked.json:
        with asked.json.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    return row


def watch(report: Report, seen: list[tuple[float, float | None, float, str]], ended: threading.Event) -> None:
    """Look at a report five times a second until the work has ended."""
    begun = time.monotonic()
    while not ended.wait(0.2):
        found = report.snapshot()
        seen.append((time.monotonic() - begun, found["eta_seconds"], found["fraction"], found["phase"]))


def judged(seen: list[tuple[float, float | None, float, str]], took: float) -> dict[str, object]:
    """Return the time left as told over the time left, at every tenth of the run."""
    found: dict[str, object] = {}
    for tenth in range(1, TENTHS):
        at = tenth * took / TENTHS
        when, eta, _, phase = min(seen, key=lambda look: abs(look[0] - at))
        found[f"{tenth}/10 {phase}"] = None if eta is None else round(eta / (took - when), 2)
    return found


if __name__ == "__main__":
    sys.exit(main())
