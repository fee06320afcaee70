"""What watching costs: seconds of a run by phase, on a real model, each run in a process of its own.

`python benchmarks/watching.py --model /opt/smollm2 --trec ../shared/data/trec [--steps 100] [--blocks 29,15,29,15]`
tunes single blocks on 640 TREC questions with 64 validation rows read five times or more and a test of 256, with an
empty cache at first: the first run reads the base model, later ones find it on record. It prints the share of the wall
time of all that is neither optimizer steps nor filling the prefix cache.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from lsf.runs.result import PHASES, WORK

SPLITS = {"train": 640, "validation": 64, "test": 256}


def main() -> None:
    """Print one table per run, and its share of watching."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="/opt/smollm2")
    parser.add_argument("--trec", type=Path, default=Path(__file__).parents[2] / "shared/data/trec")
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--blocks", default="29,15,29,15")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lsf-watching-") as name:
        folder = Path(name)
        data = write_rows(arguments.trec, folder / "trec.jsonl")
        for block in arguments.blocks.split(","):
            tell(block, measured(arguments, block, data, folder))


def write_rows(trec: Path, path: Path) -> Path:
    """Write the first questions of TREC as rows with their splits."""
    lines = (trec / "train.txt").read_text(encoding="latin-1").splitlines()
    with path.open("w", encoding="utf-8") as file:
        for split, count in SPLITS.items():
            for line in lines[:count]:
                label, _, question = line.partition(" ")
                row = {"prompt": f"Question: {question}\nAnswer type:", "completion": f" {label.partition(':')[0]}"}
                file.write(json.dumps({**row, "split": split}) + "\n")
            lines = lines[count:]
    return path


def measured(arguments: argparse.Namespace, block: str, data: Path, folder: Path) -> dict[str, float]:
    """Tune one block in a fresh process and return the seconds of its phases."""
    runs = folder / f"runs-{len(list(folder.iterdir()))}"
    asked = {
        "model": arguments.model, "data": data, "blocks": block, "steps": arguments.steps, "batch-size": 16,
        "learning-rate": 0.001, "eval-every": max(1, arguments.steps // 5), "device": "cpu", "runs": runs,
        "threads": arguments.threads,
    }  # fmt: skip
    options = [part for key, value in asked.items() for part in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "lsf", "tune", *options]
    environment = {**os.environ, "LSF_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": str(arguments.threads)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    (result,) = runs.glob("*/result.json")
    return json.loads(result.read_text())["phases"]


def tell(block: str, seconds: dict[str, float]) -> None:
    """Print the phases of one run, longest first."""
    whole = sum(seconds.values())
    watching = whole - sum(seconds.get(name, 0.0) for name in WORK)
    print(f"block {block}: {whole:.1f} s, beside steps and prefix {watching:.1f} s = {watching / whole:.1%}")
    for name, part in sorted(seconds.items(), key=lambda item: -item[1]):
        print(f"  {PHASES[name]:<32}{part:>8.2f} s{part / whole:>8.1%}")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
