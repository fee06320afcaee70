"""Memory does not grow with the number of examples: the peak of a whole process, at few and at many of them."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PROGRAM = """
import sys
from pathlib import Path
from lsf.analysis.settings import AnalysisSettings
from lsf.data.task import Example, split_examples
from lsf.measure.analyze import analyze
from lsf.measure.loading import load_model
from lsf.reporting import Silent

folder, n = sys.argv[1], int(sys.argv[2])
words = "the cat dog sat ran on under mat tree red".split()
rows = [Example(" ".join(words[(i + j) % 10] for j in range(5 + i % 7)), f" {words[i % 10]}", i) for i in range(10_000)]
settings = AnalysisSettings(limit=None, split="all", criteria=("deviation", "block_influence", "cka"))
found = analyze(load_model(folder), split_examples("many", rows[:n]), settings, Silent())
assert found.data.n_examples == n
status = Path("/proc/self/status").read_text().splitlines()
print(next(line for line in status if line.startswith("VmHWM")).split()[1])
"""


def peak_kilobytes(folder: Path, n: int) -> int:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(folder), str(n)], capture_output=True, text=True, check=True
    )
    return int(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux tells it")
def test_ten_thousand_examples_take_no_more_memory_than_five_hundred(tiny: Callable[[str], Path]) -> None:
    folder = tiny("llama")
    assert peak_kilobytes(folder, 10_000) <= 1.05 * peak_kilobytes(folder, 500)
