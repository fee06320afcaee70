"""A model's module tree without its weights: enough to name what a plan tunes."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lsf.analysis.plan import Plan
from lsf.measure.anatomy import Anatomy, resolve
from lsf.measure.source import find_model
from lsf.training.methods.places import linear_names, planned_names


@dataclass(frozen=True)
class Named:
    """A model by name, as the functions that name tensors ask for it."""

    name: str
    """As the plan says it."""


@dataclass(frozen=True)
class Skeleton:
    """A model on torch's meta device: modules and shapes, no values."""

    info: Named
    """Its name."""
    model: Any
    """The causal LM."""
    anatomy: Anatomy
    """Where its blocks, norms and head are."""

    def tensors(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the tensors a plan tunes; raises PlanError as `planned_names`."""
        return planned_names(self, plan)

    def linear_suffixes(self, plan: Plan) -> list[str]:
        """Return the names of the planned blocks' linear maps below their block, such as `self_attn.q_proj`."""
        depth = len(self.anatomy.block_names[0].split("."))
        return sorted({".".join(name.split(".")[depth:]) for name in linear_names(self, plan, "lora")})


def load_skeleton(plan: Plan) -> Skeleton:
    """Build the skeleton of the model a plan was made for, from its config alone.

    Raises:
        ModelError: there is no such model here, or it cannot be used; see `lsf.measure.source.find_model`.
    """
    source = find_model(plan.model)
    config = AutoConfig.from_pretrained(source.folder, local_files_only=True, trust_remote_code=False)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    model.tie_weights()
    return Skeleton(Named(plan.model), model, resolve(model, source.family))
