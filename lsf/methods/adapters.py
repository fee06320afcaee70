"""What is added to the maps of planned blocks: LoRA, bottleneck adapters and HiWi.

LoRA, through peft, is a low-rank update of every linear map. Bottleneck adapters are small non-linear steps after the
frozen maps; they cannot be merged. HiWi is an adapter on a parameter instead of on a state; after training only the
changed parameter is left.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model, set_peft_model_state_dict
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lsf.errors import BadInputError
from lsf.files import typed_path
from lsf.methods.catalogue import check_base
from lsf.methods.context import MethodContext, is_linear, linear_names, planned_blocks, sizes_of, split_name
from lsf.methods.parametrization import Parametrization, base_name, parametrize_
from lsf.methods.selective import restore_replaced
from lsf.models.gguf import is_gguf
from lsf.models.sharing import share_model
from lsf.models.supported import NAME as NAME_OF_SMOLLM2
from lsf.models.supported import find_model
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
        BadInputError: the MLP's maps alone are asked for, and it is made of experts, which have no linear maps.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft asks the model for a property under its old name
        model = inject_adapter_in_model(lora_config(loaded, plan, context.options), share_model(loaded.model), ADAPTER)
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
    """Return r times inputs plus outputs of every linear map that is adapted; raises as `prepare_lora`."""
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
    """Write peft's adapter_config.json, so that peft alone can load the folder, and find its base."""
    config = model.peft_config[ADAPTER]
    base = name_elsewhere(config.base_model_name_or_path)
    replace(config, base_model_name_or_path=base).save_pretrained(str(folder))


def name_elsewhere(name: str) -> str:
    """Return what other tools load: a name of the hub, or the folder that a name of ours stands for."""
    path = typed_path(name)
    ours = name in ("bundled", NAME_OF_SMOLLM2) or name.startswith("~") or (is_gguf(path) and not path.is_dir())
    return str(find_model(name).folder) if ours else name


def _maps(loaded: Any, plan: Plan, options: Any) -> tuple[str, ...]:
    names = linear_names(loaded, plan, "lora")
    if options.maps == "all":
        return names
    own = tuple(f".{name}" for name in loaded.layout.family.mlp)
    found = tuple(name for name in names if name.endswith(own))
    if not found:
        raise BadInputError(
            f"The method lora with maps=mlp adapts the MLP's linear maps and {loaded.info.name} "
            f"({loaded.info.family}) has none there; take maps=all or another method."
        )
    return found


def lora_config(loaded: Any, plan: Plan, options: Any) -> LoraConfig:
    """Return peft's configuration of what `prepare_lora` adapts; raises as it."""
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


NAME = "adapter"
"""Attribute under which a map of the block holds its adapter."""
STD = 1e-3
"""Standard deviation of the weights at the start: nearly, not exactly, nothing is added."""
HOULSBY_SIZE = 64
PFEIFFER_SHARE = 16


