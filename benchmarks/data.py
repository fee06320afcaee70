"""What reading data is held to: recognised, trained as others train it, 100,000 chats in a minute, 5 % of a run.

`python benchmarks/data.py [--rows 100000] [--steps 10] [--gigabytes 1] [--trl]` writes small files of every format in
every container and encoding, counts those that are recognised, and runs the tests that hold the other files, the spans
of chat templates and the first loss of every format. Then it reads and encodes a large file of chats with SmolLM2's
tokenizer, each row let go of once it is counted, then what a run of 100 steps visits, and does some of its steps. With
`--gigabytes` it has `lsf data` read a larger file in a process of its own; with `--trl` the first losses stand beside
those of SFTTrainer (`benchmarks/sft.py`). It prints the bars.
"""

import argparse
import contextlib
import gzip
import json
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as xml
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sft
from benchmarks.bars import Bar, markdown
from lsf.data.encode import encode_parts
from lsf.data.formats import FORMATS
from lsf.data.sources import load_task
from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.models.loading import load_model
from lsf.models.weights import tokenizer_of
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.training.fitting import fit
from lsf.training.splits import encode_splits
from lsf.training.trainer import FitSettings

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")
RUN_STEPS, BATCH = 100, 16
"""Of the run beside which reading is put."""
FLAT = ("pairs", "preference", "alpaca", "known", "text")
"""Formats whose cells are all text, which CSV and TSV can hold."""

HELD = {
    "files of people who had not seen the detector, recognised": (
        "tests/data/test_files_of_people.py::test_a_file_is_recognised_and_its_first_row_is_what_people_mean",
    ),
    "chat templates of families: trained spans by generation marks, and by characters": (
        "tests/data/test_chat.py::test_generation_marks_give_the_same_targets_as_turns_and_as_transformers_own_mask",
        "tests/data/test_chat.py::test_spans_are_those_of_characters_mapped_otherwise",
    ),
    "formats: first loss of a run within 1e-5 of a plain loop on labels by hand": (
        "tests/training/test_formats.py::test_the_first_loss_is_that_of_a_plain_loop",
    ),
}
"""Bars that tests hold, and the tests."""


