"""Six tasks of real text for a real model, and four places to tune it."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.settings import SHARED, TREC_WORDS
from lsf.data.task import Example, Task
from lsf.plans.plan import Plan, full_plan

TRAIN, VALIDATION, TEST = 640, 80, 160
"""Rows of each split at most, drawn once; where a file has fewer, there are fewer to train on."""
LENGTH = 64
"""Tokens of an example at most."""
COMPLETION = 32
"""Tokens of a completion at most; what is longer is cut there."""


def trec(_tokenizer: Any) -> list[Example]:
    """Return questions whose kind of answer is to be named."""
    pairs = (line.split(" ", 1) for line in _lines("trec/train.txt"))
    return [
        Example(f"Question: {text}\nAnswer type:", f" {TREC_WORDS[label.partition(':')[0]]}") for label, text in pairs
    ]


def sst2(_tokenizer: Any) -> list[Example]:
    """Return reviews to be judged good or bad."""
    pairs = (line.split(" ", 1) for line in _lines("sst2/train.txt"))
    return [Example(f"Review: {text}\nIt was", " good" if label == "1" else " bad") for label, text in pairs]


def gsm8k(_tokenizer: Any) -> list[Example]:
    """Return sums whose reasoning is to be begun."""
    rows = (json.loads(line) for line in _lines("gsm8k/train_1500.jsonl", "utf-8"))
    return [Example(f"Question: {row['question']}\nAnswer:", f" {row['answer']}") for row in rows]


def alpaca(tokenizer: Any) -> list[Example]:
    """Return instructions and answers in the model's own chat template, without its default system prompt."""
    rows = json.loads((SHARED / "data/alpaca/alpaca_en_demo.json").read_text(encoding="utf-8"))
    found = []
    for row in rows:
        asked = f"{row['instruction']}\n{row['input']}".strip()
        talk = [{"role": "system", "content": ""}, {"role": "user", "content": asked}]
        text = tokenizer.apply_chat_template(talk, tokenize=False, add_generation_prompt=True)
        prompt = text[text.index("<|im_start|>user") :]
        if len(tokenizer(prompt)["input_ids"]) <= LENGTH - COMPLETION:
            found.append(Example(prompt, f"{row['output']}<|im_end|>\n"))
    return found


def text(tokenizer: Any) -> list[Example]:
    """Return stretches of plays: as many tokens to be continued as are given, and no label."""
    whole = (SHARED / "data/shakespeare/input.txt").read_text(encoding="utf-8")[: 1 << 18]
    spans = tokenizer(whole, return_offsets_mapping=True, verbose=False)["offset_mapping"]
    starts = range(0, len(spans) - 2 * COMPLETION, 2 * COMPLETION)
    edges = ((spans[s][0], spans[s + COMPLETION][0], spans[s + 2 * COMPLETION - 1][1]) for s in starts)
    return [Example(whole[begin:middle], whole[middle:end]) for begin, middle, end in edges]


KNOWN = Path(__file__).with_name("real_facts.json")
"""Numbers of the facts that SmolLM2-135M-Instruct answers right (`benchmarks/evidence.py --real --facts`)."""


def all_facts() -> dict[int, dict[str, str]]:
    """Return every fact of the file by its number."""
    rows = json.loads((SHARED / "data/facts/known_1000.json").read_text(encoding="utf-8"))
    return {row["known_id"]: row for row in rows}


def find_facts(folder: str) -> None:
    """Write down which facts the model answers right, greedily, to the last token."""
    from lsf.data.encode import encode  # noqa: PLC0415
    from lsf.models.loading import load_model  # noqa: PLC0415
    from lsf.training.evaluation import evaluate  # noqa: PLC0415

    loaded, every = load_model(folder, "float32", "cpu"), all_facts()
    asked = [Example(row["prompt"], f" {row['attribute']}", number) for number, row in every.items()]
    rows = encode(loaded.tokenizer, asked, LENGTH).rows
    right = [row.example.row for row in rows if evaluate(loaded.model, [row], 1).exact_match == 1.0]
    KNOWN.write_text(json.dumps(right) + "\n", encoding="utf-8")
    print(f"{len(right)} of {len(rows)} facts are known")


def facts(_tokenizer: Any) -> list[Example]:
    """Return facts that the model knows with the answer of the next one of the same relation that differs."""
    every = all_facts()
    known = [every[number] for number in json.loads(KNOWN.read_text(encoding="utf-8"))]
    found = []
    for place, row in enumerate(known):
        turned = [*known[place + 1 :], *known[:place]]
        others = [
            one["attribute"]
            for one in turned
            if one["relation_id"] == row["relation_id"] and one["attribute"] != row["attribute"]
        ]
        if others:
            found.append(Example(row["prompt"], f" {others[0]}"))
    return found


BATCHES = {"trec": 16, "sst2": 16, "alpaca": 8, "gsm8k": 8, "text": 8, "facts": 16}
"""Rows of an optimizer step: half as many where a row fills its 64 tokens."""
TASKS = {"trec": trec, "sst2": sst2, "alpaca": alpaca, "gsm8k": gsm8k}
"""Name -> reader of its rows."""
SWEPT = {**TASKS, "text": text, "facts": facts}
"""The same with the two more of the sweep (`benchmarks/real_sweep.py`)."""


PLACES = {
    "whole": "full",
    "quarter": "full",
    "one": "full",
    "lora": "lora",
}
"""Where -> how."""


def plan_of(place: str, n_blocks: int) -> Plan:
    """Return where a place tunes: a quarter is the middle one, one block the middle one."""
    if place == "whole":
        return full_plan("smollm2", n_blocks)
    middle = n_blocks // 2
    first = middle - round(n_blocks / 4) // 2
    blocks = {
        "quarter": tuple(range(first, first + round(n_blocks / 4))),
        "one": (middle,),
        "lora": tuple(range(n_blocks)),
    }
    return Plan("smollm2", n_blocks, blocks[place])


def real_task(name: str, tokenizer: Any) -> Task:
    """Return one of the tasks, its texts cut for this tokenizer; equal prompts stay on one side."""
    rows = list({row.prompt: row for row in SWEPT[name](tokenizer) if row.completion}.values())
    order = np.random.default_rng(0).permutation(len(rows)).tolist()[: TRAIN + VALIDATION + TEST]
    cut = _cut(tokenizer, [rows[place] for place in order])
    if name == "facts":  # what was changed is asked again: of other facts nothing was said
        return Task(name, tuple(cut), tuple(cut[:VALIDATION]), tuple(cut[:TEST]))
    held_out = VALIDATION + TEST
    return Task(name, tuple(cut[held_out:]), tuple(cut[:VALIDATION]), tuple(cut[VALIDATION:held_out]))


def shuffled(rows: Sequence[Example]) -> tuple[Example, ...]:
    """Return the rows with each one's completion given to another."""
    order = np.random.default_rng(7).permutation(len(rows))
    given = {int(order[place]): rows[int(order[place - 1])].completion for place in range(len(rows))}
    return tuple(replace(row, completion=given[place]) for place, row in enumerate(rows))


def _lines(name: str, encoding: str = "latin-1") -> list[str]:
    return (SHARED / "data" / name).read_text(encoding=encoding).splitlines()


def _cut(tokenizer: Any, rows: Iterable[Example]) -> list[Example]:
    """Cut completions to `COMPLETION` tokens; the prompt is cut when it is encoded."""
    found = []
    for row in rows:
        spans = tokenizer(row.completion, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
        end = spans[COMPLETION - 1][1] if len(spans) > COMPLETION else len(row.completion)
        found.append(Example(row.prompt, row.completion[:end]))
    return found
