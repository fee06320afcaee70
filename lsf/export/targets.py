"""EXPORTS: a plan as other trainers take it, or as a script of its own; what one cannot express is refused."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from lsf.data.encode import DEFAULT_MAX_LENGTH, context_length
from lsf.errors import PlanError
from lsf.export.script import ScriptDefaults, training_script
from lsf.methods.adapters import lora_config, name_elsewhere
from lsf.methods.catalogue import LoraOptions, options_of
from lsf.methods.context import planned_names
from lsf.methods.optimization import OPTIMIZERS, Tuned, default_rate, share_of
from lsf.models.layout import ModelLayout, resolve
from lsf.models.supported import find_model
from lsf.models.weights import build_skeleton, context_of
from lsf.plans.plan import Plan
from lsf.registry import Registry
from lsf.runs.spec import RunSpec
from lsf.runs.store import Run
from lsf.settings import QUANTISED


@dataclass(frozen=True)
class Named:
    """A model by name, as the functions that name tensors ask for it."""

    name: str
    """As the plan says it."""
    family: str
    """Key in FAMILIES."""


@dataclass(frozen=True)
class Skeleton:
    """A model on torch's meta device: modules and shapes, no values."""

    info: Named
    """Its name."""
    model: Any
    """The causal LM."""
    layout: ModelLayout
    """Where its blocks, norms and head are."""

    def tensors(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the tensors a plan tunes; raises PlanError as `planned_names`."""
        return planned_names(self, plan)


def load_skeleton(plan: Plan) -> Skeleton:
    """Build the skeleton of the model a plan was made for, from its config alone.

    Raises:
        ModelError: there is no such model here, or it cannot be used; see `lsf.models.supported.find_model`.
    """
    source = find_model(plan.model)
    model = build_skeleton(source)
    return Skeleton(Named(plan.model, source.family.name), model, resolve(model, source.family))


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
    methods: tuple[str, ...] = ("full",)
    """Of a run's methods those that it carries out; the first is what it does with the plan of any other run."""


def lora_fields(skeleton: Skeleton, plan: Plan, options: Any) -> dict[str, Any]:
    """Return the fields of peft's LoraConfig of the method lora with these options; raises as `prepare_lora`."""
    config = lora_config(skeleton, plan, options)
    return {
        "task_type": "CAUSAL_LM",
        "r": config.r,
        "lora_alpha": config.lora_alpha,
        "lora_dropout": config.lora_dropout,
        "bias": config.bias,
        "target_modules": sorted(config.target_modules or ()),
        "layers_to_transform": list(plan.blocks),
        "layers_pattern": config.layers_pattern,
        "fan_in_fan_out": config.fan_in_fan_out,
    }


def peft_config(skeleton: Skeleton, plan: Plan) -> str:
    """Return peft's adapter_config.json: LoRA on every linear map of the planned blocks, by the method's defaults.

    Raises:
        PlanError: the plan tunes something beside blocks, or no block.
    """
    if plan.embedding or plan.final_norm or plan.head or plan.modules:
        raise PlanError(
            f"peft's layers_to_transform names blocks only and the plan {plan.label} tunes more; leave embedding, "
            "final norm and head out, or export to axolotl or transformers."
        )
    return _adapter_config(skeleton, plan, LoraOptions())


def _adapter_config(skeleton: Skeleton, plan: Plan, options: Any) -> str:
    base = {"peft_type": "LORA", "base_model_name_or_path": name_elsewhere(plan.model)}
    return _json(base | lora_fields(skeleton, plan, options))


def axolotl_yaml(skeleton: Skeleton, plan: Plan) -> str:
    """Return Axolotl's `unfrozen_parameters`: expressions that match the planned tensors and no other.

    Axolotl takes a period for a period and escapes it itself; one that is escaped already matches no name.
    """
    patterns = [pattern.replace("\\.", ".") for pattern in unfrozen_patterns(skeleton, plan)]
    lines = [f"base_model: {json.dumps(name_elsewhere(plan.model))}", "unfrozen_parameters:"]
    return "\n".join([*lines, *(f"  - {_quoted(pattern)}" for pattern in patterns)]) + "\n"


def axolotl_lora(skeleton: Skeleton, plan: Plan, options: Any) -> str:
    """Return Axolotl's settings of LoRA on the planned blocks by these options; raises as `prepare_lora`."""
    asked = lora_fields(skeleton, plan, options)
    settings = {
        "base_model": name_elsewhere(plan.model),
        "adapter": "lora",
        "lora_r": asked["r"],
        "lora_alpha": asked["lora_alpha"],
        "lora_dropout": asked["lora_dropout"],
        "lora_target_modules": asked["target_modules"],
        "peft_layers_to_transform": asked["layers_to_transform"],
        "peft_layers_pattern": [asked["layers_pattern"]],
        "lora_fan_in_fan_out": asked["fan_in_fan_out"],
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())


def llamafactory_lora(skeleton: Skeleton, plan: Plan, options: Any) -> str:
    """Return LLaMA-Factory's settings of LoRA on the planned blocks by these options; raises as `prepare_lora`.

    Its `lora_target` takes names of modules, or their ends: each map of each planned block is named with its number.
    """
    asked = lora_fields(skeleton, plan, options)
    blocks = [f"{asked['layers_pattern']}.{block}" for block in plan.blocks]
    settings = {
        "model_name_or_path": name_elsewhere(plan.model),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": asked["r"],
        "lora_alpha": asked["lora_alpha"],
        "lora_dropout": asked["lora_dropout"],
        "lora_target": ",".join(f"{block}.{name}" for block in blocks for name in asked["target_modules"]),
    }
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items())


