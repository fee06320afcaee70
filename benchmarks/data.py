"""What reading data is held to: recognised without options, and 100,000 chats read and encoded in a minute.

`python benchmarks/data.py [--rows 100000]` writes small files of every format in every container and encoding, counts
those that are recognised, then reads and encodes a large file of chats with SmolLM2's tokenizer, and prints the bars.
"""

import argparse
import gzip
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import psutil

from benchmarks.bars import Bar, markdown
from lsf.data.encode import encode
from lsf.data.formats import FORMATS
from lsf.data.sources import load_task
from lsf.models.weights import tokenizer_of

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16")
FLAT = ("pairs", "preference", "alpaca", "known", "text")
"""Formats whose cells are all text, which CSV and TSV can hold."""


def main() -> int:
    """Print the bars; return 1 where one does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000, help="chats of the large file [default: 100000]")
    parser.add_argument("--model", default="smollm2", help="whose tokenizer encodes [default: smollm2]")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bars = [recognised(Path(scratch)), *large(Path(scratch), asked.rows, asked.model)]
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
    path, memory = scratch / "chats.jsonl", psutil.Process().memory_info
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            turns = [
                {"role": "user", "content": f"What is the colour of lamp {number} in the long hall?"},
                {"role": "assistant", "content": f"Lamp {number} is green, as all lamps of the hall are."},
                {"role": "user", "content": "And who lights it?"},
                {"role": "assistant", "content": "The keeper does, every evening."},
            ]
            file.write(json.dumps({"messages": turns}) + "\n")
    tokenizer, context, _ = tokenizer_of(model)
    before, begun = memory().rss, time.perf_counter()
    task = load_task(str(path))
    read = time.perf_counter() - begun
    encoding = encode(tokenizer, task.rows, context)
    seconds = time.perf_counter() - begun
    size = path.stat().st_size / 1e6
    note = f"{read:.1f} s to read, {seconds - read:.1f} s to render and encode {len(encoding.rows):,} rows"
    return [
        Bar(f"{count:,} chats of two turns each: seconds", seconds, 60.0, note=note, unit=" s"),
        Bar("the same: growth of memory", (memory().rss - before) / 1e6, unit=" MB", note=f"{size:.0f} MB of JSONL"),
    ]


if __name__ == "__main__":
    sys.exit(main())
