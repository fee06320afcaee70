"""A plan: which blocks are tuned, and why; a JSON file anybody can edit."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from html import escape
from operator import index
from typing import Any, ClassVar, Literal

from lsf.errors import PlanError
from lsf.schema import JsonRecord
from lsf.wording import counted


@dataclass(frozen=True)
class Predicted:
    """What a plan is expected to cost; None where it is not known."""

    trainable_params: int | None = None
    """Parameters that get gradients and optimizer state."""
    flops_ratio: float | None = None
    """Training FLOPs per token over those of full fine-tuning, in (0, 1]."""
    memory_bytes: int | None = None
    """What a run takes above the loaded model. By counting: own weights, gradients and optimizer state, so at least
    that; from a measured pass (`phases` are known) with activations and prefix cache, as runs measure it."""
    step_seconds: float | None = None
    """Seconds of one optimizer step, from a measured pass on this machine; None without one."""
    phases: Mapping[str, float] = field(default_factory=dict)
    """Wall seconds by phase (lsf.runs.result.PHASES) of the whole run, evaluation included; empty where not known."""

    @property
    def wall_seconds(self) -> float | None:
        """Wall seconds of the whole run."""
        return sum(self.phases.values()) if self.phases else None


@dataclass(frozen=True)
class Plan(JsonRecord):
    """The blocks and modules to tune; everything else stays frozen.

    Raises:
        PlanError: a block that the model does not have, nothing to tune, or a rate out of (0, 1].

    Example:
        >>> Plan("bundled", 8, (6, 5), final_norm=True).label
        'blocks 5-6 + final norm'
    """

    noun: ClassVar = "plan"
    refusal: ClassVar = PlanError
    model: str
    """Name of the model it was made for."""
    n_blocks: int
    """L of that model."""
    blocks: tuple[int, ...]
    """Tuned blocks, ascending, each in 0 .. L-1."""
    embedding: bool = False
    """Whether the input embedding is tuned."""
    final_norm: bool = False
    """Whether the final norm is tuned."""
    head: bool = False
    """Whether the LM head is tuned; a tied head moves the embedding too."""
    modules: tuple[str, ...] = ()
    """Dotted names of further modules that are tuned, such as a connector beside the decoder."""
    criterion: str | None = None
    """Criterion that chose the blocks; None for a choice by hand."""
    policy: str | None = None
    """Policy that chose the blocks; None for a choice by hand."""
    budget: Mapping[str, int | float] = field(default_factory=dict)
    """The limit it was made under: {"blocks": 3}."""
    reasons: Mapping[str, str] = field(default_factory=dict)
    """Block number (as text) -> why it was chosen."""
    predicted: Predicted = field(default_factory=Predicted)
    """What it is expected to cost."""
    rates: Mapping[str, float] = field(default_factory=dict)
    """Method -> peak learning rate that was best where the plan was tried; what a run by it takes that is given no
    number. Empty where nothing was tried."""
    schema_version: Literal[1] = 1

    def __post_init__(self) -> None:
        """Refuse blocks that the model does not have, a plan that tunes nothing, and rates that are none."""
        if isinstance(self.blocks, str) or not isinstance(self.blocks, Iterable):
            raise PlanError(f"blocks is {self.blocks!r}; several were expected, such as (3,).")
        blocks = [index(one) if hasattr(one, "__index__") and not isinstance(one, bool) else one for one in self.blocks]
        for block in blocks:
            if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < self.n_blocks:
                raise PlanError(f"Block {block!r} does not exist; {self.model} has blocks 0 to {self.n_blocks - 1}.")
        if not (blocks or self.embedding or self.final_norm or self.head or self.modules):
            raise PlanError(f"The plan tunes nothing; name at least one block in 0 to {self.n_blocks - 1}.")
        for method, rate in self.rates.items():
            if isinstance(rate, bool) or not isinstance(rate, (int, float)) or not 0.0 < rate <= 1.0:
                raise PlanError(f"The rate of {method!r} in the plan is {rate!r}; it must be above 0 and at most 1.")
        object.__setattr__(self, "blocks", tuple(sorted(set(blocks))))
        object.__setattr__(self, "modules", tuple(self.modules))

    @property
    def is_full(self) -> bool:
        """True where every block and every module is tuned."""
        return len(self.blocks) == self.n_blocks and self.embedding and self.final_norm and self.head

    @property
    def by_hand(self) -> bool:
        """True where no criterion, no policy and no trying chose the blocks."""
        return self.criterion is None and self.policy is None and not self.rates

    @property
    def beside(self) -> tuple[str, ...]:
        """What is tuned beside the blocks, by name: `embedding`, `final norm`, `head`, and further modules."""
        own = [name for name in ("embedding", "final_norm", "head") if getattr(self, name)]
        return *(name.replace("_", " ") for name in own), *self.modules

    @property
    def bare(self) -> "Plan":
        """What it tunes and nothing else: how it was chosen, what it is expected to cost and rates are left out."""
        return replace(self, criterion=None, policy=None, budget={}, reasons={}, predicted=Predicted(), rates={})

    @property
    def label(self) -> str:
        """A short name for tables and legends: `full`, or the tuned blocks as ranges (`block 3`, `blocks 5-7, 9`)."""
        if self.is_full:
            return "full"
        blocks = [f"block{'s' if len(self.blocks) > 1 else ''} {format_blocks(self.blocks)}"] if self.blocks else []
        return " + ".join([*blocks, *self.beside])

    def tied_words(self, tied_head: bool) -> str | None:
        """Say what tuning the head costs where it is tied to the embedding; None where nothing is to be said.

        Args:
            tied_head: whether it is, in the model.
        """
        if not (self.head and tied_head) or self.embedding:
            return None
        return "The head is tied to the embedding, which moves with it: nothing below can be frozen or cached."

    def lora_config(self, r: int = 8, alpha: float = 16.0, **others: Any) -> Any:
        """Return peft's configuration of LoRA on every linear map of the planned blocks, and of nothing else.

        Fused experts and their router are no linear maps and stay as they are. Where only some blocks have experts,
        peft takes `gate_proj`, `up_proj` and `down_proj` of the others for those of experts, in all blocks: such a
        model is refused when peft is given it, as the method lora refuses it; give `target_modules` without them there.

        Args:
            r: rank of the updates.
            alpha: they are scaled by alpha / r.
            **others: further fields of `peft.LoraConfig`, such as `lora_dropout`; `target_modules` for fewer maps.

        Returns:
            A `peft.LoraConfig`, for `peft.get_peft_model(model, config)`.

        Raises:
            PlanError: the plan names no block, or something beside blocks.

        Example:
            >>> import lsf, peft
            >>> config = lsf.Plan("bundled", 8, (5, 6)).lora_config(r=4)
            >>> adapted = peft.get_peft_model(lsf.load("bundled").model, config)
            >>> names = [name for name, value in adapted.named_parameters() if value.requires_grad]
            >>> sorted({name.split(".")[4] for name in names})
            ['5', '6']
        """
        if not self.blocks:
            raise PlanError(f"LoRA tunes blocks and the plan names none ({self.label}); name at least one.")
        if self.beside and not self.is_full:
            raise PlanError(f"LoRA tunes blocks alone and the plan names {', '.join(self.beside)} too; leave them out.")
        from lsf.models.families import FAMILIES, LINEAR_MAPS  # noqa: PLC0415 imports torch
        from lsf.models.lora import LinearLora  # noqa: PLC0415 imports torch

        lists = "|".join(sorted({family.blocks.rpartition(".")[2] for family in FAMILIES.values()}))
        block = rf"(?:.*\.)?(?:{lists})\.(?:{'|'.join(map(str, self.blocks))})\."
        inside = rf"{block}(?!.*\bexperts\b)(?:.*\.)?(?:{'|'.join(LINEAR_MAPS)})"
        # peft turns a pattern into bare names for models with experts, so that the blocks are named a second time.
        fixed = {"target_modules": inside, "exclude_modules": rf"(?!{block}).*", "task_type": "CAUSAL_LM"}
        return LinearLora(**{"r": r, "lora_alpha": alpha, "lora_dropout": 0.0, **fixed, **others})

    def _repr_html_(self) -> str:
        """Return the tuned blocks and why, as a notebook shows them."""
        rows = "".join(f"<tr><td>{key}</td><td>{escape(str(why))}</td></tr>" for key, why in self.reasons.items())
        table = f"<table><tr><th>block</th><th>why</th></tr>{rows}</table>" if rows else ""
        return f"<p>Tune {escape(self.label)} of {escape(self.model)} ({counted(self.n_blocks, 'block')})</p>{table}"


def check_plan(plan: Any) -> None:
    """Refuse what is no plan.

    Raises:
        PlanError: with how one is made.
    """
    if not isinstance(plan, Plan):
        make = "lsf.Plan(model, n_blocks, blocks), or analysis.recommend(blocks)"
        raise PlanError(f"A {type(plan).__name__} was given as the plan; make one first: {make}.")


def full_plan(model: str, n_blocks: int) -> Plan:
    """Return the plan that tunes everything: full fine-tuning."""
    return Plan(model, n_blocks, tuple(range(n_blocks)), embedding=True, final_norm=True, head=True)


def parse_blocks(text: str, n_blocks: int) -> tuple[int, ...]:
    """Read `3,5-7` as blocks 3, 5, 6, 7.

    Raises:
        PlanError: not numbers or ranges, or a block the model does not have.
    """
    blocks: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() or not dash)):
            raise PlanError(f"Cannot read {text!r} as blocks; write numbers and ranges such as 3,5-7.")
        if last and int(last) < int(first):
            raise PlanError(f"The range {part.strip()} names no block; write ascending ranges such as 5-7.")
        if (highest := max(int(first), int(last or first))) >= n_blocks:
            raise PlanError(f"Block {highest} does not exist; the model has blocks 0 to {n_blocks - 1}.")
        blocks += range(int(first), int(last or first) + 1)
    return tuple(sorted(set(blocks)))


def format_blocks(blocks: Iterable[int]) -> str:
    """Write blocks 3, 5, 6, 7 as `3, 5-7`."""
    runs: list[list[int]] = []
    for block in sorted(blocks):
        if runs and runs[-1][-1] == block - 1:
            runs[-1].append(block)
        else:
            runs.append([block])
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def place_of(plan: Plan) -> str:
    """Return how the grid writes a place."""
    return "whole model" if plan.is_full else plan.label
