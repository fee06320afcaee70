"""A forecast never stands in front of a run: a real one, with a real worker, is left for it."""

import csv
import time
from collections.abc import Callable
from pathlib import Path

from lsf.app.runtime import AppRuntime
from lsf.app.work import Source, forecast_work
from lsf.jobs.job import JobState
from lsf.jobs.queue import queue_runs
from lsf.plans.plan import Plan
from lsf.runs.result import RunState
from lsf.runs.spec import RunSpec

SECONDS = 120.0


def test_a_start_stops_the_forecast_that_runs_and_drops_those_that_wait(
    tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "data.csv"
    with data.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("prompt", "completion"), *((f"the cat {n}", " red") for n in range(30))])
    runtime, source = AppRuntime(), Source(str(tiny("llama")), str(data))
    worker = runtime.worker
    try:
        spec = RunSpec(source.model, source.data, Plan("tiny", 4, (2,)), steps=2, batch_size=2, learning_rate=0.01)
        wide = RunSpec(source.model, source.data, Plan("tiny", 4, (0,)), batch_size=8192)  # its trial takes a while
        work = forecast_work(runtime, source, wide)
        running, waiting = (worker.submit("forecast", "what it needs", work, gives_way=True) for _ in range(2))
        ready = time.monotonic() + SECONDS
        while not worker.view(running).message.startswith("passing"):
            assert time.monotonic() < ready
            time.sleep(0.002)
        (queued,) = queue_runs(
            worker, tmp_path / "runs", [spec], lambda: runtime.model_cache().load(source.model), source.load_task
        )
        assert worker.view(waiting).state is JobState.CANCELLED
        assert worker.view(running).stopping or not worker.view(running).active
        ended = worker.wait(queued.job, SECONDS)
        assert ended.result.state is RunState.SUCCEEDED
        left = worker.view(running)
        assert (left.state, left.result) == (JobState.CANCELLED, None)
    finally:
        worker.close()
