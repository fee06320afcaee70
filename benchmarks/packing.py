"""What rows packed into full sequences would save: the arithmetic of steps laid out in several ways, counted.

`python -m benchmarks.packing DATA... [--model smollm2] [--batch-size 16] [--steps 50]` lays out the rows of a run's
steps as runs do (a batch padded to its longest row), sorted by length in parts of their own, and packed with attention
inside each row alone. Packed rows share a sequence, so that attention is computed over all of it and masked, as sdpa
attention of transformers does; causal attention without a mask computes half. Counted are the multiplications of a
forward pass, of linear maps per token and of attention per pair of tokens; the head reads targets alone, in any layout.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsf.data.encode import context_length, encode
from lsf.data.sources import load_task
from lsf.models.batches import training_order
from lsf.models.supported import find_model
from lsf.models.weights import load_config, tokenizer_of

Layout = Callable[[Sequence[int]], list[tuple[int, int, bool]]]
"""Lengths of a step's rows -> (sequences, tokens of each, whether attention needs a mask)."""


@dataclass(frozen=True)
class Shape:
    """What of a model its arithmetic depends on."""

    linear: int
    """Parameters of a block's linear maps: multiplications per token."""
    width: int
    """Heads times their width: multiplications per pair of tokens, twice."""


def padded(lengths: Sequence[int]) -> list[tuple[int, int, bool]]:
    """One batch, padded to its longest row."""
    return [(len(lengths), max(lengths), False)]


def in_parts(count: int) -> Layout:
    """Rows sorted by length and cut into so many batches, each padded by itself."""

    def lay(lengths: Sequence[int]) -> list[tuple[int, int, bool]]:
        ordered, size = sorted(lengths), max(1, len(lengths) // count)
        return [padded(ordered[start : start + size])[0] for start in range(0, len(ordered), size)]

    return lay


def packed(lengths: Sequence[int]) -> list[tuple[int, int, bool]]:
    """Rows put into sequences as long as the longest row, the longest first, each where it first fits."""
    full, sequences = max(lengths), list[int]()
    for length in sorted(lengths, reverse=True):
        place = next((at for at, taken in enumerate(sequences) if taken + length <= full), None)
        if place is None:
            sequences.append(length)
        else:
            sequences[place] += length
    return [(len(sequences), full, True)]


def in_one(lengths: Sequence[int]) -> list[tuple[int, int, bool]]:
    """All rows in one sequence, as transformers' DataCollatorWithFlattening lays them out."""
    return [(1, sum(lengths), True)]


LAYOUTS: dict[str, Layout] = {
    "padded, as runs are": padded,
    "4 parts by length": in_parts(4),
    "8 parts by length": in_parts(8),
    "packed to the longest row": packed,
    "packed into one sequence": in_one,
}


def work(laid: Sequence[tuple[int, int, bool]], shape: Shape) -> int:
    """Return the multiplications of a block's forward pass."""
    return sum(
        count * tokens * (shape.linear + shape.width * tokens * (2 if masked else 1)) for count, tokens, masked in laid
    )


def main() -> None:
    """Print the share of padding and what each layout takes of the padded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--steps", type=int, default=50)
    asked = parser.parse_args()
    tokenizer, context, _ = tokenizer_of(asked.model)
    shape = shape_of(asked.model)
    sys.stdout.write(f"| data | tokens a row | padding | {' | '.join(LAYOUTS)} |\n|{'---|' * (3 + len(LAYOUTS))}\n")
    for name in asked.data:
        rows = encode(tokenizer, load_task(name).train, context_length(context, None), append_eos=True).rows
        order = training_order(len(rows), asked.steps * asked.batch_size, 0)
        lengths = [len(rows[place].ids) for place in order]
        steps = [lengths[at : at + asked.batch_size] for at in range(0, len(lengths), asked.batch_size)]
        padding = 1 - sum(lengths) / sum(len(step) * max(step) for step in steps)
        totals = [sum(work(lay(step), shape) for step in steps) for lay in LAYOUTS.values()]
        shares = " | ".join(f"{total / totals[0]:.2f}" for total in totals)
        sys.stdout.write(f"| {name} | {sum(lengths) / len(lengths):.0f} | {padding:.0%} | {shares} |\n")


def shape_of(model: str) -> Shape:
    """Return a Llama's shape by its config."""
    config = load_config(find_model(model))
    width, inner = config.hidden_size, config.intermediate_size
    head = getattr(config, "head_dim", None) or width // config.num_attention_heads
    heads, keys = config.num_attention_heads * head, config.num_key_value_heads * head
    return Shape(linear=width * (2 * heads + 2 * keys + 3 * inner), width=heads)


if __name__ == "__main__":
    main()
