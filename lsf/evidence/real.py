"""What was measured on a real language model, packed with the package: a lead, beside the study."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import ClassVar, Literal

from lsf.criteria.agreement import top_k
from lsf.criteria.registry import CRITERIA
from lsf.evidence.regret import ROUNDING, Blocks, Metric, Truth
from lsf.evidence.study import paired_difference
from lsf.files import write_records
from lsf.plans.plan import format_blocks, parse_blocks
from lsf.plans.policies import RECOMMENDED, evenly_spaced, window
from lsf.plans.tries import DEPTHS
from lsf.schema import JsonRecord

PACKED = Path(__file__).parent / "real.json"
"""Written by `python benchmarks/evidence.py --real --pack --model FOLDER` from the lines under benchmarks."""

LOOKED_AT = "TREC, kinds of questions"
"""The task that a first look was taken at before the sweep was announced: shown, and in no mean."""


@dataclass(frozen=True)
class RealSets:
    """Sets of one number of blocks tuned on one task: neighbours, sets drawn at random, and what rules name."""

    budget: int
    """Blocks of a set."""
    seeds: int
    """Data orders measured."""
    scores: Mapping[str, float]
    """Ranges of blocks -> score, of the sets that were tuned to their end."""
    drawn: tuple[str, ...]
    """The sets that were drawn at random."""
    stopped: tuple[str, ...]
    """Sets that were hopeless and ended half-way; they count as the worst of the others."""
    half_way: Mapping[str, float]
    """Ranges of neighbours that trying chooses among -> validation loss after half of the steps."""


@dataclass(frozen=True)
class RealTask:
    """Every block of one real model tuned alone on one task, and sets of blocks; losses are negative scores."""

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
    half_way: tuple[float | None, ...]
    """Validation loss of each block tuned alone, after half of the steps; None where it diverged by then."""
    sets: RealSets | None = None
    """Sets of several blocks, where all of them were measured."""

    @property
    def budgets(self) -> tuple[int, ...]:
        """Numbers of blocks that were measured."""
        return (1,) if self.sets is None else (1, self.sets.budget)

    def measured(self, budget: int) -> Mapping[Blocks, float]:
        """Return the plans of one of the budgets with their scores."""
        if self.sets is None or budget == 1:
            return {(block,): score for block, score in enumerate(self.alone)}
        worst = min(self.sets.scores.values())
        return {
            parse_blocks(plan, len(self.alone)): self.sets.scores.get(plan, worst)
            for plan in (*self.sets.scores, *self.sets.stopped)
        }

    @property
    def drawn(self) -> tuple[Blocks, ...]:
        """Sets of several blocks that were drawn at random; none where none was measured."""
        return () if self.sets is None else tuple(parse_blocks(plan, len(self.alone)) for plan in self.sets.drawn)

    def best(self, budget: int = 1) -> Blocks:
        """Return the plan of the best score at one of the budgets; of equal ones the deepest."""
        known = self.measured(budget)
        top = max(known.values())
        return max(blocks for blocks, score in known.items() if top - score <= ROUNDING)

    def named(self, criterion: str, budget: int = 1, *, placebo: bool = False) -> Blocks:
        """Return what a criterion names where so many blocks are to be tuned: the best, or the best neighbours."""
        scores = (self.placebo if placebo else self.scores)[criterion]
        return top_k(scores, 1) if budget == 1 else window(scores, budget)

    def tried(self, budget: int = 1) -> Blocks:
        """Return what trying would have taken: of neighbours at `DEPTHS`, those of the least loss half-way."""
        known: dict[Blocks, float]
        if self.sets is None or budget == 1:
            known = {(block,): math.inf if loss is None else loss for block, loss in enumerate(self.half_way)}
        else:
            known = {parse_blocks(plan, len(self.alone)): loss for plan, loss in self.sets.half_way.items()}
        starts = [blocks[0] for blocks in known if blocks[-1] - blocks[0] == budget - 1]
        wanted = [depth * (len(self.alone) - budget) for depth in DEPTHS]
        near = [min(starts, key=lambda start: (abs(start - place), -start)) for place in wanted]
        return min((tuple(range(start, start + budget)) for start in near), key=lambda one: (known[one], -one[0]))

    def spaced(self, budget: int) -> Blocks:
        """Return so many blocks evenly spaced over the depth."""
        return evenly_spaced(len(self.alone), budget)

    def lost(self, blocks: Blocks) -> float | None:
        """Return a plan's regret: (best of its size - its score) / (best of all - floor); None where nothing gained."""
        gained, known = self.top - self.floor, self.measured(len(blocks))
        return (max(known.values()) - known[blocks]) / gained if gained > ROUNDING else None

    def by_chance(self, budget: int = 1) -> float | None:
        """Return the mean regret of blocks drawn at random; None where nothing gained."""
        found = [
            lost
            for blocks in (self.measured(1) if budget == 1 else self.drawn)
            if (lost := self.lost(blocks)) is not None
        ]
        return fmean(found) if found else None

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


