"""EXPORTS: a plan as other trainers take it, or as a script of its own; what one cannot express is refused."""

import inspect
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from string import Template
from typing import Any

from lsf.data import turn_places
from lsf.errors import PlanError
from lsf.methods.adapters import name_elsewhere
from lsf.methods.context import linear_names, planned_names
from lsf.methods.default_rates import Tuned, default_rate, share_of
from lsf.models.layout import ModelLayout, resolve
from lsf.models.supported import find_model
from lsf.models.weights import build_skeleton
from lsf.plans.plan import Plan
from lsf.registry import Registry


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
    layout: ModelLayout
    """Where its blocks, norms and head are."""

    def tensors(self, plan: Plan) -> tuple[str, ...]:
        """Return the names of the tensors a plan tunes; raises PlanError as `planned_names`."""
        return planned_names(self, plan)

    def linear_suffixes(self, plan: Plan) -> list[str]:
        """Return the names of the planned blocks' linear maps below their block, such as `self_attn.q_proj`."""
        depth = len(self.layout.block_names[0].split("."))
        return sorted({".".join(name.split(".")[depth:]) for name in linear_names(self, plan, "lora")})


def load_skeleton(plan: Plan) -> Skeleton:
    """Build the skeleton of the model a plan was made for, from its config alone.

    Raises:
        ModelError: there is no such model here, or it cannot be used; see `lsf.models.supported.find_model`.
    """
    source = find_model(plan.model)
    model = build_skeleton(source)
    return Skeleton(Named(plan.model), model, resolve(model, source.family))


_SCRIPT = Template('''"""Tunes $label of $model_words and nothing else. Made by LSF.

python $file --data rows.jsonl --out tuned

rows.jsonl holds one JSON object per line: the keys "prompt" and "completion", of which the loss is read on completions
only, or the key "messages" (role and content), which the tokenizer's chat template renders: the loss is read on what
the assistant says and on the token that ends its turn, unless the message has the weight 0. --chat-template FILE takes
the place of the tokenizer's own.
"""

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

MODEL = $model
TUNED = [
$patterns
]


def read(path, tokenizer):
    rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").split("\\n") if line.strip()]
    examples = []
    for row in rows:
        if "messages" in row:
            examples.append(read_chat(row["messages"], row.get("tools"), tokenizer))
            continue
        found = tokenizer(row["prompt"] + row["completion"], return_offsets_mapping=True)
        ids, ends = found["input_ids"], [end for _, end in found["offset_mapping"]]
        n_prompt = next(place for place, end in enumerate(ends) if end > len(row["prompt"]))
        if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
            ids = ids + [tokenizer.eos_token_id]
        examples.append({"input_ids": ids, "labels": [-100] * n_prompt + ids[n_prompt:]})
    return examples


def read_chat(messages, tools, tokenizer):
    def text(turns, asking=False):
        return tokenizer.apply_chat_template(turns, tools=tools, add_generation_prompt=asking, tokenize=False)

    messages = [{**turn, "content": turn.get("content") or ""} for turn in messages]
    whole = text(messages)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    words = sorted({*added, *tokenizer.all_special_tokens}, key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, words))) if words else None
    finder = TurnFinder(text, special, "add_generation_prompt" in str(tokenizer.chat_template))
    spans = []
    for index, turn in enumerate(messages):
        if turn["role"] != "assistant" or turn.get("weight") == 0:
            continue
        if turn["content"] or not finder.drops_calls(messages, index):
            spans.append(finder.span(messages, whole, index))
    found = tokenizer(whole, add_special_tokens=False, return_offsets_mapping=True)
    labels = [
        token if any(end > first and start < last for first, last in spans) and end > start and place else -100
        for place, (token, (start, end)) in enumerate(zip(found["input_ids"], found["offset_mapping"]))
    ]
    return {"input_ids": found["input_ids"], "labels": labels}


# Where a turn lies in a chat's text, as LSF finds it.
$places

def collate(examples):
    width = max(len(example["input_ids"]) for example in examples)

    def padded(key, filler):
        return torch.tensor([example[key] + [filler] * (width - len(example[key])) for example in examples])

    ids = padded("input_ids", 0)
    mask = torch.tensor([[int(at < len(example["input_ids"])) for at in range(width)] for example in examples])
    return {"input_ids": ids, "attention_mask": mask, "labels": padded("labels", -100)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--learning-rate", type=float, default=$rate)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--chat-template")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    if options.chat_template:
        tokenizer.chat_template = Path(options.chat_template).read_text(encoding="utf-8")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype="auto")
    half = model.dtype in (torch.bfloat16, torch.float16)
    dtypes = {}  # of the tuned tensors, which are trained in float32 and saved as they were
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(re.search(pattern, name) for pattern in TUNED)
        if parameter.requires_grad:
            dtypes[parameter] = parameter.dtype
            parameter.data = parameter.data.float()
    tuned = sum(parameter.numel() for parameter in dtypes)
    print(f"tuning {tuned:,} of {model.num_parameters():,} parameters")
    arguments = TrainingArguments(
        output_dir=options.out,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        seed=options.seed,
        report_to="none",
        save_strategy="no",
    )
    rows = read(options.data, tokenizer)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    with torch.autocast(arguments.device.type, dtype=torch.bfloat16, enabled=half):
        trainer.train()
    for parameter, dtype in dtypes.items():
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(options.out)
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
''')


def training_script(model: str, label: str, patterns: list[str], rate: float, file: str = "tune.py") -> str:
    """Return the script.

    Args:
        model: folder or Hugging Face id.
        label: of the plan, for its first line.
        patterns: regular expressions of the tuned tensors' names.
        rate: AdamW's peak rate where the script is given none.
        file: what it will be called, for its first lines.
    """
    listed = "\n".join(f"    {pattern!r}," for pattern in patterns)
    words = model.replace("\\", "/").replace('"', "'")
    places = inspect.getsource(turn_places).partition("\nSpan = ")
    return _SCRIPT.substitute(
        label=label, model=repr(model), model_words=words, patterns=listed, file=file, rate=rate,
        places="".join(places[1:]).strip() + "\n",
    )  # fmt: skip


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
    blocks = skeleton.layout.family.blocks
    return _json(
        {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": name_elsewhere(plan.model),
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
    """Return Axolotl's `unfrozen_parameters`: expressions that match the planned tensors and no other.

    Axolotl takes a period for a period and escapes it itself; one that is escaped already matches no name.
    """
    patterns = [pattern.replace("\\.", ".") for pattern in unfrozen_patterns(skeleton, plan)]
    lines = [f"base_model: {json.dumps(name_elsewhere(plan.model))}", "unfrozen_parameters:"]
    return "\n".join([*lines, *(f"  - {_quoted(pattern)}" for pattern in patterns)]) + "\n"


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
    n_params = sum(value.numel() for value in skeleton.model.parameters())
    rate = default_rate("full", Tuned(skeleton.layout.config.hidden_size, n_params, share_of(plan)))
    return training_script(name_elsewhere(plan.model), plan.label, unfrozen_patterns(skeleton, plan), rate)


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