def unfrozen_patterns(skeleton: Skeleton, plan: Plan) -> list[str]:
    """Return one expression per planned block, and one per tensor outside of the blocks."""
    blocks = [skeleton.layout.block_names[block] for block in plan.blocks]
    patterns = [f"^{re.escape(block)}\\." for block in blocks]
    inside = tuple(f"{block}." for block in blocks)
    return patterns + [f"^{re.escape(name)}$" for name in skeleton.tensors(plan) if not name.startswith(inside)]


def llamafactory_yaml(skeleton: Skeleton, plan: Plan) -> str:
    """Return LLaMA-Factory's freeze tuning of the last (positive) or first (negative) blocks; or its full tuning.

    Raises:
        PlanError: the blocks are neither the last nor the first ones; or the names it would be told stand for other
            tensors too.
    """
    lines = [f"model_name_or_path: {json.dumps(name_elsewhere(plan.model))}", "stage: sft", "do_train: true"]
    if plan.is_full:
        return "\n".join([*lines, "finetuning_type: full"]) + "\n"
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
    extra = _extra_modules(skeleton, plan)
    lines += ["finetuning_type: freeze", f"freeze_trainable_layers: {number}", "freeze_trainable_modules: all"]
    return "\n".join([*lines, *([f"freeze_extra_modules: {','.join(extra)}"] if extra else [])]) + "\n"


def _extra_modules(skeleton: Skeleton, plan: Plan) -> list[str]:
    """Return what LLaMA-Factory is told to tune beside the planned blocks: last names of modules outside of all blocks.

    It takes every tensor whose name contains one of them, or the number of a block between periods. A tied head has no
    tensor of its own: it is the input embedding.

    Raises:
        PlanError: these names stand for other tensors than the planned ones.
    """
    planned = set(skeleton.tensors(plan))
    inside = tuple(f"{block}." for block in skeleton.layout.block_names)
    extra = sorted({name.split(".")[-2] for name in planned if not name.startswith(inside)})
    parts = [*(f".{block}." for block in plan.blocks), *extra]
    taken = {own: [part for part in parts if any(part in name for name in names)] for own, names in _named(skeleton)}
    beyond = [name for name, by in taken.items() if by and name not in planned]
    if beyond:
        part = taken[beyond[0]][0]
        what = f"block {part.strip('.')}" if part not in extra else part
        raise PlanError(
            f"LLaMA-Factory takes every tensor whose name contains {part!r}, so that the plan {plan.label} would also "
            f"tune {len(beyond)} it leaves frozen (such as {beyond[0]}); leave {what} out, or export to axolotl or "
            "transformers."
        )
    if lacking := [name for name in sorted(planned) if not taken[name]]:
        raise PlanError(
            f"LLaMA-Factory's freeze tuning cannot name {lacking[0]}, which the plan {plan.label} tunes; export to "
            "axolotl or transformers."
        )
    return extra


def _named(skeleton: Skeleton) -> list[tuple[str, list[str]]]:
    """Return each tensor's name with what other versions of transformers call it: experts were numbered once."""
    return [
        (name, [name, *(name.replace(".experts.", f".experts.{index}.") for index in range(len(value)))])
        if ".experts." in name and value.dim() == 3
        else (name, [name])
        for name, value in skeleton.model.named_parameters()
    ]


def transformers_script(skeleton: Skeleton, plan: Plan) -> str:
    """Return a Python script on transformers alone that tunes exactly the planned tensors."""
    context = context_of(skeleton.layout.config, SimpleNamespace(model_max_length=DEFAULT_MAX_LENGTH))
    return _script(skeleton, plan, ScriptDefaults(_rate(skeleton, plan), length=context_length(context, None)))


def recipe_of_run(skeleton: Skeleton, spec: RunSpec, target: str) -> str:
    """Return a run's plan as a trainer takes it, of LoRA with the options of the run; raises as `Export.write`."""
    lora = {"peft": _adapter_config, "axolotl": axolotl_lora, "llamafactory": llamafactory_lora}.get(target)
    if lora is not None and spec.method == "lora":
        return lora(skeleton, spec.plan, options_of("lora", spec.options))
    return EXPORTS[target].write(skeleton, spec.plan)


