"""Ways of choosing blocks that can be recommended: a criterion or a rank average, with or without both ends."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from lsf.analysis.ends import both_ends
from lsf.analysis.recommend import rank_average
from lsf.compare.regret import Blocks, choose


@dataclass(frozen=True)
class Rule:
    """One way of choosing, simple enough to be said in a sentence."""

    criteria: tuple[str, ...]
    """One criterion, or several whose ranks are averaged."""
    ends: bool = False
    """True: from two blocks on, tune both ends of the model, whatever the criteria say."""

    @property
    def name(self) -> str:
        """`a`, `a+b`, or either with `, ends from 2`."""
        return "+".join(self.criteria) + (", ends from 2" if self.ends else "")

    @property
    def complexity(self) -> int:
        """Things to be explained."""
        return len(self.criteria) + self.ends

    def choose(self, scores: Mapping[str, Sequence[float]], budget: int, n_blocks: int) -> Blocks | None:
        """Return the blocks it tunes; None where a criterion was not measured.

        Args:
            scores: criterion -> score of each block.
            budget: number of blocks.
            n_blocks: L of the model.
        """
        if self.ends and budget > 1:
            return both_ends(n_blocks, budget)
        parts = [scores[name] for name in self.criteria if name in scores]
        if len(parts) < len(self.criteria):
            return None
        return choose(parts[0] if len(parts) == 1 else rank_average(parts), budget)


def candidate_rules(criteria: Iterable[str]) -> tuple[Rule, ...]:
    """Return every criterion and every pair of them, each with and without both ends, the simplest first."""
    names = list(criteria)
    parts = [(name,) for name in names] + list(combinations(names, 2))
    return tuple(sorted((Rule(part, ends) for part in parts for ends in (False, True)), key=lambda r: r.complexity))
