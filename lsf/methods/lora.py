"""LoRA through peft: low-rank updates of every linear map of the planned blocks, and of nothing else."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lsf.methods.context import MethodContext, linear_names, planned_blocks, sizes_of
from lsf.models.sharing import share_model
from lsf.plans.plan import Plan

ADAPTER = "default"
"""peft's name of the only adapter."""
FILE = "adapter_model.safetensors"
"""peft's own file name; adapter_config.json lies beside it."""
PREFIX = "base_model.model."
"""What peft's files put before a module's name."""


def prepare_lora(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model whose planned blocks' linear maps compute y = W x + (alpha / r) B A x.

    A is Kaiming-uniform, drawn by the seed on the CPU so that every device starts alike; B = 0.

    Raises:
        PlanError: the plan does not fit the model, or names no block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks the model for a property under its old name
        model = inject_adapter_in_model(_config(loaded, plan, context.options), share_model(loaded.model), ADAPTER)
    generator = torch.Generator().manual_seed(context.seed)
    for name, value in model.named_parameters():
        if not value.requires_grad:
            continue
        start = torch.zeros(value.shape)
        if ".lora_A." in name:
            nn.init.kaiming_uniform_(start, a=math.sqrt(5), generator=generator)
        value.data = start.to(loaded.device)
    return model.eval()


def count_lora(loaded: Any, plan: Plan, options: Any) -> int:
    """Return r times inputs plus outputs of every linear map of the planned blocks."""
    return sum(options.r * sum(sizes_of(loaded.model.get_submodule(name))) for name in _maps(loaded, plan, options))


def store_lora(model: Any) -> dict[str, Tensor]:
    """Return A and B under peft's own names."""
    return {
        PREFIX + name: value.detach()
        for name, value in get_peft_model_state_dict(model, save_embedding_layers=False).items()
    }


def restore_lora(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return the model that `store_lora` was told of, over a fresh base."""
    model = prepare_lora(loaded, plan, context)
    set_peft_model_state_dict(model, {name.removeprefix(PREFIX): value for name, value in stored.items()}, ADAPTER)
    return model


def write_config(model: Any, folder: Path) -> None:
    """Write peft's adapter_config.json, so that peft alone can load the folder."""
    model.peft_config[ADAPTER].save_pretrained(str(folder))


def _maps(loaded: Any, plan: Plan, options: Any) -> tuple[str, ...]:
    names = linear_names(loaded, plan, "lora")
    if options.maps == "all":
        return names
    own = tuple(f".{name}" for name in loaded.layout.family.mlp)
    return tuple(name for name in names if name.endswith(own))


def _config(loaded: Any, plan: Plan, options: Any) -> LoraConfig:
    blocks = planned_blocks(loaded, plan, "lora")
    names = _maps(loaded, plan, options)
    transposed = isinstance(loaded.model.get_submodule(names[0]), Conv1D)
    return LoraConfig(
        r=options.r,
        lora_alpha=options.alpha,
        lora_dropout=0.0,
        target_modules=sorted(
            {name.removeprefix(f"{block}.") for block in blocks for name in names if name.startswith(f"{block}.")}
        ),
        layers_to_transform=list(plan.blocks),
        layers_pattern=loaded.layout.family.blocks.rpartition(".")[2],
        fan_in_fan_out=transposed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=loaded.info.name,
        inference_mode=False,
    )
