"""A sweep: many plans tuned on one model and task, the same steps for each; frozen records that are also its JSON."""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Literal

from lsf.data.contents import DataOptions
from lsf.errors import BadInputError
from lsf.methods.catalogue import check_base
from lsf.plans.plan import Plan, format_blocks, full_plan
from lsf.plans.policies import both_ends
from lsf.runs.spec import RunSpec
from lsf.schema import JsonRecord
from lsf.settings import DEVICES, DTYPES, check_settings, same_setting, setting

ACCEPTED = "single, suffix, prefix, window:K, ends:K, random:K:N, or several of them separated by commas"
Blocks = tuple[int, ...]


def plans_over(over: str, n_blocks: int) -> tuple[Blocks, ...]:
    """Return the blocks of every plan a sweep measures, each plan once.

    Plans come in ascending order of their lowest block: the states a deeper plan starts from are computed from those a
    shallower one left.

    Args:
        over: families of plans, such as `single,suffix,window:2,ends:2`.
        n_blocks: L of the model.

    Raises:
        BadInputError: an unknown family, or a window the model has no room for.
    """
    words = [word.strip() for word in over.split(",") if word.strip()]
    if not words:
        raise BadInputError(f"A sweep over {over!r} would measure nothing; accepted are: {ACCEPTED}.")
    found = {blocks for word in words for blocks in _family(word, n_blocks)}
    return tuple(sorted(found, key=lambda blocks: (blocks[0], len(blocks))))


def _family(word: str, n_blocks: int) -> Sequence[Blocks]:
    every = range(n_blocks)
    kind, colon, size = word.partition(":")
    if word == "single":
        return [(block,) for block in every]
    if word == "suffix":
        return [tuple(every[block:]) for block in every]
    if word == "prefix":
        return [tuple(every[: block + 1]) for block in every]
    if kind == "ends" and size.isdecimal() and 2 <= int(size) <= n_blocks:
        return [both_ends(n_blocks, int(size))]
    if kind == "ends":
        raise BadInputError(f"Cannot sweep over {word!r}; both ends of this model take 2 to {n_blocks} blocks.")
    if kind == "random":
        return _random_sets(word, n_blocks)
    if kind != "window" or not colon:
        raise BadInputError(f"Cannot sweep over {word!r}; accepted are: {ACCEPTED}.")
    if not size.isdecimal() or not 1 <= int(size) <= n_blocks:
        raise BadInputError(f"Cannot sweep over {word!r}; a window takes 1 to {n_blocks} blocks of this model.")
    return [tuple(every[start : start + int(size)]) for start in range(n_blocks - int(size) + 1)]


def _random_sets(word: str, n_blocks: int) -> Sequence[Blocks]:
    """Return different sets of blocks, drawn with a seed of their own; fewer sets are among more."""
    size, _, count = word.removeprefix("random:").partition(":")
    possible = math.comb(n_blocks, int(size)) if size.isdecimal() and 1 <= int(size) <= n_blocks else 0
    if not count.isdecimal() or not 1 <= int(count) <= possible:
        most = f"; {possible:,} such sets exist" if count.isdecimal() and possible else ""
        raise BadInputError(
            f"Cannot sweep over {word!r}{most}; random:K:N takes N different sets of K of the {n_blocks} blocks."
        )
    drawn, found = random.Random(f"{size} of {n_blocks}"), dict[Blocks, None]()
    while len(found) < int(count):
        found[tuple(sorted(drawn.sample(range(n_blocks), int(size))))] = None
    return list(found)


def relative_cost(blocks: Blocks | None, n_blocks: int) -> float:
    """Return roughly what a run costs, for the time that is left: blocks passed forward, backward, and tuned.

    Args:
        blocks: tuned; None for the whole model.
        n_blocks: L of the model.
    """
    tuned = range(n_blocks) if blocks is None else blocks
    return 2.0 + 2.0 * (n_blocks - min(tuned)) + len(tuned)


BEFORE_CHATS = {"format": "auto", "pairs": "raw", "train_on": "assistant", "chat_template": None, "max_rows": None}
"""What a sweep that does not say so was measured with."""
NOT_YET = "not measured yet"
"""Reason of a cell that no run has filled."""
BASE, FULL = "base", "full"
"""Names of the two reference cells."""


@dataclass(frozen=True)
class SweepSpec:
    """What a sweep was asked to measure, completely; `--help` and the file are made of these fields."""

    model: str
    """`bundled`, `smollm2`, a local folder, a GGUF file, or a Hugging Face id."""
    data: str
    """`lesson:NAME`, a local file, or `hub:NAME[:CONFIG][:SPLIT]`."""
    over: str = setting(
        "single",
        "which plans: single, suffix, prefix, window:K, ends:K, random:K:N (N sets of K blocks), or several separated "
        "by commas",
    )
    prompt_template: str | None = setting(None, "prompt from any columns, for example 'Question: {question}'")
    completion_template: str | None = setting(None, "completion from any columns, for example ' {answer}'")
    format: str = same_setting(DataOptions, "format")
    pairs: str = same_setting(DataOptions, "pairs")
    train_on: str = same_setting(DataOptions, "train_on")
    chat_template: str | None = same_setting(DataOptions, "chat_template")
    max_rows: int | None = same_setting(DataOptions, "max_rows")
    seeds: int = setting(3, "data orders per plan, each its own seed", low=1, high=1000)
    steps: int = setting(100, "optimizer steps of every run", low=1, high=1_000_000)
    learning_rate: float | None = setting(
        None,
        "peak learning rate, the same for every plan; auto, the default = each plan's own, the best on validation",
        low=1e-8,
        high=1.0,
    )
    batch_size: int = setting(16, "examples per optimizer step", low=1, high=65_536)
    max_length: int | None = setting(
        None, "tokens per example; default: the context, at most 1024", low=2, high=1_000_000
    )
    eval_limit: int = setting(256, "examples per evaluation, at most", low=1, high=1_000_000)
    dtype: str = setting("auto", "format of the frozen weights", choices=DTYPES)
    device: str = setting("auto", "device to run on", choices=DEVICES)

    def __post_init__(self) -> None:
        """Refuse a value out of its range, naming the field and the range."""
        check_settings(self)
        check_base("full", self.dtype)

    def run_spec(self, n_blocks: int, blocks: Blocks | None, seed: int) -> RunSpec:
        """Return one run of the sweep as any other run is asked for.

        Args:
            n_blocks: L of the model.
            blocks: tuned; None for the whole model.
            seed: of the data order.
        """
        plan = full_plan(self.model, n_blocks) if blocks is None else Plan(self.model, n_blocks, blocks)
        return RunSpec(
            model=self.model,
            data=self.data,
            plan=plan,
            prompt_template=self.prompt_template,
            completion_template=self.completion_template,
            format=self.format,
            pairs=self.pairs,
            train_on=self.train_on,
            chat_template=self.chat_template,
            max_rows=self.max_rows,
            steps=self.steps,
            learning_rate=self.learning_rate,
            warmup_steps=self.steps // 10,
            batch_size=self.batch_size,
            max_length=self.max_length,
            eval_limit=self.eval_limit,
            seed=seed,
            dtype=self.dtype,
            device=self.device,
        )


