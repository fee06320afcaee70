"""All bars of the analysis, each a ratio of two things timed in turn: `python benchmarks/analyze.py`.

Exits 1 where a bar does not hold. `--only` takes one part, `--quick` fewer examples (to try the benchmark itself out).
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))  # run as a file; the checkout need not be installed

from benchmarks import against, bases, memory, passes  # noqa: E402
from benchmarks.bars import Bar, markdown  # noqa: E402
from benchmarks.models import CACHE  # noqa: E402
from benchmarks.peers.venvs import PINS  # noqa: E402
from benchmarks.turns import quiet_environment  # noqa: E402

PARTS: dict[str, Callable[[bool], list[Bar]]] = {
    "forward": lambda quick: passes.forward_bars("llama", 64 if quick else 256, 1 if quick else 3),
    "forward-gpt2": lambda quick: passes.forward_bars("gpt2", 48 if quick else 256),
    "gradient": lambda quick: passes.gradient_bars("llama", 48 if quick else 128),
    "gradient-gpt2": lambda quick: passes.gradient_bars("gpt2", 32 if quick else 64),
    "bases": lambda _quick: bases.bases_bars(50_257, 768),
    "peers": lambda quick: against.peer_bars("llama", 64 if quick else 256),
    "real": against.all_real_bars,
    "memory": lambda _quick: memory.memory_bars(),
}
"""Each part takes less than 4 minutes on 2 cores."""


def main() -> int:
    """Run the parts, keep what each gave, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, action="append", help="one part; may be given again")
    parser.add_argument("--quick", action="store_true", help="fewer examples")
    parser.add_argument("--kept", action="store_true", help="run nothing: the table of what the parts gave last")
    arguments = parser.parse_args()
    bars: list[Bar] = []
    for part in arguments.only or PARTS:
        kept = CACHE / f"result-{part}.json"
        if not arguments.kept:
            print(f"{part} ...", file=sys.stderr, flush=True)
            found = PARTS[part](arguments.quick)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(json.dumps([asdict(bar) for bar in found]))
        if kept.exists():
            bars += [Bar(**bar) for bar in json.loads(kept.read_text())]
    print(header())
    print(markdown(bars))
    missed = sum(bar.held is False for bar in bars)
    print(f"\n{missed} of {sum(bar.held is not None for bar in bars)} bars do not hold.")
    return 1 if missed else 0


def header() -> str:
    """Return date, machine and versions as Markdown."""
    cpu = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    threads = quiet_environment()["OMP_NUM_THREADS"]
    ours = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy", "scipy"))
    peers = ", ".join(pin.replace("==", " ") for pins in PINS.values() for pin in pins)
    return (
        f"{date.today().isoformat()}; {os.cpu_count()} cores, {cpu}, {threads} thread per contestant; "
        f"Python {platform.python_version()}, {ours}; {peers}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
