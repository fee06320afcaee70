"""What an analysis is, and its settings: frozen records that are also analysis.json (schema_version 1).

What a record says of its way is read from it too: fewer states of the first example, then fewer examples.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np

from lsf.criteria.registry import CRITERIA
from lsf.models.info import ModelInfo
from lsf.schema import JsonRecord
from lsf.settings import POSITIONS, READINGS, SPLITS, VIRTUALS, check_settings, setting


@dataclass(frozen=True)
class Sample:
    """What the examples read first said of the blocks, before the others were read."""

    n_examples: int
    """Examples read until then."""
    scores: Mapping[str, tuple[float | None, ...]]
    """Criterion of the forward pass or of kernels -> its score per block from these examples alone, block 0 first; None
    where it overflowed."""
    halves: Mapping[str, float | None]
    """Criterion -> Kendall's tau between the rankings of two halves of them; None where it is unknown."""
    settled: Mapping[str, bool | None]
    """Criterion -> whether `--limit auto` would stop here; None where it does not look."""


def is_power_of_two(count: int) -> bool:
    """Say whether a number of batches is one after which it is asked whether the ranking has settled."""
    return count > 0 and count & (count - 1) == 0


def is_mark(count: int) -> bool:
    """Say whether a sample is recorded after so many batches: 1, 2, 3, 4, 6, 8, 12, 16, 24, ..."""
    return is_power_of_two(count) or (count % 3 == 0 and is_power_of_two(count // 3))


@dataclass(frozen=True)
class DataInfo:
    """The examples that were measured, and how."""

    name: str
    """Of the task."""
    split: str
    """train, validation, test or all."""
    n_examples: int
    """Examples measured."""
    n_positions: int
    """Positions measured."""
    n_dropped: int
    """Examples left out because their completion does not fit the context."""
    positions: str
    """first, all or every:K."""
    reading: str
    """lens or raw."""
    virtual: str
    """even or calibrated."""
    mean_tokens: float | None = None
    """Tokens per example, prompt and completion."""
    attended_tokens: float | None = None
    """Tokens of the example that a token stands in, the mean over tokens: sum of squared lengths over their sum,
    for the cost model's attention terms. None in older files, where mean_tokens takes its place."""
    target_share: float | None = None
    """Share of the tokens that are trained, an end-of-text that training appends among them: the head computes logits
    there alone. None in older files."""
    settled: bool | None = None
    """True where reading ended because the ranking had settled, False where it never did; None where not asked for."""
    jittered: bool = False
    """True where the LM head's Gram matrix is singular: 1e-6 of its mean diagonal was added for the semantic bases."""
    n_straddling: int | None = None
    """Examples in which a token straddles the border of prompt and completion; None in older files."""
    n_rows: int | None = None
    """Rows the split has; a limit takes the first of them, in the order of the source."""
    n_taken: int | None = None
    """Rows of these that were taken; one of plain text gives an example per window. None in older files."""
    kernel_examples: int | None = None
    """Examples whose tangent kernels were taken, the first ones; None where no criterion needs kernels."""
    sampled_positions: int | None = None
    """Positions that `cka` compares, those of the first examples; None where no criterion needs them."""
    ablation_positions: int | None = None
    """Positions read without a block each (`ablation`), those of the first examples; None where that was not done."""
    fingerprint: str | None = None
    """SHA-256 of the rows of every split, templates filled; None in older files."""
    rendering: str | None = None
    """How the texts were made: raw, chat and by which template, plain text, ...; None in older files."""
    told: tuple[str, ...] = ()
    """Sentences on what the chat template did to rows; empty in files from before 2026-12-01."""
    first_texts: str | None = None
    """SHA-256 over the token ids and targets of the first training rows; None in files from before 2026-12-01."""
    unknown: str | None = None
    """The sentence on targets that stand for words the model does not know; None where none does."""
    unlike: str | None = None
    """The sentence on rows read that do not stand for all, in data sorted by its answers; None where they do."""
    short: str | None = None
    """The sentences on criteria that memory, or a bound on it, did not suffice for; their scores are None."""

    @property
    def n_read(self) -> int:
        """Rows that were read, those left out too; at most these where plain text was read until a ranking settled."""
        read = self.n_examples + self.n_dropped
        return read if self.n_taken is None else min(read, self.n_taken)


@dataclass(frozen=True)
class StateRow:
    """One latent space: state l = 0 .. L."""

    state: int
    """l."""
    deviation: float | None
    """Mean of 1 - cos(factual, virtual), in [0, 2]."""
    deviation_low: float | None
    """Lower end of its 95 % interval over examples; None for a single example."""
    deviation_high: float | None
    """Upper end of it."""
    target_deviation: float | None
    """Mean of 1 - cos(factual, target's semantic basis), in [0, 2]."""
    target_deviation_low: float | None
    """Lower end of its 95 % interval over examples."""
    target_deviation_high: float | None
    """Upper end of it."""
    target_probability: float | None
    """Mean probability of the target token in the logit lens."""
    target_rank_median: float | None
    """Median rank of the target token in the logit lens; 1 is the top."""
    top_tokens: tuple[tuple[str, float], ...]
    """Tokens and their mean probability, counted where a token is among the five most likely of a position only: a
    lower bound, greatest first."""


@dataclass(frozen=True)
class BlockRow:
    """One transformer block b = 0 .. L-1."""

    block: int
    """b."""
    n_params: int
    """Parameters of the block."""
    scores: Mapping[str, float | None]
    """Score per criterion; higher = tune it first."""


@dataclass(frozen=True)
class ExamplePath:
    """One position of one example, kept so that it can be drawn."""

    row: int | None
    """Row in the data file; None where there is no file."""
    prompt: str
    """The example's prompt."""
    completion: str
    """The example's completion."""
    current_token: str
    """Text of the position's current token."""
    target_token: str
    """Text of the token to be predicted."""
    factual: tuple[tuple[float, ...], ...]
    """L+1 points of 3 principal coordinates."""
    virtual: tuple[tuple[float, ...], ...]
    """L+1 points of 3 principal coordinates."""
    deviation: tuple[float, ...]
    """Deviation of this position at each state."""
    target_deviation: tuple[float, ...]
    """Target deviation of this position at each state."""
    target_probability: tuple[float, ...]
    """Lens probability of the target at each state."""
    target_rank: tuple[int, ...]
    """Lens rank of the target at each state; 1 is the top."""
    top_tokens: tuple[tuple[tuple[str, float], ...], ...]
    """Per state the lens's best tokens with their probabilities."""
    read: str = ""
    """The end of the text that is read at this position, its current token included; empty in older files."""

    @property
    def before_target(self) -> str:
        """What stands before the target: the text read, or the prompt in files that do not have it; line ends as ⏎."""
        return (self.read or self.prompt).replace("\n", "⏎")


@dataclass(frozen=True)
class Trajectories:
    """Paths through the latent spaces in one common PCA, fitted once on the first batch."""

    explained_variance: tuple[float, ...]
    """Share of variance of each of the 3 components."""
    factual: tuple[tuple[float, ...], ...]
    """Mean path of `examples`: L+1 points of 3 coordinates."""
    virtual: tuple[tuple[float, ...], ...]
    """Mean path of `examples`: L+1 points of 3 coordinates."""
    examples: tuple[ExamplePath, ...]
    """The first measured positions, at most `KEPT_EXAMPLES`."""


@dataclass(frozen=True)
class Timing:
    """How long it took."""

    forward_seconds: float | None
    """Seconds in forward passes."""
    total_seconds: float | None
    """Seconds in all, model loading not counted."""
    tokens_per_second: float | None
    """Real tokens (padding not counted) per second of forward pass."""


@dataclass(frozen=True)
class Analysis(JsonRecord):
    """One analysis: L+1 states, L blocks; partial while it streams, the same type when it is done."""

    noun: ClassVar = "analysis"
    model: ModelInfo
    data: DataInfo
    states: tuple[StateRow, ...]
    blocks: tuple[BlockRow, ...]
    timing: Timing
    environment: Mapping[str, str | None]
    """lsf, torch, transformers, python, platform, gpu."""
    trajectories: Trajectories | None = None
    """None until the first batch was read."""
    growth: tuple[Sample, ...] | None = None
    """Growing samples in reading order, the smallest first; None where none was recorded."""
    weights: str | None = None
    """SHA-256 over the model's weights, as in result.json; None while it streams, and of a spread model."""
    schema_version: Literal[1] = 1

    def scores(self, criterion: str) -> tuple[float | None, ...]:
        """Return one criterion's score of each block, block 0 first; None where it was not measured.

        Raises:
            UnknownNameError: there is no such criterion, neither here nor at all.
        """
        if not any(criterion in block.scores for block in self.blocks):
            _ = CRITERIA[criterion]
        return tuple(block.scores.get(criterion) for block in self.blocks)

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the criteria scored for every block, in recorded order."""
        names = self.blocks[0].scores if self.blocks else {}
        return tuple(name for name in names if None not in self.scores(name))


DEFAULT_CRITERIA = (
    "deviation",
    "deviation_growth",
    "law_headroom",
    "reduction",
    "block_influence",
    "gradient_norm",
    "relative_gradient",
    "alignment",
    "first",
    "last",
    "middle",
    "random",
)


@dataclass(frozen=True)
class AnalysisSettings:
    """What is measured, on how many examples, and how it is read."""

    limit: int | None = setting(
        200, "examples to measure, at most; auto = until the ranking settles", low=1, high=10_000_000
    )
    settle: bool = setting(False, "stop as soon as the ranking of the first forward criterion has settled")
    split: str = setting("auto", "which examples: train where the data has splits, else all", choices=SPLITS)
    positions: str = setting(
        "first", "the first token of each answer, all of them, or every:K-th; of plain text, first is every:16",
        choices=POSITIONS, also=("every:K", r"every:[1-9]\d{0,5}"),
    )  # fmt: skip
    reading: str = setting(
        "lens",
        "a state after the final norm, or raw; jacobian, affine: mapped to the last state first, fitted once per model",
        choices=READINGS,
    )
    virtual: str = setting("even", "the virtual transition's pace", choices=VIRTUALS)
    criteria: tuple[str, ...] = setting(DEFAULT_CRITERIA, "criteria to score, by name")
    batch_size: int = setting(16, "examples per forward pass", low=1, high=65_536)
    max_length: int | None = setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    seed: int = setting(0, "seed of the random control", low=0, high=2**31 - 1)

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        check_settings(self)


MOST_DEPTHS = 11
"""Moments in which the first example goes through the model; deeper models take several states at once."""
PER_STATE = (
    "factual", "virtual", "deviation", "target_deviation", "target_probability", "target_rank", "top_tokens",
)  # fmt: skip
"""What an `ExamplePath` holds for every state."""
Moment = tuple[int, int]
"""How many of the positions that were kept, and how many states of each, were read."""


def moments(analysis: Analysis) -> tuple[Moment, ...]:
    """Return what is shown one after the other: layer by layer at the first position, then position by position.

    Args:
        analysis: finished or partial, with trajectories.
    """
    assert analysis.trajectories is not None
    n_states, n_positions = len(analysis.states), len(analysis.trajectories.examples)
    if not n_positions:
        return ()
    step = -(-n_states // MOST_DEPTHS)
    depths = [*range(step, n_states, step), n_states]
    counts = [*(2**power for power in range(1, n_positions.bit_length()) if 2**power < n_positions), n_positions]
    more = [(count, n_states) for count in counts if count > 1]
    return (*((1, depth) for depth in depths), *more)


def part_of(analysis: Analysis, moment: Moment) -> Analysis:
    """Return an analysis of the first positions that were kept and of the first states; what is not in it is None.

    Examples are told apart by their row and text, so that several positions of one count once; so do the windows of one
    text. Scores are of the criterion `deviation` alone, which needs nothing else; intervals are left out.
    """
    assert analysis.trajectories is not None
    n_positions, n_states = moment
    examples = tuple(_cut(one, n_states) for one in analysis.trajectories.examples[:n_positions])
    n_examples = len({(one.row, one.prompt, one.completion) for one in examples})
    n_taken = n_examples + analysis.data.n_dropped
    states = tuple(_state(row.state, examples, n_states) for row in analysis.states)
    blocks = tuple(replace(row, scores={"deviation": states[row.block + 1].deviation}) for row in analysis.blocks)
    paths = {name: _mean_path([getattr(one, name) for one in examples]) for name in ("factual", "virtual")}
    return replace(
        analysis,
        data=replace(analysis.data, n_examples=n_examples, n_positions=n_positions, n_taken=n_taken),
        states=states,
        blocks=blocks,
        trajectories=Trajectories(analysis.trajectories.explained_variance, examples=examples, **paths),
        growth=None,
    )


def _cut(example: ExamplePath, n_states: int) -> ExamplePath:
    cut: dict[str, Any] = {name: getattr(example, name)[:n_states] for name in PER_STATE}
    return replace(example, **cut)


def _state(state: int, examples: Sequence[ExamplePath], n_states: int) -> StateRow:
    def mean(name: str) -> float | None:
        return float(np.mean([getattr(one, name)[state] for one in examples])) if state < n_states else None

    ranks = [one.target_rank[state] for one in examples] if state < n_states else []
    return StateRow(
        state=state,
        deviation=mean("deviation"),
        deviation_low=None,
        deviation_high=None,
        target_deviation=mean("target_deviation"),
        target_deviation_low=None,
        target_deviation_high=None,
        target_probability=mean("target_probability"),
        target_rank_median=float(np.median(ranks)) if ranks else None,
        top_tokens=examples[0].top_tokens[state] if ranks and len(examples) == 1 else (),
    )


def _mean_path(paths: Iterable[Sequence[Sequence[float]]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(point) for point in np.mean([np.asarray(path) for path in paths], axis=0).tolist())
