"""One zip that repeats a run by one command: what was asked, the rows it saw, and what it came to."""

import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from lsf.data.sources import load_task
from lsf.data.task import Task
from lsf.errors import RunError
from lsf.files import write_bytes
from lsf.jobs.holding import METRICS, RESULT, SPEC
from lsf.jobs.runs import Run

DATA = "data.jsonl"
PLAN = "plan.json"
NOTE = "README.txt"
COMMAND = "python -m lsf tune --spec {name}/spec.json --runs runs"


def bundle_runs(runs: Sequence[Run]) -> bytes:
    """Return a zip with a folder per run: spec, plan, rows, metrics, result, and the command that repeats it.

    The rows lie in the bundle with their splits, so that it does not depend on a file that may change. Weights do not:
    they are what the command makes again.

    Raises:
        RunError: a run has no spec or result, or its data is no longer what it was.
        DataError: its data cannot be read any more.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for run in runs:
            for name, text in _contents(run).items():
                archive.writestr(f"{run.id}/{name}", text)
    return buffer.getvalue()


def save_bundle(run: Run, path: Path) -> None:
    """Write a run's bundle to a file, whole or not at all; raises as `bundle_runs` does."""
    write_bytes(path, bundle_runs([run]))


def _contents(run: Run) -> dict[str, str]:
    if run.spec is None or run.result is None:
        raise RunError(f"The run {run.id} is {run.state}; only a run that has ended can be bundled.")
    task = load_task(run.spec.data, run.spec.prompt_template, run.spec.completion_template)
    if run.result.data_fingerprint not in (None, task.fingerprint):
        raise RunError(f"The data of {run.id} ({run.spec.data}) has changed since the run; it cannot be repeated.")
    spec = replace(run.spec, data=DATA, prompt_template=None, completion_template=None)
    command = COMMAND.format(name=run.id)
    files = {
        SPEC: _json(spec.to_json()),
        PLAN: _json(spec.plan.to_json()),
        DATA: "".join(_lines(task)),
        RESULT: _json(run.result.to_json()),
        NOTE: f"Unpack, then, with the model {spec.model} at hand:\n\n    {command}\n\n"
        f"{RESULT} and {METRICS} are what the first run came to; on the same machine the numbers are the same.\n",
    }
    metrics = run.folder / METRICS
    if metrics.exists():
        files[METRICS] = metrics.read_text(encoding="utf-8")
    return files


def _json(value: object) -> str:
    return json.dumps(value, indent=1, ensure_ascii=False) + "\n"


def _lines(task: Task) -> Iterator[str]:
    for split in ("train", "validation", "test"):
        for example in getattr(task, split):
            row = {"prompt": example.prompt, "completion": example.completion, "split": split}
            yield json.dumps(row, ensure_ascii=False) + "\n"