def real_words(weights: str | None, budget: int = 1, tasks: Sequence[RealTask] | None = None) -> str | None:
    """Say what the recommended criterion's blocks lost on every task measured on a model; None where none was.

    Args:
        weights: SHA-256 of the model's weights; None where they are unknown.
        budget: number of blocks; tasks that were not measured at it are left out.
        tasks: what was measured; None for what is packed.
    """
    every = real_tasks() if tasks is None else tasks
    own = [one for one in every if one.weights == weights and budget in one.budgets]
    if not own:
        return None
    rule, label = RECOMMENDED[0], CRITERIA[RECOMMENDED[0]].label
    seeds = min(one.seeds if one.sets is None or budget == 1 else one.sets.seeds for one in own)
    told = "; ".join(
        f"{one.task} {_share(one.lost(one.named(rule, budget)))} (named {_blocks(one.named(rule, budget))}; best "
        f"{'was' if budget == 1 else 'were'} {_blocks(one.best(budget))}; at random {_share(one.by_chance(budget))})"
        for one in own
    )
    blind = [one.task for one in own if one.named(rule, budget, placebo=True) == one.named(rule, budget)]
    same = "block" if budget == 1 else "blocks"
    depth = f" With shuffled completions it names the same {same} on {'; '.join(blind)}." if blind else ""
    of = f"{budget} of {len(own[0].alone)} blocks" + (" as neighbours" if budget > 1 else "")
    return (
        f"Measured on {own[0].model}, {of}, {_several(seeds, 'seed')}. {label} lost, of what the best plan gains over "
        f"the floor: {told}.{depth} {_several(len(own), 'task').capitalize()}: a lead, no proof."
    )


def real_record(tasks: Sequence[RealTask] | None = None) -> str | None:
    """Say what the recommended rule lost on average where one block of a real model was tuned; None without a task.

    For whoever looks at a model that nobody measured. The task that had been looked at before the sweep is left out.

    Args:
        tasks: what was measured; None for what is packed.
    """
    every = real_tasks() if tasks is None else tasks
    found = _lost(every, 1)
    if not found:
        return None
    named = fmean(one.lost(one.named(RECOMMENDED[0])) or 0.0 for one, _, _ in found)
    tried, chance = (fmean(values) for values in zip(*(pair for _, *pair in found), strict=True))
    seen, apart = _apart(every, 1), ""
    if seen is not None:
        rule, best = _share(seen.lost(seen.named(RECOMMENDED[0]))), _share(seen.lost(seen.tried()))
        apart = f" {APART}: {rule}, at random {_share(seen.by_chance())}, tried {best}."
    return (
        f"On {every[0].model}, one block of {len(every[0].alone)} on {_several(len(found), 'task')}, the "
        f"recommendation lost {_share(named)} of what the best plan gains on average, blocks at random "
        f"{_share(chance)}, the best of {len(DEPTHS)} depths that were tried {_share(tried)}.{apart}"
    )


def trying_helps(budget: int, tasks: Sequence[RealTask] | None = None) -> bool:
    """Say whether trying lost less than chance on average, at the measured number of blocks nearest to a budget.

    Args:
        budget: number of blocks.
        tasks: what was measured; None for what is packed.
    """
    every = real_tasks() if tasks is None else tasks
    sizes = {size for one in every if one.task != LOOKED_AT for size in one.budgets}
    found = _lost(every, min(sizes, key=lambda size: (abs(size - budget), size))) if sizes else []
    return sum(lost - chance for _, lost, chance in found) < 0


APART = f"On {LOOKED_AT}, which had been looked at before the sweep and is not counted"
"""How a sentence on that task begins."""


def _apart(tasks: Sequence[RealTask], budget: int) -> RealTask | None:
    """Return the task that is reported apart; None where it is not measured at a budget."""
    return next((one for one in tasks if one.task == LOOKED_AT and budget in one.budgets), None)


def _lost(tasks: Sequence[RealTask], budget: int) -> list[tuple[RealTask, float, float]]:
    """Return the tasks measured at a budget, TREC apart, with what trying lost and what chance did."""
    return [
        (one, lost, chance)
        for one in tasks
        if one.task != LOOKED_AT
        and budget in one.budgets
        and (lost := one.lost(one.tried(budget))) is not None
        and (chance := one.by_chance(budget)) is not None
    ]


def tried_record(budget: int, tasks: Sequence[RealTask] | None = None) -> str | None:
    """Say what trying five depths lost where it was measured on a real model; None where no task was at that budget.

    The task that had been looked at before the sweep is left out.

    Args:
        budget: number of blocks.
        tasks: what was measured; None for what is packed.
    """
    every = real_tasks() if tasks is None else tasks
    found = _lost(every, budget)
    if not found:
        return None
    lost, chance = (fmean(values) for values in zip(*(pair for _, *pair in found), strict=True))
    each = "; ".join(f"{one.task} {_share(own)} ({_share(drawn)})" for one, own, drawn in found)
    seen, apart = _apart(every, budget), ""
    if seen is not None:
        apart = f" {APART}: {_share(seen.lost(seen.tried(budget)))} ({_share(seen.by_chance(budget))})."
    return (
        f"Measured on {every[0].model}, {budget} of {len(every[0].alone)} blocks, {_several(len(found), 'task')}, at "
        f"a searched rate: what was best of {len(DEPTHS)} depths half-way lost {_share(lost)} of what the "
        f"best plan gains in the end, blocks at random {_share(chance)}: {each}.{apart}"
    )


