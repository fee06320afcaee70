"""A training script that needs no LSF: it reads rows as LSF does, and tunes what was planned and nothing else.

All weights are tuned by transformers alone, LoRA by peft.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template
from types import ModuleType
from typing import Any

from lsf.data import spans
from lsf.data.encode import DEFAULT_MAX_LENGTH
from lsf.data.rendering import PLAIN_TEMPLATE


@dataclass(frozen=True)
class ScriptDefaults:
    """What a script does unless its options say otherwise."""

    rate: float
    """The optimizer's peak rate."""
    dtype: str = "auto"
    """Format of the frozen weights: float32, bfloat16, or auto for that of the checkpoint."""
    optimizer: str = "adamw_torch_fused"
    """What transformers' `optim=` calls it."""
    steps: int = 100
    """Optimizer steps."""
    batch_size: int = 16
    """Rows per step."""
    warmup_steps: int = 0
    """Steps of linear warm-up."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    seed: int = 0
    """Of the order of rows."""
    train_on: str = "assistant"
    """Which turns of a chat are targets, of `lsf.data.contents.TRAIN_ON`."""
    pairs: str = "auto"
    """How text pairs reach the model, of `lsf.data.contents.PAIRS`."""
    chat_template: str | None = None
    """Text of a Jinja template; None for the tokenizer's own."""
    length: int = DEFAULT_MAX_LENGTH
    """Tokens per row."""
    rows: str | None = None
    """Name of a file of rows beside the script; None where they have to be named."""