@dataclass(frozen=True)
class Score:
    """What a model came to on the test examples."""

    exact_match: float | None = None
    """Share of examples right, in [0, 1]."""
    loss: float | None = None
    """Nats per completion token."""


@dataclass(frozen=True)
class Cell:
    """One plan under one seed: measured, or missing with the reason."""

    plan: str
    """`base`, `full`, or the tuned blocks as ranges."""
    blocks: Blocks
    """Tuned blocks; none for base, all for full."""
    seed: int
    """Of the data order; 0 for base."""
    learning_rate: float | None = None
    """Peak rate used."""
    before: Score | None = None
    """Of the base model."""
    after: Score | None = None
    """Of the tuned model; None where it is missing."""
    seconds: float | None = None
    """Wall seconds of the optimizer steps."""
    reason: str | None = NOT_YET
    """Why it is missing; None where it was measured."""

    @property
    def key(self) -> tuple[str, int]:
        """What tells it apart from the other cells."""
        return self.plan, self.seed


@dataclass(frozen=True)
class Rate:
    """How a plan came to its rate."""

    learning_rate: float
    """Of the lowest validation loss after all steps, with seed 0."""
    tried: tuple[tuple[float, float | None], ...]
    """(Rate, validation loss in nats per token), ascending; None where the loss diverged."""


@dataclass(frozen=True)
class Sweep(JsonRecord):
    """Everything a sweep has measured so far."""

    noun: ClassVar = "sweep"
    spec: SweepSpec
    """What was asked."""
    n_blocks: int
    """L of the model."""
    weights: str
    """SHA-256 of the base model's weights."""
    fingerprint: str
    """SHA-256 of the data."""
    cells: tuple[Cell, ...]
    """base, full, then every plan; each for every seed."""
    rates: Mapping[str, Rate]
    """Plan -> the rate found for it; empty where the rate was given."""
    seconds: float = 0.0
    """Wall seconds of everything measured so far, in all its parts."""
    environment: Mapping[str, str | None] | None = None
    """lsf, torch, transformers, python, platform, gpu."""
    prior: Score | None = None
    """Of the best answer to the test examples that ignores the prompt; None in files from before it was kept."""
    rendering: str | None = None
    """How the texts of the training rows are made (`EncodedSplits`); None in files from before it was kept."""
    texts: str | None = None
    """SHA-256 of the token ids and targets of the rows it reads; None in files from before it was kept."""
    first_texts: str | None = None
    """SHA-256 over the token ids and targets of the first training rows; None in files from before it was kept."""
    schema_version: Literal[1] = 1

    @property
    def missing(self) -> tuple[Cell, ...]:
        """Cells without a score."""
        return tuple(cell for cell in self.cells if cell.after is None)

    def with_cell(self, cell: Cell) -> "Sweep":
        """Return the sweep with a cell in the place of the one of its plan and seed."""
        return replace(self, cells=tuple(cell if known.key == cell.key else known for known in self.cells))

    def of_first(self, seeds: int) -> "Sweep":
        """Return the sweep as if it had been asked for so many of its seeds."""
        kept = tuple(cell for cell in self.cells if cell.seed < seeds)
        return replace(self, spec=replace(self.spec, seeds=seeds), cells=kept)

    def to_json(self) -> dict[str, Any]:
        """Return the sweep as plain JSON values: schema_version, every field of what was asked, then the others."""
        plain = super().to_json()
        return {"schema_version": plain.pop("schema_version"), **plain.pop("spec"), **plain}

    @classmethod
    def arranged(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Return what a file holds with what was asked as one field."""
        asked, value = {item.name for item in fields(SweepSpec)}, {**BEFORE_CHATS, **value}
        spec = {name: value[name] for name in value if name in asked}
        return {"spec": spec, **{name: value[name] for name in value if name not in asked}}


def empty_cells(plans: tuple[Blocks, ...], n_blocks: int, seeds: int) -> tuple[Cell, ...]:
    """Return the cells of a sweep before anything is measured: base, full, then each plan for each seed."""
    full = [Cell(FULL, tuple(range(n_blocks)), seed) for seed in range(seeds)]
    planned = [Cell(format_blocks(blocks), blocks, seed) for blocks in plans for seed in range(seeds)]
    return (Cell(BASE, (), 0), *full, *planned)
