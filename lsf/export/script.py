"""A training script that needs nothing of ours: transformers, and a file of prompts and completions."""

from string import Template

_SCRIPT = Template('''"""Tunes $label of $model_words and nothing else. Made by LSF.

python $file --data rows.jsonl --out tuned

rows.jsonl holds one JSON object per line with the keys "prompt" and "completion"; the loss is read on completions only.
"""

import argparse
import json
import re
from pathlib import Path

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
        found = tokenizer(row["prompt"] + row["completion"], return_offsets_mapping=True)
        ids, ends = found["input_ids"], [end for _, end in found["offset_mapping"]]
        n_prompt = next(place for place, end in enumerate(ends) if end > len(row["prompt"]))
        if tokenizer.eos_token_id is not None and ids[-1] != tokenizer.eos_token_id:
            ids = ids + [tokenizer.eos_token_id]
        examples.append({"input_ids": ids, "labels": [-100] * n_prompt + ids[n_prompt:]})
    return examples


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
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
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
    return _SCRIPT.substitute(label=label, model=repr(model), model_words=words, patterns=listed, file=file, rate=rate)