_SCRIPT = Template('''"""Tunes $label of $model_words and nothing else. Made by LSF.

python $file$data_option --out tuned

$rows_words holds one JSON object per line, which is one of
- "prompt" and "completion", two texts: a user's and an assistant's turn where there is a chat template (--pairs chat),
  else one text, of which the completion and the end-of-text behind it are trained (--pairs raw);
- "messages" (role and content; "tools" beside them): a chat, rendered by the tokenizer's template, or the one that
  --chat-template FILE names. Trained is what the assistant says and the token that ends its turn (--train-on
  assistant), the last of that alone (last), or everything (all); by the template's generation marks, where it has such;
  no turn with the weight 0;
- "prompt" and "completion", two lists of messages: the same, and of the completion alone;
- "input_ids" and "labels" (-100 is no target), as they are.
A row of more than --max-length tokens loses its beginning; one whose target does not fit is left out.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
$imports

MODEL = $model
$tuned
TRAIN_ON, PAIRS, MAX_LENGTH = $train_on, $pairs, $length
CHAT_TEMPLATE = $chat_template
PLAIN_TEMPLATE = $plain


def read(path, tokenizer, train_on=TRAIN_ON, pairs=PAIRS, length=MAX_LENGTH):
    lines = Path(path).read_text(encoding="utf-8").split("\\n")
    examples = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            examples.append(read_row(json.loads(line), tokenizer, train_on, pairs, length))
        except (ValueError, KeyError, UnclearTurnError) as error:
            raise SystemExit(f"{path}, line {number}: {type(error).__name__}: {error}") from error
    kept = [example for example in examples if example is not None]
    if len(kept) < len(examples):
        print(f"{len(examples) - len(kept):,} rows left out, whose target does not fit into {length:,} tokens")
    if not kept:
        raise SystemExit(f"{path} has no row that can be trained on")
    return kept


def read_row(row, tokenizer, train_on=TRAIN_ON, pairs=PAIRS, length=MAX_LENGTH):
    if "input_ids" in row:
        return {"input_ids": row["input_ids"], "labels": row["labels"]}
    if "messages" in row:
        return read_chat(row["messages"], row.get("tools"), tokenizer, train_on, length)
    prompt, completion = row["prompt"], row["completion"]
    if isinstance(prompt, list):
        turns = [{**turn, "weight": 0} if turn["role"] == "assistant" else turn for turn in prompt]
        return read_chat([*turns, *completion], row.get("tools"), tokenizer, train_on, length)
    if pairs == "chat" or (pairs == "auto" and tokenizer.chat_template):
        said = ("user", prompt.strip() or prompt), ("assistant", completion.strip() or completion)
        return read_chat([{"role": role, "content": text} for role, text in said], None, tokenizer, train_on, length)
    return read_pair(prompt, completion, tokenizer, length)


def read_pair(prompt, completion, tokenizer, length=MAX_LENGTH):
    text = next(tokenised(tokenizer, [prompt + completion]))
    n_prompt = next(place for place, (_, end) in enumerate(text.spans) if end > len(prompt))
    ids, end = text.ids, tokenizer.eos_token_id
    if end is not None and ids[-1] != end:
        ids = [*ids, end]
    cut = max(0, len(ids) - length)
    return None if cut >= n_prompt else row_of(ids, [(n_prompt, len(ids))], cut, n_prompt - cut, tokenizer)


def read_chat(messages, tools, tokenizer, train_on=TRAIN_ON, length=MAX_LENGTH):
    own = tokenizer.chat_template
    template = own or PLAIN_TEMPLATE

    def fill(turns, asking):
        given = None if own else template
        return tokenizer.apply_chat_template(
            turns, tools=tools, chat_template=given, add_generation_prompt=asking, tokenize=False
        )

    messages = [{**turn, "content": turn.get("content") or ""} for turn in messages]
    if any(turn.get("tool_calls") for turn in messages):
        messages = with_arguments(messages, takes_text(lambda turns: fill(turns, False), messages))
    whole = fill(messages, False)
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    words = sorted({word for word in (*added, *tokenizer.all_special_tokens) if word.strip()}, key=len, reverse=True)
    special = re.compile("|".join(map(re.escape, words))) if words else None
    finder = TurnFinder(fill, special, "add_generation_prompt" in str(template))
    answers = [
        index
        for index, turn in enumerate(messages)
        if turn["role"] == "assistant" and turn.get("weight") != 0
        and (turn["content"] or not turn.get("tool_calls") or not finder.drops_calls(messages, index))
    ]
    answers = answers[-1:] if train_on == "last" else answers
    if not answers:
        raise ValueError("it has no assistant's turn to train on")
    if (marked := marked_spans(tokenizer, messages, tools, template)) is not None:
        spans = finder.wanted(messages, whole, answers, marked)
    else:
        spans = [finder.span(messages, whole, index) for index in answers]
    if train_on == "all":
        spans = [(0, len(whole))]
    if not spans:
        raise ValueError("the chat template marks nothing of what would be trained as generated")
    text = next(tokenised(tokenizer, [whole], not own))
    targets = []
    for start, end in spans:  # of characters: a token that reaches into one is a target, but for the first of all
        first = next((place for place, (_, stop) in enumerate(text.spans) if stop > start), len(text.ids))
        last = next((place for place in range(first, len(text.ids)) if text.spans[place][0] >= end), len(text.ids))
        first = max(1, first, targets[-1][1] if targets else 0)
        targets += [(first, last)] if first < last else []
    stop = targets[-1][1]
    cut = max(0, stop - length)
    if train_on == "all":
        return row_of(text.ids[: cut + length], [(cut + 1, stop)], cut, length, tokenizer)
    targets = [(first, last) for first, last in targets if first > cut]
    return row_of(text.ids[: cut + length], targets, cut, targets[0][0] - cut, tokenizer) if targets else None


def row_of(ids, targets, cut, n_before, tokenizer):
    """Cut a row at its beginning; start tokens stay, in the place of others, where there are others."""
    labels = [-100] * len(ids)
    for first, last in targets:
        labels[first:last] = ids[first:last]
    added, plain = (next(tokenised(tokenizer, ["a"], special)).ids for special in (True, False))
    start = added[: len(added) - len(plain)]
    stays = len(start) if cut and len(start) < n_before and ids[: len(start)] == start else 0
    return {"input_ids": ids[:stays] + ids[cut + stays :], "labels": labels[cut:]}


# How a text is tokenised, and where a turn lies in a chat's text, as LSF has it.
$spans

def collate(examples):
    width = max(len(example["input_ids"]) for example in examples)

    def padded(key, filler):
        return torch.tensor([example[key] + [filler] * (width - len(example[key])) for example in examples])

    ids = padded("input_ids", 0)
    mask = torch.tensor([[int(at < len(example["input_ids"])) for at in range(width)] for example in examples])
    return {"input_ids": ids, "attention_mask": mask, "labels": padded("labels", -100)}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", $data)
    parser.add_argument("--out", required=True)
    parser.add_argument("--steps", type=int, default=$steps)
    parser.add_argument("--learning-rate", type=float, default=$rate)
    parser.add_argument("--warmup-steps", type=int, default=$warmup)
    parser.add_argument("--weight-decay", type=float, default=$decay)
    parser.add_argument("--batch-size", type=int, default=$batch)
    parser.add_argument("--seed", type=int, default=$seed)
    parser.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default=$dtype)
    parser.add_argument("--train-on", choices=("assistant", "last", "all"), default=TRAIN_ON)
    parser.add_argument("--pairs", choices=("auto", "chat", "raw"), default=PAIRS)
    parser.add_argument("--max-length", type=int, default=MAX_LENGTH)
    parser.add_argument("--chat-template")
    options = parser.parse_args()
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    if options.chat_template:
        tokenizer.chat_template = Path(options.chat_template).read_text(encoding="utf-8")
    elif CHAT_TEMPLATE:
        tokenizer.chat_template = CHAT_TEMPLATE
    if not tokenizer.is_fast:
        parser.error("the tokenizer does not tell which characters a token stands for; a fast one was expected")
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=options.dtype)
    half = model.dtype in (torch.bfloat16, torch.float16)
$prepare
    arguments = TrainingArguments(
        output_dir=options.out,
        max_steps=options.steps,
        per_device_train_batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        optim=$optimizer,
        warmup_steps=options.warmup_steps,
        weight_decay=options.weight_decay,
        seed=options.seed,
        report_to="none",
        save_strategy="no",
        label_names=["labels"],
    )
    rows = read(options.data, tokenizer, options.train_on, options.pairs, options.max_length)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate)
    with torch.autocast(arguments.device.type, dtype=torch.bfloat16, enabled=half):
        trainer.train()
$finish
    tokenizer.save_pretrained(options.out)


if __name__ == "__main__":
    main()
''')


