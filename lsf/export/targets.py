"""EXPORTS: a plan as other trainers take it; what one of them cannot express is refused with a sentence."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from lsf.analysis.plan import Plan
from lsf.errors import PlanError
from lsf.export.script import training_script
from lsf.export.skeleton import Skeleton
from lsf.measure.source import find_model
from lsf.registry import Registry
from lsf.training.default_rates import Tuned, default_rate, share_of


@dataclass(frozen=True)
class Export:
    """One trainer that can take a plan."""

    name: str
    """Key in EXPORTS."""
    label: str
    """What a person reads."""
    meaning: str
    """One sentence on what is written."""
    source: str
    """Whose format it is."""
    suffix: str
    """Of the file."""
    write: Callable[[Skeleton, Plan], str]
    """(Skeleton, Plan) -> the file's text; raises PlanError for what the format cannot express."""


def peft_config(skeleton: Skeleton, plan: Plan) -> str:
    """Return peft's adapter_config.json: LoRA on every linear map of the planned blocks.

    Raises:
        PlanError: the plan tunes something beside blocks, or no block.
    """
    if plan.embedding or plan.final_norm or plan.head or plan.modules:
        raise PlanError(
            f"peft's layers_to_transform names blocks only and the plan {plan.label} tunes more; leave embedding, "
            "final norm and head out, or export to axolotl or transformers."
        )
    blocks = skeleton.anatomy.family.blocks
    return _json(
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": _place(plan),
            "r": 8,
            "lora_alpha": 16,
            "lora_dropout": 0.0,
            "bias": "none",
            "target_modules": skeleton.linear_suffixes(plan),
            "layers_to_transform": list(plan.blocks),
            "layers_pattern": blocks.rpartition(".")[2],
        }
    )


def axolotl_yaml(skeleton: Skeleton, plan: Plan) -> str:
    """Return Axolotl's `unfrozen_parameters`: regular expressions that match the planned tensors and no other."""
    patterns = unfrozen_patterns(skeleton, plan)
    lines = [f"base_model: {json.dumps(_place(plan))}", "unfrozen_parameters:"]
    return "\n".join([*lines, *(f"  - {_quoted(pattern)}" for pattern in patterns)]) + "\n"


def unfrozen_patterns(skeleton: Skeleton, plan: Plan) -> list[str]:
    """Return one expression per planned block, and one per tensor outside of the blocks."""
    blocks = [skeleton.anatomy.block_names[block] for block in plan.blocks]
    patterns = [f"^{re.escape(block)}\\." for block in blocks]
    inside = tuple(f"{block}." for block in blocks)
    return patterns + [f"^{re.escape(name)}$" for name in skeleton.tensors(plan) if not name.startswith(inside)]


def llamafactory_yaml(skeleton: Skeleton, plan: Plan) -> str:
    """Return LLaMA-Factory's freeze tuning: the last (positive) or first (negative) blocks of the model.

    Raises:
        PlanError: the blocks are neither the last nor the first ones.
    """
    count, total = len(plan.blocks), plan.n_blocks
    if plan.blocks == tuple(range(total - count, total)):
        number = count
    elif plan.blocks == tuple(range(count)):
        number = -count
    else:
        raise PlanError(
            f"LLaMA-Factory's freeze tuning takes the first or the last blocks only and the plan tunes {plan.label} of "
            f"{total}; choose a suffix (policy suffix), or export to axolotl, peft or transformers."
        )
    if not count:
        raise PlanError("LLaMA-Factory's freeze tuning needs at least one block and the plan names none.")
    anatomy = skeleton.anatomy
    extra = [
        name.rpartition(".")[2]
        for wanted, name in (
            (plan.embedding, anatomy.embedding_name),
            (plan.final_norm, anatomy.final_norm_name),
            (plan.head, anatomy.head_name),
        )
        if wanted and name
    ]
    lines = [
        f"model_name_or_path: {json.dumps(_place(plan))}",
        "stage: sft",
        "do_train: true",
        "finetuning_type: freeze",
        f"freeze_trainable_layers: {number}",
        "freeze_trainable_modules: all",
    ]
    return "\n".join([*lines, *([f"freeze_extra_modules: {','.join(extra)}"] if extra else [])]) + "\n"


def transformers_script(skeleton: Skeleton, plan: Plan) -> str:
    """Return a Python script on transformers alone that tunes exactly the planned tensors."""
    n_params = sum(value.numel() for value in skeleton.model.parameters())
    rate = default_rate("full", Tuned(skeleton.anatomy.config.hidden_size, n_params, share_of(plan)))
    return training_script(_place(plan), plan.label, unfrozen_patterns(skeleton, plan), rate)


def _place(plan: Plan) -> str:
    """Return what other tools load: a name of the hub, or the folder a name of ours stands for."""
    source = find_model(plan.model)
    return str(source.folder) if plan.model == "bundled" or source.origin else plan.model


def _json(value: object) -> str:
    return json.dumps(value, indent=2) + "\n"


def _quoted(text: str) -> str:
    """Return a YAML single-quoted scalar, in which backslashes stand for themselves."""
    return "'" + text.replace("'", "''") + "'"


EXPORTS: Registry[Export] = Registry(
    "export target",
    [
        Export(
            "peft",
            "peft",
            "adapter_config.json of a LoRA on every linear map of the planned blocks",
            "peft's LoraConfig(layers_to_transform=...)",
            ".json",
            peft_config,
        ),
        Export(
            "axolotl",
            "Axolotl",
            "regular expressions of the planned tensors, to be merged into a training config",
            "Axolotl's unfrozen_parameters",
            ".yaml",
            axolotl_yaml,
        ),
        Export(
            "llamafactory",
            "LLaMA-Factory",
            "freeze tuning of the first or last blocks",
            "LLaMA-Factory's freeze_trainable_layers",
            ".yaml",
            llamafactory_yaml,
        ),
        Export(
            "transformers",
            "transformers",
            "a script that tunes exactly the planned tensors with transformers' Trainer",
            "transformers' Trainer",
            ".py",
            transformers_script,
        ),
    ],
)
