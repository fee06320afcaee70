"""What a search for a rate may cost and whether a run pays for one: decided alike by the run and by its forecast."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from lsf.data.encode import EncodedExample
from lsf.models.loading import LoadedModel
from lsf.models.writing import N_SEQUENCES, N_TOKENS, GeneralText
from lsf.plans.cost import forward_flops
from lsf.progress import do_nothing
from lsf.runs.spec import RunSpec
from lsf.training.evaluation import BATCH_SIZE, spread_out
from lsf.training.processes import n_processes
from lsf.training.splits import LIVE_ROWS, EncodedSplits, general_text, knows_own_text, watched
from lsf.training.workload import rows_load, step_flops, workload_of

SHARE = 0.2
"""Of the run's predicted FLOPs that a search may take, its readings included."""
LEAST_STEPS, MOST_STEPS = 5, 100
"""Fewest steps a trial says something after, and the most it needs."""
TRIALS = 3
"""Rates tried first: the default, a third of it and three times it."""
SEED = 0
"""Of all that trials draw (rows, their order, LoRA's start, masks), whatever the run's: under every seed a group would
find the same."""
ROWS, TEXTS, FEWEST = 32, 8, 2
"""Validation rows and general texts that judge a trial, at most; and the texts it takes at least. Where the run's
batches are small, fewer texts are read, so that a reading costs about two steps."""
READING = 2.0
"""Optimizer steps that a reading may cost before fewer texts are read."""


@dataclass(frozen=True)
class SearchBudget:
    """How long each trial of a search is, and how many there may be."""

    steps: int
    """Optimizer steps of a trial."""
    trials: int
    """Trials at most, `TRIALS` or more."""
    reading: float
    """What reading one trial costs, in optimizer steps of the run."""
    step: float = 1.0
    """What one of its steps costs, in optimizer steps of the run."""

    def share(self, taken: int, readings: int, steps: int) -> float:
        """Return what so many steps of trials, and readings of them, cost over a run of `steps`."""
        return (taken * self.step + readings * self.reading) / steps

    @property
    def expected_steps(self) -> float:
        """What the search is expected to cost, in steps of the run: its first rates and, if paid for, one beyond."""
        count = min(self.trials, TRIALS + 1)
        return self.share(count * self.steps, count, 1)


def search_budget(steps: int, reading: float, step: float = 1.0) -> SearchBudget | None:
    """Return the longest trials that can be paid, or None where they would be too short to say anything.

    As long as four can be paid, else three.

    Args:
        steps: of the run.
        reading: what reading validation and general loss once costs, in optimizer steps of the run.
        step: what a step of a trial costs, in optimizer steps of the run.
    """
    allowed = SHARE * steps
    for count in (TRIALS + 1, TRIALS):
        each = min(MOST_STEPS, steps, math.floor((allowed / count - reading) / step))
        if each >= LEAST_STEPS:
            return SearchBudget(each, math.floor(allowed / (each * step + reading)), reading, step)
    return None


@dataclass(frozen=True)
class TrialCost:
    """What one trial costs, in optimizer steps of the run, by counting FLOPs."""

    step: float
    """One of its steps."""
    reading: float
    """Reading it once."""
    n_texts: int
    """General texts of that reading."""


def trial_cost(loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec, texts: Sequence[EncodedExample]) -> TrialCost:
    """Return what one trial of a search costs.

    Args:
        loaded: the base model.
        splits: rows of the run; they have validation rows.
        spec: what is asked.
        texts: the base model's own, of which the first few are read.

    Raises:
        BadInputError: the method cannot do what the plan asks, or a cache was asked for that has no room.
        PlanError: the plan does not fit the model.
    """
    spec = replace(spec, seed=SEED)
    work = workload_of(loaded, splits, trial_spec(spec), dense=False)
    run_step = step_flops(workload_of(loaded, splits, spec, dense=False))
    shown = watched(splits.validation)
    rows = rows_load([shown[number] for number in judging_rows(splits)], spec.batch_size)

    def reading(n_texts: int) -> float:
        return forward_flops(work.sizes, rows + rows_load(texts[:n_texts], BATCH_SIZE), work.held) / run_step

    n_texts = min(TEXTS, len(texts))
    while n_texts > FEWEST and reading(n_texts) > READING:
        n_texts //= 2
    return TrialCost(step_flops(work) / run_step, reading(n_texts), n_texts)


def trial_spec(spec: RunSpec) -> RunSpec:
    """Return the spec by which trials of a run are carried out: what processes keep they share for one fit only."""
    return replace(spec, cache="off") if n_processes() > 1 else spec


def judging_rows(splits: EncodedSplits) -> list[int]:
    """Return the validation rows that judge a trial, by their places among those that the run itself reads."""
    place = {number: place for place, number in enumerate(spread_out(len(splits.validation), LIVE_ROWS))}
    return [place[number] for number in spread_out(len(splits.validation), ROWS)]


def planned_search(loaded: LoadedModel, splits: EncodedSplits, spec: RunSpec) -> SearchBudget | None:
    """Return the budget of the search that a run will make; None where none is asked for, or none can be paid.

    Decided as the run decides it, but for what is not known before: texts of a base model that has written none yet are
    taken to be as long as they can get, and of a source of which a run encodes a part the rows are those of its seed.

    Args:
        loaded: the base model.
        splits: rows of the run.
        spec: what is asked.

    Raises:
        BadInputError, PlanError: as `trial_cost`.
    """
    if not (spec.searches_rate and splits.validation):
        return None
    tokens = min(N_TOKENS, loaded.context)
    longest = GeneralText(torch.zeros(N_SEQUENCES, tokens, dtype=torch.long), torch.full((N_SEQUENCES,), tokens))
    text = general_text(loaded, do_nothing) if knows_own_text(loaded) else longest
    cost = trial_cost(loaded, splits, spec, text.rows)
    return search_budget(splits.steps, cost.reading, cost.step)