@dataclass(frozen=True)
class _Tuning:
    """The parts of the script that say what is trained."""

    imports: str
    """From transformers and peft."""
    prepare: str
    """Takes `model` and `options`, and leaves what is trained with `requires_grad`."""
    finish: str
    """Writes what was trained."""


_WEIGHTS = _Tuning(
    imports="from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments",
    prepare="""    before = model.dtype
    dtypes = {}  # of the tuned tensors, which are trained in float32 and saved as they were
    for name, parameter in model.named_parameters():
        parameter.requires_grad = any(re.search(pattern, name) for pattern in TUNED)
        if parameter.requires_grad:
            dtypes[parameter] = parameter.dtype
            parameter.data = parameter.data.float()
    tuned = sum(parameter.numel() for parameter in dtypes)
    for module in model.modules() if half and tuned < model.num_parameters() else ():
        if isinstance(module, torch.nn.Embedding) and module.weight.requires_grad:  # frozen modules read its states
            module.register_forward_hook(lambda module, given, states: states.to(before))
    print(f"tuning {tuned:,} of {model.num_parameters():,} parameters")""",
    finish="""    for parameter, dtype in dtypes.items():
        parameter.data = parameter.data.to(dtype)
    model.save_pretrained(options.out)""",
)
_LORA = _Tuning(
    imports="""from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments, set_seed""",
    prepare="""    frozen = model.num_parameters()
    set_seed(options.seed)  # of the values that the updates start from
    model = get_peft_model(model, LoraConfig(**LORA))
    tuned = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(f"tuning {tuned:,} parameters beside {frozen:,} frozen ones")""",
    finish="""    model.save_pretrained(options.out, save_embedding_layers=False)  # the updates alone""",
)


def training_script(
    model: str,
    label: str,
    tuned: Sequence[str] | Mapping[str, Any],
    defaults: ScriptDefaults,
    file: str = "tune.py",
) -> str:
    """Return the script.

    Args:
        model: folder or Hugging Face id.
        label: what is tuned, for its first line.
        tuned: regular expressions of the tuned tensors' names; or the fields of peft's LoraConfig.
        defaults: of its options.
        file: what it will be called, for its first lines.
    """
    beside = defaults.rows is not None
    data = f"default=str(Path(__file__).with_name({defaults.rows!r}))" if beside else "required=True"
    tuning = _LORA if isinstance(tuned, Mapping) else _WEIGHTS
    return _SCRIPT.substitute(
        label=label,
        model=repr(model),
        model_words=model.replace("\\", "/").replace('"', "'"),
        imports=tuning.imports,
        tuned=_constant(tuned),
        prepare=tuning.prepare,
        finish=tuning.finish,
        file=file,
        data_option="" if beside else " --data rows.jsonl",
        rows_words=defaults.rows if beside else "rows.jsonl",
        data=data,
        train_on=repr(defaults.train_on),
        pairs=repr(defaults.pairs),
        length=defaults.length,
        chat_template=repr(defaults.chat_template),
        plain=repr(PLAIN_TEMPLATE),
        rate=defaults.rate,
        dtype=repr(defaults.dtype),
        optimizer=repr(defaults.optimizer),
        steps=defaults.steps,
        warmup=defaults.warmup_steps,
        decay=defaults.weight_decay,
        batch=defaults.batch_size,
        seed=defaults.seed,
        spans=_source(spans, "\nTEXTS_AT_ONCE = "),
    )


def _constant(tuned: Sequence[str] | Mapping[str, Any]) -> str:
    """Return the line that says what is tuned: TUNED, or LORA."""
    if isinstance(tuned, Mapping):
        return "\n".join(["LORA = {", *(f"    {name!r}: {value!r}," for name, value in tuned.items()), "}"])
    return "\n".join(["TUNED = [", *(f"    {pattern!r}," for pattern in tuned), "]"])


def _source(module: ModuleType, first: str) -> str:
    """Return the source of a module that imports nothing of LSF, from its first own line on."""
    return "".join(inspect.getsource(module).partition(first)[1:]).strip() + "\n"