class Bottleneck(nn.Module):
    """h <- h + W_up f(W_down h + c1) + c2."""

    def __init__(self, width: int, size: int, activation: nn.Module, generator: torch.Generator) -> None:
        """Draw the weights from N(0, STD^2); biases are zero.

        Args:
            width: of h.
            size: of the bottleneck.
            activation: f.
            generator: of the weights.
        """
        super().__init__()
        self.down, self.activation, self.up = nn.Linear(width, size), activation, nn.Linear(size, width)
        for linear in (self.down, self.up):
            nn.init.normal_(linear.weight, std=STD, generator=generator)
            nn.init.zeros_(linear.bias)

    def forward(self, states: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Return the states with what the bottleneck adds, in their own dtype."""
        inner = self.activation(self.down(states.to(self.down.weight.dtype)))
        return states + self.up(inner).to(states.dtype)


def prepare_adapter(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model with adapters in the planned blocks, before the residual addition.

    `houlsby`: after the attention's output map and after the MLP's, GELU, size 64. `pfeiffer`: after the MLP's alone,
    ReLU, a 16th of the width.

    Raises:
        PlanError: the plan does not fit the model, or names no block.

    Source: Houlsby et al. 2019 (arXiv 1902.00751), Pfeiffer et al. 2020 (arXiv 2005.00247); where a family applies a
    norm between its map and the residual addition, the adapter stands before that norm (our choice).
    """
    model = share_model(loaded.model)
    generator = torch.Generator().manual_seed(context.seed)
    size, houlsby = _size(loaded, context.options), context.options.kind == "houlsby"
    for block in planned_blocks(loaded, plan, "adapter"):
        for name in _places(loaded, context.options):
            adapter = Bottleneck(loaded.info.width, size, nn.GELU() if houlsby else nn.ReLU(), generator)
            module = model.get_submodule(f"{block}.{name}")
            module.add_module(NAME, adapter.to(loaded.device))
            module.register_forward_hook(_apply)
    return model.eval()


def count_adapter(loaded: Any, plan: Plan, options: Any) -> int:
    """Return the weights and biases of all adapters."""
    width, size = loaded.info.width, _size(loaded, options)
    blocks = planned_blocks(loaded, plan, "adapter")
    return len(blocks) * len(_places(loaded, options)) * (2 * width * size + size + width)


def _apply(module: nn.Module, _args: Any, output: Any) -> Any:
    adapter = getattr(module, NAME)
    if isinstance(output, Tensor):
        return adapter(output)
    return (adapter(output[0]), *output[1:])


def _places(loaded: Any, options: Any) -> tuple[str, ...]:
    family = loaded.layout.family
    return (family.attention_output, family.mlp[-1]) if options.kind == "houlsby" else (family.mlp[-1],)


def _size(loaded: Any, options: Any) -> int:
    default = HOULSBY_SIZE if options.kind == "houlsby" else max(1, loaded.info.width // PFEIFFER_SHARE)
    return default if options.size is None else options.size


class HighWay(Parametrization):
    """p' = p + f(p W_down) W_up, f = ReLU; a bias is one row, a weight matrix one row per input."""

    def __init__(self, base: Float[Tensor, "..."], r: int, rows_are_outputs: bool, generator: torch.Generator) -> None:
        """Draw W_down Kaiming-uniform; W_up = 0, so that nothing changes at the start (our choice).

        Where the ReLU would be shut for every row, which happens to a lone bias where r is small, nothing could ever
        move; W_down is turned round there (our choice).

        Args:
            base: the bias or weight it stands before.
            r: width in between.
            rows_are_outputs: whether the matrix has a row per output, as torch's Linear has.
            generator: of the weights.
        """
        super().__init__()
        self._turned = rows_are_outputs and base.dim() == 2
        rows = base.detach().float().cpu()
        rows = rows.T if self._turned else rows
        down = torch.empty(r, rows.shape[-1])
        nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
        if not (rows @ down.T > 0).any():
            down.neg_()
        self.down, self.up = nn.Parameter(down.T.contiguous()), nn.Parameter(torch.zeros(r, rows.shape[-1]))

    def changed(self, base: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Return p' in float32."""
        rows = base.float()
        rows = rows.T if self._turned else rows
        changed = rows + (rows @ self.down).relu() @ self.up
        return changed.T if self._turned else changed


def prepare_hiwi(loaded: Any, plan: Plan, context: MethodContext) -> Any:
    """Return a model whose MLP biases or weights in the planned blocks are read through a `HighWay`.

    Raises:
        PlanError: the plan does not fit the model, or names no block.
        BadInputError: a bias that is missing or zero, which the bias form could never move; experts, which have no
            linear maps.

    Source: Liao et al. 2023, arXiv 2305.16742. For a gated MLP all three maps are taken (our choice).
    """
    names = adapted_names(loaded, plan, context.options)
    model = share_model(loaded.model)
    generator = torch.Generator().manual_seed(context.seed)
    for name in names:
        linear = model.get_submodule(split_name(name)[0])
        info = HighWay(model.get_parameter(name), context.options.r, not isinstance(linear, Conv1D), generator)
        parametrize_(model, name, info.to(loaded.device))
    return model.eval()


def count_hiwi(loaded: Any, plan: Plan, options: Any) -> int:
    """Return the values of W_down and W_up of every adapted parameter."""
    names = adapted_names(loaded, plan, options)
    return sum(2 * options.r * outputs_of(loaded.model.get_submodule(split_name(name)[0])) for name in names)


def adapted_names(loaded: Any, plan: Plan, options: Any) -> tuple[str, ...]:
    """Return the names of the parameters that are adapted; raises as `prepare_hiwi`."""
    check_base("hiwi", loaded.info.dtype)
    maps = [f"{block}.{name}" for block in planned_blocks(loaded, plan, "hiwi") for name in loaded.layout.family.mlp]
    for name in maps:
        linear: Any = loaded.model.get_submodule(name)
        if not is_linear(linear):
            raise BadInputError(
                f"The method hiwi adapts the MLP's linear maps and {name} of {loaded.info.name} "
                f"({loaded.info.family}) is not one; take another method."
            )
        bias = linear.bias if options.form == "bias" else None
        if options.form == "bias" and (bias is None or not bias.any()):
            what = "no bias" if bias is None else "a bias of zeros"
            raise BadInputError(
                f"The method hiwi in its bias form cannot move {name} of {loaded.info.name}, which has {what}; "
                "take the weight form (form=weight)."
            )
    return tuple(f"{name}.{options.form}" for name in maps)


def outputs_of(linear: Any) -> int:
    """Return how many outputs a linear map has."""
    return linear.weight.shape[1] if isinstance(linear, Conv1D) else linear.weight.shape[0]


def store_hiwi(model: Any) -> dict[str, Tensor]:
    """Return what has to be kept: of the bias form the biases b' alone, of the weight form W_down and W_up."""
    stored: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        if not isinstance(module, HighWay):
            continue
        base = base_name(name)
        owner, leaf = split_name(base)
        if leaf == "bias":
            linear: Any = model.get_submodule(owner)
            stored[base] = module.changed(linear.parametrizations[leaf].original).detach()
        else:
            stored |= {f"{base}:down": module.down.detach(), f"{base}:up": module.up.detach()}
    return stored


def restore_hiwi(loaded: Any, plan: Plan, context: MethodContext, stored: Mapping[str, Tensor]) -> Any:
    """Return the model that `store_hiwi` was told of, over a fresh base; the bias form comes back as plain biases."""
    if context.options.form == "bias":
        return restore_replaced(loaded, plan, context, stored)
    model = prepare_hiwi(loaded, plan, context)
    with torch.no_grad():
        for name, module in model.named_modules():
            if isinstance(module, HighWay):
                module.down.copy_(stored[f"{base_name(name)}:down"])
                module.up.copy_(stored[f"{base_name(name)}:up"])
    return model