def main() -> int:
    """Print the bars; return 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="chats of the large file [default: 100000]")
    parser.add_argument("--steps", type=int, default=10, help="steps timed of a run of 100 [default: 10; 0: none]")
    parser.add_argument("--gigabytes", type=float, default=0.0, help="size of the largest file [default: 0, none]")
    parser.add_argument("--model", default="smollm2", help="whose tokenizer encodes [default: smollm2]")
    parser.add_argument("--trl", action="store_true", help="put first losses beside SFTTrainer's, in its environment")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bars = [recognised(Path(scratch)), *held_by_tests(Path(scratch)), *(sft.bars(asked.model) if asked.trl else ())]
        bars += large(Path(scratch), asked.rows, asked.model)
        bars += [beside_steps(Path(scratch), asked.steps, asked.model)] if asked.steps else []
        bars += streamed(Path(scratch), asked.gigabytes) if asked.gigabytes else []
    print(markdown(bars))
    return int(any(bar.held is False for bar in bars))


def recognised(scratch: Path) -> Bar:
    """Return the share of small files whose format is recognised without options."""
    right, wrong = 0, []
    for name, path in files(scratch):
        found = load_task(str(path)).seen.formats
        if found == ((name, 12),):
            right += 1
        else:
            wrong.append(f"{path.name}: {found}")
    for line in wrong:
        sys.stderr.write(f"not recognised: {line}\n")
    total = right + len(wrong)
    return Bar(f"formats x containers x encodings: {total} files, recognised", right, total, True, unit="")


def held_by_tests(scratch: Path) -> list[Bar]:
    """Return how many cases pass of the tests of each bar, run in a process of their own."""
    bars = []
    for number, (what, tests) in enumerate(HELD.items()):
        report = scratch / f"tests-{number}.xml"
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", f"--junitxml={report}", *tests]
        done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True)
        if not report.exists():
            sys.exit(f"The tests of {what!r} did not run: {done.stdout}{done.stderr}")
        cases = list(xml.parse(report).iter("testcase"))
        right = sum(not len(case) for case in cases)
        note = " and ".join(dict.fromkeys(f"`{test.partition('::')[0]}`" for test in tests))
        bars.append(Bar(f"{what}: cases", right, max(len(cases), 1), True, note=note, unit=""))
    return bars


def files(scratch: Path) -> Iterator[tuple[str, Path]]:
    """Write twelve rows of every format in every container that can hold them; yield the format and the file."""
    for name, entry in FORMATS.items():
        rows = [dict(entry.example) for _ in range(12)]
        texts = {"jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)}
        texts |= {"json": json.dumps(rows), "object.json": json.dumps({"version": 1, "rows": rows})}
        if name in FLAT:
            texts["csv"] = pd.DataFrame(rows).to_csv(index=False)
            texts["tsv"] = pd.DataFrame(rows).to_csv(index=False, sep="\t")
        for kind, text in texts.items():
            for encoding in ENCODINGS:
                path = scratch / f"{name}-{encoding}.{kind}"
                path.write_bytes(text.encode(encoding))
                yield name, path
            packed = scratch / f"{name}.{kind}.gz"
            packed.write_bytes(gzip.compress(text.encode()))
            yield name, packed
        pd.DataFrame(rows).to_parquet(scratch / f"{name}.parquet")
        yield name, scratch / f"{name}.parquet"


def large(scratch: Path, count: int, model: str) -> list[Bar]:
    """Return what reading and encoding many chats takes."""
    size = write_chats(scratch / "chats.jsonl", count)
    tokenizer, context, _ = tokenizer_of(model)
    memory = psutil.Process().memory_info
    before, begun, used = memory().rss, time.perf_counter(), time.process_time()
    task = load_task(str(scratch / "chats.jsonl"))
    read = time.perf_counter() - begun
    n_rows, most = 0, memory().rss
    for part in encode_parts(tokenizer, task.rows, context):
        n_rows, most = n_rows + len(part.rows), max(most, memory().rss)
    seconds, used = time.perf_counter() - begun, time.process_time() - used
    note = (
        f"{read:.1f} s to read, {seconds - read:.1f} s to render and encode {n_rows:,} rows; {used:.1f} s of CPU time"
    )
    return [
        Bar(f"{count:,} chats of two turns each: seconds", seconds, 60.0, note=note, unit=" s"),
        Bar("the same: growth of memory", (most - before) / 1e6, unit=" MB", note=f"{size / 1e6:.0f} MB of JSONL"),
    ]


def beside_steps(scratch: Path, steps: int, model: str) -> Bar:
    """Return what reading and encoding takes of a run of 100 steps, in CPU seconds; its steps alone are counted."""
    write_chats(scratch / "run.jsonl", RUN_STEPS * BATCH * 10 // 8)  # 80 % are for training
    loaded = load_model(model, "float32", "cpu")
    blocks = tuple(range(loaded.info.n_blocks * 4 // 5, loaded.info.n_blocks))
    plan = Plan(model=model, n_blocks=loaded.info.n_blocks, blocks=blocks, budget={"blocks": len(blocks)})
    spec = RunSpec(model, str(scratch / "run.jsonl"), plan, steps=RUN_STEPS, batch_size=BATCH)
    begun = time.process_time()
    rows = encode_splits(loaded, load_task(spec.data), spec).train
    read = time.process_time() - begun
    tuned = METHODS["full"].prepare(loaded, plan, MethodContext())
    settings = FitSettings(1e-4, steps, BATCH, 0, 0.0, 0, "float32")
    begun = time.process_time()
    fit(tuned, rows, settings, scratch, lambda row: None, lambda: None)
    taken = (time.process_time() - begun) * RUN_STEPS / steps
    note = (
        f"{read:.2f} CPU s for {RUN_STEPS * BATCH * 10 // 8:,} chats of two turns ({len(rows):,} for training, "
        f"{sum(len(row.ids) for row in rows) / len(rows):.0f} tokens each), {taken:.0f} CPU s for {RUN_STEPS} steps of "
        f"{BATCH} on the top {len(blocks)} of {plan.n_blocks} blocks, {steps} of them measured"
    )
    return Bar("reading and encoding, of a run of 100 steps", 100 * read / (read + taken), 5.0, note=note, unit=" %")


def write_chats(path: Path, count: int) -> int:
    """Write chats of two turns, one a line, and return the bytes of the file."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = [
                {"role": "user", "content": f"What is the colour of lamp {number} in the long hall?"},
                {"role": "assistant", "content": f"Lamp {number} is green, as all lamps of the hall are."},
                {"role": "user", "content": "And who lights it?"},
                {"role": "assistant", "content": "The keeper does, every evening."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    return path.stat().st_size


def streamed(scratch: Path, gigabytes: float) -> list[Bar]:
    """Return what `lsf data` takes for a file of so many GB, looked at twenty times a second.

    What the kernel counts of a child (`ru_maxrss`) begins at its parent's peak, and this process has held a model.
    """
    size = write_chats(scratch / "large.jsonl", int(gigabytes * 1e9 / 305))
    begun, peak = time.perf_counter(), 0
    with psutil.Popen([sys.executable, "-m", "lsf", "data", str(scratch / "large.jsonl")]) as child:
        while child.poll() is None:
            with contextlib.suppress(psutil.NoSuchProcess):
                peak = max(peak, child.memory_info().rss)
            time.sleep(0.05)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, "lsf data")
    note = f"{size / 1e6:,.0f} MB of JSONL in {time.perf_counter() - begun:.0f} s"
    return [Bar("`lsf data` of a large file: peak memory", peak / 1e6, 2_000.0, note=note, unit=" MB")]


if __name__ == "__main__":
    sys.exit(main())
