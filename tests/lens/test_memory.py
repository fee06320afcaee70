"""Memory does not grow with the number of examples: the peak of a whole process after few, and after many of them.

The same process then loses the file its weights came from.
"""

import sys
from pathlib import Path

import pytest

from tests.children import finished
from tests.tiny import save_tiny

WIDTH = 1024
PROGRAM = """
import sys
import torch
from pathlib import Path
from lsf.criteria.result import AnalysisSettings
from lsf.data.task import Example, split_examples
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent

words = "the cat dog sat ran on under mat tree red".split()
rows = [Example(" ".join(words[(i + j) % 10] for j in range(5 + i % 7)), f" {words[i % 10]}", i) for i in range(3_000)]
settings = AnalysisSettings(limit=None, split="all", criteria=("deviation", "block_influence", "cka"))
loaded = load_model(sys.argv[1])
for n in (300, 3_000):
    found = analyze(loaded, split_examples("many", rows[:n]), settings, Silent())
    assert found.data.n_examples == n
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])
open(sys.argv[1] + "/model.safetensors", "wb").close()
print(int(loaded.model(input_ids=torch.tensor([[1, 5]])).logits.isfinite().all()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux tells it")
def test_three_thousand_examples_take_no_more_memory_than_three_hundred_and_a_weight_file_that_is_cut_off_hurts_nobody(
    tmp_path: Path,
) -> None:
    folder = save_tiny("llama", tmp_path / "model", hidden_size=WIDTH)
    done = finished("-c", PROGRAM, folder)
    assert done.poll() == 0, done.err[-2000:]
    few, many, finite = map(int, done.out.split())  # kB
    assert finite == 1
    states = 5 * WIDTH * 4 * 2_700 // 1024  # of one position of each of the 2,700 others
    assert many - few <= 0.05 * few < 0.6 * states