ANNOUNCED = 5
"""Tasks over which evenly spaced blocks were to be judged (docs/findings/2026-12-01-evenly-spaced-announced.md)."""


@dataclass(frozen=True)
class Spacing:
    """What evenly spaced blocks lost, of what the best plan gains, where several blocks of a real model were tuned."""

    tasks: tuple[RealTask, ...]
    """Those measured, TREC apart."""
    budget: int
    """Blocks of a set."""
    apart: RealTask | None = None
    """TREC, where it is measured."""

    @property
    def lost(self) -> float:
        """Mean over the tasks."""
        return self._mean(lambda one: one.spaced(self.budget))

    @property
    def stands_first(self) -> bool:
        """Whether it stands, and both others lost more beyond chance (Student's t over tasks, 95 %)."""
        return self.stands and all(
            (more := paired_difference(self._by_task(lambda one: one.spaced(self.budget)), self._by_task(other)))
            and more[1] > 0.0
            for other in (self._tried, self._named)
        )

    @property
    def stands(self) -> bool:
        """Whether both others lost more on average, over as many tasks as was announced."""
        return len(self.tasks) >= ANNOUNCED and self.lost < min(self._mean(self._tried), self._mean(self._named))

    @property
    def reason(self) -> str:
        """Why a block is among them."""
        one, chance = self.tasks[0], fmean(task.by_chance(self.budget) or 0.0 for task in self.tasks)
        return (
            f"evenly spaced: {self.budget} of {len(one.alone)} blocks of {one.model} lost {_share(self.lost)} so, at "
            f"random {_share(chance)}, by the study's rule {_share(self._mean(self._named))}"
        )

    @property
    def words(self) -> str:
        """What they lost, and what other ways did."""
        one, chance = self.tasks[0], fmean(task.by_chance(self.budget) or 0.0 for task in self.tasks)
        each = "; ".join(f"{task.task} {_share(task.lost(task.spaced(self.budget)))}" for task in self.tasks)
        return (
            f"Measured on {one.model}, {self.budget} of {len(one.alone)} blocks, {_several(len(self.tasks), 'task')}, "
            f"at a searched rate: evenly spaced blocks lost {_share(self.lost)} of what the best plan gains, "
            f"blocks at random {_share(chance)}, the best of {len(DEPTHS)} depths that were tried "
            f"{_share(self._mean(self._tried))}, the study's rule {_share(self._mean(self._named))}: {each}."
            f"{self._seen}"
        )

    @property
    def _seen(self) -> str:
        if (seen := self.apart) is None:
            return ""
        ways = (seen.spaced(self.budget), self._tried(seen), self._named(seen))
        even, tried, rule = (_share(seen.lost(blocks)) for blocks in ways)
        chance = _share(seen.by_chance(self.budget))
        return f" {APART}: {even}, at random {chance}, tried {tried}, the rule {rule}."

    def _tried(self, one: RealTask) -> Blocks:
        return one.tried(self.budget)

    def _named(self, one: RealTask) -> Blocks:
        return one.named(RECOMMENDED[0], self.budget)

    def _by_task(self, choose: Callable[[RealTask], Blocks]) -> dict[tuple[str, int], float]:
        return {(one.task, self.budget): one.lost(choose(one)) or 0.0 for one in self.tasks}

    def _mean(self, choose: Callable[[RealTask], Blocks]) -> float:
        return fmean(self._by_task(choose).values())


def spacing(budget: int, tasks: Sequence[RealTask] | None = None) -> Spacing | None:
    """Return what evenly spaced blocks lost at the measured number of blocks nearest to a budget; None without one.

    Args:
        budget: number of blocks; at one nothing can be spaced.
        tasks: what was measured; None for what is packed.
    """
    every = real_tasks() if tasks is None else tasks
    known = [one for one in every if one.task != LOOKED_AT and one.sets]
    sizes = {
        one.sets.budget for one in known if one.sets and one.spaced(one.sets.budget) in one.measured(one.sets.budget)
    }
    if budget == 1 or not sizes:
        return None
    size = min(sizes, key=lambda one: (abs(one - budget), one))
    found = [one for one in known if one.sets and one.sets.budget == size and one.lost(one.spaced(size)) is not None]
    return Spacing(tuple(found), size, _apart(every, size)) if found else None


def real_budgets(weights: str | None) -> tuple[int, ...]:
    """Return the numbers of blocks that some packed task of a model was measured at."""
    return tuple(sorted({budget for one in real_tasks() if one.weights == weights for budget in one.budgets}))


def _blocks(blocks: Blocks) -> str:
    return f"block{'' if len(blocks) == 1 else 's'} {format_blocks(blocks)}"


def _several(n: int, noun: str) -> str:
    return f"one {noun}" if n == 1 else f"{n} {noun}s"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.1f} %"
