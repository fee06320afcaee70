"""What was measured block by block on a real language model, packed with the package: a lead, beside the study."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar, Literal

from lsf.criteria.agreement import top_k
from lsf.criteria.registry import CRITERIA
from lsf.evidence.regret import ROUNDING, Metric, Truth
from lsf.files import write_records
from lsf.plans.recommend import RECOMMENDED
from lsf.schema import JsonRecord

PACKED = Path(__file__).parent / "real.json"
"""Written by `python benchmarks/evidence.py --real --pack --model FOLDER` from the lines under benchmarks."""


@dataclass(frozen=True)
class RealTask:
    """Every block of one real model tuned alone on one task; the higher score is the better, a loss turned round."""

    model: str
    """The model's name."""
    weights: str
    """SHA-256 of its weights."""
    task: str
    """In words."""
    metric: Metric
    """By which the task is judged."""
    steps: int
    """Of every run."""
    seeds: int
    """Data orders measured."""
    base: float
    """Score of the base model."""
    floor: float
    """The better of the base model and of the answer that ignores the prompt."""
    whole: float
    """Score of the whole model, tuned."""
    lora: float
    """Score of LoRA on all blocks."""
    top: float
    """Best score of all plans measured, of any size."""
    alone: tuple[float, ...]
    """Score of each block tuned alone, block 0 first."""
    scores: Mapping[str, tuple[float, ...]]
    """Criterion -> score of each block, on the training rows."""
    placebo: Mapping[str, tuple[float, ...]]
    """The same where each completion was given to another prompt."""
    at_an_end: tuple[str, ...]
    """What was tuned at the least or greatest of the learning rates tried, so that a better one may lie beyond."""

    @property
    def best(self) -> int:
        """The block of the best score alone; of equal ones the deepest."""
        return self.truth.best(self.truth.scores)[0]

    def named(self, criterion: str, *, placebo: bool = False) -> int:
        """Return the block that a criterion names where one is to be tuned."""
        return top_k((self.placebo if placebo else self.scores)[criterion], 1)[0]

    def lost(self, block: int) -> float | None:
        """Return a block's regret: (best alone - its score) / (best of all - floor); None where nothing gained."""
        gained = self.top - self.floor
        return (self.alone[self.best] - self.alone[block]) / gained if gained > ROUNDING else None

    @property
    def by_chance(self) -> float | None:
        """The mean regret of a block drawn at random; None where nothing gained."""
        found = [self.lost(block) for block in range(len(self.alone))]
        return None if None in found else sum(one or 0.0 for one in found) / len(found)

    @cached_property
    def truth(self) -> Truth:
        """The single blocks as pictures of a sweep take them."""
        alone = {(block,): (score,) for block, score in enumerate(self.alone)}
        return Truth(len(self.alone), self.base, (self.whole,), alone, {}, self.floor, self.top)


@dataclass(frozen=True)
class RealTasks(JsonRecord):
    """All of them, a line each in the file."""

    noun: ClassVar = "file of real tasks"
    tasks: tuple[RealTask, ...]
    """Newest last."""
    schema_version: Literal[1] = 1


@cache
def real_tasks() -> tuple[RealTask, ...]:
    """Return what is packed, read once."""
    return RealTasks.load(PACKED).tasks


def pack_real(tasks: Sequence[RealTask], path: Path = PACKED) -> None:
    """Write tasks compactly, a line each."""
    write_records(path, {"schema_version": 1, "tasks": [asdict(one) for one in tasks]})


def real_words(weights: str | None, tasks: Sequence[RealTask] | None = None) -> str | None:
    """Say what the recommended criterion's block lost on every task measured on a model; None where none was.

    Args:
        weights: SHA-256 of the model's weights; None where they are unknown.
        tasks: what was measured; None for what is packed.
    """
    own = [one for one in (real_tasks() if tasks is None else tasks) if one.weights == weights]
    if not own:
        return None
    rule, label = RECOMMENDED[0], CRITERIA[RECOMMENDED[0]].label
    seeds = min(one.seeds for one in own)
    told = "; ".join(
        f"{one.task} {_share(one.lost(one.named(rule)))} (named block {one.named(rule)}, best was {one.best}, at "
        f"random {_share(one.by_chance)})"
        for one in own
    )
    depth = [one.task for one in own if one.named(rule, placebo=True) == one.named(rule)]
    blind = f" With shuffled completions it names the same block on {' and '.join(depth)}." if depth else ""
    return (
        f"Measured on {own[0].model}, 1 of {len(own[0].alone)} blocks, {_several(seeds, 'seed')}. {label} lost, of "
        f"what the best plan gains over the floor: {told}.{blind} {_several(len(own), 'task').capitalize()}: a "
        "lead, no proof."
    )


def _several(n: int, noun: str) -> str:
    return f"one {noun}" if n == 1 else f"{n} {noun}s"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"
