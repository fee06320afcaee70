"""The bar over the number of examples: the peak of a whole analysis must not grow with them."""

import argparse
import sys
from pathlib import Path

from benchmarks.bars import Bar
from benchmarks.models import BATCH, model_folder, real_rows
from benchmarks.ours import FORWARD, settings_for
from benchmarks.racing import megabytes
from benchmarks.turns import Contestant, Turn
from lsf.data.task import Example, split_examples
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent

FEW, MANY = 500, 10_000
"""Examples compared."""


def memory_bars() -> list[Bar]:
    """Compare the peak of a process that analyses few examples with one that analyses many."""
    model = model_folder("stories260K")
    if not (model / "config.json").exists():
        print("the real models and texts are not beside this checkout: the part `memory` is left out", file=sys.stderr)
        return []
    pairs = [(_peak(model, FEW), _peak(model, MANY)) for _ in range(3)]
    ratios = sorted(many["process"] / few["process"] for few, many in pairs)
    few, many = next(pair for pair in pairs if pair[1]["process"] / pair[0]["process"] == ratios[1])
    return [
        Bar(
            f"peak memory of a process at {MANY:,} examples / at {FEW}, stories260K, SST-2",
            ratios[1],
            1.05,
            note=f"{megabytes(many['process'])} / {megabytes(few['process'])}; over what was loaded, texts included, "
            f"{megabytes(many['growth'])} / {megabytes(few['growth'])}; "
            f"median of {', '.join(f'{one:.3g}x' for one in ratios)}",
        )
    ]


def _peak(model: Path, n: int) -> dict[str, int]:
    one = Contestant(f"memory {n}", sys.executable, "benchmarks.memory", str(model), str(n))
    while one.turn():
        pass
    return one.result


def main() -> None:
    """Analyse n examples: the first FEW of the file, again and again until there are n."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("n", type=int)
    arguments = parser.parse_args()
    turn = Turn()
    loaded = load_model(str(arguments.model), "float32", "cpu")
    rows = real_rows("SST-2", FEW)
    # Both read the same texts, so that the longest, which decides a batch's memory, is the same; and both hold MANY
    # examples: the data is the user's, what the analysis adds is what is compared.
    examples = [Example(*rows[index % len(rows)], row=index + 1) for index in range(MANY)]
    task = split_examples("bench", examples[: arguments.n])
    analyze(loaded, split_examples("warm", examples[:BATCH]), settings_for(FORWARD), Silent())
    turn.ready()
    analyze(loaded, task, settings_for(FORWARD), Silent())
    turn.finish()


if __name__ == "__main__":
    main()
