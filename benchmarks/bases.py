"""The bar over the pseudo-inverse: semantic bases of a whole vocabulary."""

import argparse
import statistics
import sys

import torch

from benchmarks.bars import Bar
from benchmarks.racing import megabytes, run_race
from benchmarks.turns import Contestant, Turn
from lsf.lens.semantics import semantic_bases

ROUNDS = 3
"""Times each is done."""
NEEDED = 256
"""Tokens whose bases an analysis of 256 examples needs at most."""


def head(vocabulary: int, width: int) -> torch.Tensor:
    """Return a random LM head."""
    return torch.randn(vocabulary, width, generator=torch.Generator().manual_seed(0))


def bases_bars(vocabulary: int, width: int) -> list[Bar]:
    """Measure the bases an analysis of 256 examples needs, and those of all tokens, against `torch.linalg.pinv`."""
    arguments = (str(vocabulary), str(width))
    ways = ("needed", "all", "pinv")
    runs = run_race([Contestant(f"bases {how}", sys.executable, "benchmarks.bases", how, *arguments) for how in ways])
    needed, whole, pinv = (statistics.median(runs[f"bases {how}"].seconds[:ROUNDS]) for how in ways)
    weight = head(vocabulary, width)
    inverse = torch.linalg.pinv(weight)
    found = semantic_bases(weight).of(torch.arange(vocabulary))
    apart = (found.T - inverse).abs().max().item() / inverse.abs().max().item()
    label = f"V = {vocabulary:,}, d = {width}"
    memory = " / ".join(megabytes(runs[f"bases {how}"].result["growth"]) for how in ("pinv", "needed"))
    return [
        Bar(
            f"torch.linalg.pinv / semantic bases of the {NEEDED} targets of an analysis, {label}: time",
            pinv / needed,
            5,
            True,
            f"{pinv:.2f} s / {needed:.2f} s, medians of {ROUNDS}; peak over the head {memory}",
        ),
        Bar(
            f"torch.linalg.pinv / semantic bases of all tokens (what no analysis needs), {label}: time",
            pinv / whole,
            note=f"{pinv:.2f} s / {whole:.2f} s",
        ),
        Bar(
            f"bases of all tokens, {label}: greatest difference from pinv over its greatest entry", apart, 1e-5, unit=""
        ),
    ]


def main() -> None:
    """Run one contestant."""
    parser = argparse.ArgumentParser()
    parser.add_argument("how", choices=("needed", "all", "pinv"))
    parser.add_argument("vocabulary", type=int)
    parser.add_argument("width", type=int)
    arguments = parser.parse_args()
    turn = Turn()
    weight, tokens = head(arguments.vocabulary, arguments.width), torch.arange(arguments.vocabulary)
    small = head(arguments.width, 8)
    torch.linalg.pinv(small)
    semantic_bases(small).of(torch.arange(8))
    turn.ready()
    for _ in range(ROUNDS):
        if arguments.how == "pinv":
            torch.linalg.pinv(weight)
        else:
            semantic_bases(weight).of(tokens[:NEEDED] if arguments.how == "needed" else tokens)
        turn.over()
    turn.finish()


if __name__ == "__main__":
    main()
