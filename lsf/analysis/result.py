"""What an analysis is: frozen records that are also analysis.json (schema_version 1, unknown is null)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from lsf.analysis.growth import Sample, parse_sample
from lsf.errors import BadInputError
from lsf.files import read_json, write_json

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ModelInfo:
    """The model that was measured."""

    name: str
    """`bundled`, `smollm2`, a folder, a GGUF file, or a Hugging Face id."""
    revision: str | None
    """Commit on the hub; None for a local model."""
    family: str
    """Row of the families table."""
    n_blocks: int
    """L."""
    width: int
    """d, the width of the residual stream."""
    vocab_size: int
    """V, rows of the LM head."""
    tied_head: bool
    """True where the LM head is the input embedding."""
    n_params: int
    """Parameters of the whole model, a tied head counted once."""
    dtype: str
    """Of the weights in memory: float32, bfloat16."""
    device: str
    """cpu, cuda:0, mps."""
    origin: str | None = None
    """What the weights are, where that is not plain from the name: published or rounded, dequantised from what."""


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
    """first or all."""
    reading: str
    """lens or raw."""
    virtual: str
    """even or calibrated."""
    mean_tokens: float | None = None
    """Tokens per example, prompt and completion; for the cost model's attention terms."""
    settled: bool | None = None
    """True where reading ended because the ranking had settled, False where it never did; None where not asked for."""
    jittered: bool = False
    """True where the LM head's Gram matrix is singular: 1e-6 of its mean diagonal was added for the semantic bases."""
    n_straddling: int | None = None
    """Examples in which a token straddles the border of prompt and completion; None in older files."""
    n_rows: int | None = None
    """Examples the split has; a limit takes the first of them, in the order of the source."""
    kernel_examples: int | None = None
    """Examples whose tangent kernels were taken, the first ones; None where no criterion needs kernels."""
    sampled_positions: int | None = None
    """Positions that `cka` compares, those of the first examples; None where no criterion needs them."""
    short: str | None = None
    """The sentence on criteria that memory did not suffice for, whose scores are None; None where it sufficed."""


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
    """The first measured positions, at most `gallery.KEPT_EXAMPLES`."""


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
class Analysis:
    """One analysis: L+1 states, L blocks; partial while it streams, the same type when it is done."""

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
    schema_version: int = SCHEMA_VERSION

    def scores(self, criterion: str) -> tuple[float | None, ...]:
        """Return one criterion's score of each block, block 0 first; None where it was not measured."""
        return tuple(block.scores.get(criterion) for block in self.blocks)

    @property
    def criteria(self) -> tuple[str, ...]:
        """Names of the criteria scored for every block, in recorded order."""
        names = self.blocks[0].scores if self.blocks else {}
        return tuple(name for name in names if None not in self.scores(name))

    def to_json(self) -> dict[str, Any]:
        """Return the analysis as plain JSON values, schema_version first."""
        plain = asdict(self)
        return {"schema_version": plain.pop("schema_version"), **plain}

    def save(self, path: Path) -> None:
        """Write analysis.json, whole or not at all."""
        write_json(path, self.to_json())


def load_analysis(path: Path) -> Analysis:
    """Read analysis.json.

    Raises:
        BadInputError: not JSON, another schema version, or a field is missing.
    """
    return parse_analysis(read_json(path, "an analysis"), str(path))


def parse_analysis(value: Any, where: str) -> Analysis:
    """Build an `Analysis` from JSON values; `where` names them in errors."""
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version != SCHEMA_VERSION:
        raise BadInputError(f"{where} has schema_version {version}; an analysis of schema_version 1 was expected.")
    try:
        trajectories, growth = value.get("trajectories"), value.get("growth")
        return Analysis(
            model=ModelInfo(**value["model"]),
            data=DataInfo(**value["data"]),
            states=tuple(StateRow(**{**row, "top_tokens": _pairs(row["top_tokens"])}) for row in value["states"]),
            blocks=tuple(BlockRow(**row) for row in value["blocks"]),
            timing=Timing(**value["timing"]),
            environment=value["environment"],
            trajectories=None if trajectories is None else _trajectories(trajectories),
            growth=None if growth is None else tuple(parse_sample(sample) for sample in growth),
            weights=value.get("weights"),
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise BadInputError(f"{where} is not a whole analysis: {error} is missing or of the wrong kind.") from None


def _pairs(pairs: Any) -> tuple[tuple[str, float], ...]:
    return tuple((token, share) for token, share in pairs)


def _points(points: Any) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(point) for point in points)


def _trajectories(value: dict[str, Any]) -> Trajectories:
    examples = tuple(_example_path(example) for example in value["examples"])
    explained = tuple(value["explained_variance"])
    return Trajectories(explained, _points(value["factual"]), _points(value["virtual"]), examples)


def _example_path(value: dict[str, Any]) -> ExamplePath:
    plain = {field.name: value[field.name] for field in fields(ExamplePath)}
    plain["factual"], plain["virtual"] = _points(plain["factual"]), _points(plain["virtual"])
    for name in ("deviation", "target_deviation", "target_probability", "target_rank"):
        plain[name] = tuple(plain[name])
    plain["top_tokens"] = tuple(_pairs(state) for state in plain["top_tokens"])
    return ExamplePath(**plain)