def script_of_run(skeleton: Skeleton, run: Run, spec: RunSpec, length: int, rows: str | None, raw: bool) -> str:
    """Return a script with what a run was asked for: what it tuned, steps, batch, rate, seed and template.

    By the methods all weights and LoRA it tunes the parameters that the run tuned; see `told_method` for the others.

    Args:
        skeleton: of its model.
        run: its result has the steps that epochs made, and the rate.
        spec: what was asked.
        length: tokens per row.
        rows: name of the file with its training rows, beside the script; None where there is none.
        raw: whether pairs in it are raw, whatever was asked for.
    """
    carried = spec.method in EXPORTS["transformers"].methods
    found = None if run.result is None else run.result.learning_rate
    steps = None if run.result is None or spec.epochs is None else run.result.steps
    method = spec.method if carried else "full"
    own = found or spec.known_rate if carried else None
    defaults = ScriptDefaults(
        rate=own or _rate(skeleton, spec.plan, method),
        dtype=_dtype_of(run, spec),
        optimizer=OPTIMIZERS[spec.optimizer].optim,
        steps=steps or spec.steps,
        batch_size=spec.batch_size,
        warmup_steps=spec.warmup_steps,
        weight_decay=spec.weight_decay,
        seed=spec.seed,
        train_on=spec.train_on,
        pairs="raw" if raw else spec.pairs,
        chat_template=spec.chat_template,
        length=length,
        rows=rows,
    )
    return _script(skeleton, spec.plan, defaults, options_of("lora", spec.options) if method == "lora" else None)


def _dtype_of(run: Run, spec: RunSpec) -> str:
    """Return the format of a run's frozen weights; `auto` where it has not begun, or where they were packed."""
    used = None if run.result is None else run.result.environment.get("dtype")
    return next((dtype for dtype in (used, spec.dtype) if dtype in ("float32", "bfloat16")), "auto")


def told_method(run: Run, spec: RunSpec, target: str) -> str | None:
    """Say that an export does not tune as a run did; None where it does."""
    export = EXPORTS[target]
    if spec.method in export.methods:
        return None
    does = "tunes LoRA on" if export.methods[0] == "lora" else "tunes all weights of"
    what = "the whole model" if spec.plan.is_full else spec.plan.label
    return (
        f"{run.id} was tuned by the method {spec.how}, which an export to {export.name} cannot carry out; this one "
        f"{does} {what}."
    )


def told_settings(run: Run, spec: RunSpec, target: str) -> str | None:
    """Say what a run was asked for that its script does not carry over; None where there is nothing, or no script."""
    if target != "transformers":
        return None
    left = {
        "weights of examples that are measured anew at every pass": spec.reweight_tau is not None,
        f"general data, {spec.general_share:.0%} of its rows": spec.general is not None,
        "an end where validation no longer gained": spec.until == "flat",
        "the parameters of its best validation kept": spec.keep == "best",
        f"a base in {spec.dtype}, which the script tunes as it is saved": spec.dtype in QUANTISED,
    }
    named = [words for words, asked in left.items() if asked]
    return f"{run.id} was tuned with what the script does not carry over: {'; '.join(named)}." if named else None


def _script(skeleton: Skeleton, plan: Plan, defaults: ScriptDefaults, options: Any = None) -> str:
    """Return a script that tunes all weights, or by LoRA where there are options of it."""
    if options is None:
        label, tuned = plan.label, unfrozen_patterns(skeleton, plan)
    else:
        blocks = "every block" if plan.is_full else plan.label
        label, tuned = f"low-rank updates (LoRA, by peft) of {blocks}", lora_fields(skeleton, plan, options)
    return training_script(name_elsewhere(plan.model), label, tuned, defaults)


def _rate(skeleton: Skeleton, plan: Plan, method: str = "full") -> float:
    """Return the rate that the plan brings for a method, else the method's own."""
    if (tried := plan.rates.get(method)) is not None:
        return tried
    n_params = sum(value.numel() for value in skeleton.model.parameters())
    return default_rate(method, Tuned(skeleton.layout.config.hidden_size, n_params, share_of(plan)))


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
            ("lora",),
        ),
        Export(
            "axolotl",
            "Axolotl",
            "regular expressions of the planned tensors, or LoRA as a run had it, to be merged into a training config",
            "Axolotl's unfrozen_parameters and peft_layers_to_transform",
            ".yaml",
            axolotl_yaml,
            ("full", "lora"),
        ),
        Export(
            "llamafactory",
            "LLaMA-Factory",
            "freeze tuning of the first or last blocks, or LoRA as a run had it",
            "LLaMA-Factory's freeze_trainable_layers and lora_target",
            ".yaml",
            llamafactory_yaml,
            ("full", "lora"),
        ),
        Export(
            "transformers",
            "transformers",
            "a script that tunes exactly the planned tensors with transformers' Trainer, of a run by LoRA through peft",
            "transformers' Trainer",
            ".py",
            transformers_script,
            ("full", "lora"),
        ),
    ],
)
