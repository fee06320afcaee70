"""The loss of a run's first batch beside that of TRL's SFTTrainer, on the same rows in each format that TRL takes.

`python benchmarks/sft.py [--model smollm2]` makes twelve rows of each format, reads them as `lsf tune` does, and hands
them as they are to SFTTrainer in an environment of its own (`benchmarks/peers/venvs.py`). Both losses are of one batch
that holds all rows, in float32, before any step. A run's logarithms are torch's in float32, as those of plain
transformers are, and of 49,152 logits wrong by some 2e-5 nats; SFTTrainer's fused head is not. So SFTTrainer's own loss
is held against that of our batch with logarithms in float64, and a run's against plain transformers on its batch.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.bars import Bar, markdown
from benchmarks.peers.venvs import PINS, interpreter
from lsf.data.contents import DataOptions
from lsf.data.encode import encode
from lsf.data.sources import load_task
from lsf.models.batches import collate, score_tokens
from lsf.models.loading import LoadedModel, load_model
from lsf.models.supported import find_model

THINGS = "lamp door river bridge garden tower market bell clock road ship cloud".split()
COLORS = "green red blue white".split()
MARKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' }}{% if m['role'] == 'assistant' %}"
    "{% generation %}{{ m['content'] + '<|im_end|>' }}{% endgeneration %}{% else %}{{ m['content'] + '<|im_end|>' }}"
    "{% endif %}{{ '\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""A template that marks what is trained, which SFTTrainer asks for to train the assistant's turns of a chat alone."""
LIMIT = 1e-5
"""Nats by which the two losses may differ."""


def cases() -> dict[str, dict[str, Any]]:
    """Return the formats by what is said of them: rows, our options, and those of SFTConfig."""
    asked = [{"role": "user", "content": f"What is the color of the {thing}?"} for thing in THINGS]
    said = [
        {"role": "assistant", "content": f"The {thing} is {COLORS[number % 4]}."} for number, thing in enumerate(THINGS)
    ]
    more = [{"role": "user", "content": "Are you sure?"}, {"role": "assistant", "content": "Yes."}]
    turns = list(zip(asked, said, strict=True))
    chats = [{"messages": [*pair, *more]} for pair in turns]
    shared = [
        {
            "conversations": [
                {"from": word, "value": one["content"]} for word, one in zip(("human", "gpt"), pair, strict=True)
            ]
        }
        for pair in turns
    ]
    ids = [[504 + number, 2398, 314, 253, 1109, 30] for number in range(len(THINGS))]
    return {
        "pairs, raw": {
            "rows": [{"prompt": one["content"], "completion": f" {two['content']}"} for one, two in turns],
            "ours": {"pairs": "raw"},
        },
        "chat-pairs": {"rows": [{"prompt": [one], "completion": [two]} for one, two in turns]},
        "chat, every token": {"rows": chats, "ours": {"train_on": "all"}},
        "chat, the assistant's turns by generation marks": {
            "rows": chats,
            "ours": {"chat_template": MARKED},
            "template": MARKED,
            "options": {"assistant_only_loss": True},
        },
        "sharegpt, every token": {"rows": shared, "ours": {"train_on": "all"}},
        "text": {"rows": [{"text": f"{one['content']} {two['content']}"} for one, two in turns]},
        "tokens": {"rows": [{"input_ids": row, "labels": [-100] * 3 + row[3:]} for row in ids]},
    }


def main() -> int:
    """Print both losses of each format; return 1 where a bar does not hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2", help="a model with a chat template [default: smollm2]")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    found = bars(asked.model)
    versions = ", ".join((*PINS["TRL"], *(f"{name}=={version(name)}" for name in ("transformers", "torch"))))
    sys.stdout.write(f"{versions}\n{markdown(found)}\n")
    return int(any(one.held is False for one in found))


def bars(model: str) -> list[Bar]:
    """Return both losses of each format."""
    found = cases()
    with tempfile.TemporaryDirectory() as scratch:
        theirs = sft_losses(model, found, Path(scratch))
        loaded = load_model(model, "float32", "cpu")
        mine = {name: first_loss(loaded, case, Path(scratch)) for name, case in found.items()}
    return bars_of(mine, theirs)


@dataclass(frozen=True)
class Loss:
    """Of our batch."""

    run: float
    """As a run takes it, in nats per target."""
    exact: float
    """With logarithms in float64."""
    n_targets: int
    """Tokens trained."""


def bars_of(mine: dict[str, Loss], theirs: dict[str, dict[str, float]]) -> list[Bar]:
    """Return a line per format, and one for a run's own arithmetic."""
    found, differences = [], []
    for name, ours in mine.items():
        kind = "bare_" if name in BREAKS else ""
        figures = f"ours {ours.exact:.6f} ({ours.n_targets} targets), SFTTrainer's {theirs[name]['loss']:.6f}"
        figures += f" ({theirs[name]['n_targets']:.0f})"
        if kind:
            figures += f", {theirs[name]['bare_loss']:.6f} without the line break behind a turn, which it trains too"
        if name in ROLES:
            figures += "; it leaves the roles human and gpt as they are"
        else:
            differences.append(abs(ours.run - theirs[name][f"{kind}plain"]))
        difference = abs(ours.exact - theirs[name][f"{kind}loss"])
        found.append(Bar(name, difference, None if name in ROLES else LIMIT, note=figures, unit=" nats"))
    what = "a run's float32 loss against plain transformers on SFTTrainer's batch, at most"
    return [*found, Bar(what, max(differences), LIMIT, note=f"{len(differences)} formats", unit=" nats")]


BREAKS, ROLES = ("chat-pairs",), ("sharegpt, every token",)
"""Formats of which SFTTrainer trains one token more, and of which it makes other texts."""


def first_loss(loaded: LoadedModel, case: dict[str, Any], scratch: Path) -> Loss:
    """Return the loss of one batch of all rows, read and encoded as a run's."""
    place = scratch / "rows.jsonl"
    place.write_text("".join(json.dumps(row) + "\n" for row in case["rows"]), encoding="utf-8")
    task = load_task(str(place), options=DataOptions(**case.get("ours", {})))
    batch = collate(encode(loaded.tokenizer, task.rows, 1024, append_eos=True).rows)
    with torch.no_grad():
        scores = score_tokens(loaded.model, batch)
        logits = loaded.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
    count = int(scores.counted.sum())
    exact = torch.nn.functional.cross_entropy(logits.flatten(0, 1).double(), batch["labels"][:, 1:].flatten())
    return Loss(scores.nll.sum().item() / count, exact.item(), count)


def sft_losses(model: str, found: dict[str, dict[str, Any]], scratch: Path) -> dict[str, dict[str, float]]:
    """Return what SFTTrainer finds, in its own environment."""
    given = {
        name: {"rows": case["rows"], "options": case.get("options", {}), **_given(case)} for name, case in found.items()
    }
    (scratch / "cases.json").write_text(json.dumps(given), encoding="utf-8")
    folder = find_model(model).folder
    command = [interpreter("TRL"), "-m", "benchmarks.peers.sft", folder, scratch / "cases.json", scratch / "found.json"]
    subprocess.run([str(one) for one in command], check=True, cwd=Path(__file__).parents[1])
    return json.loads((scratch / "found.json").read_text(encoding="utf-8"))


def _given(case: dict[str, Any]) -> dict[str, str]:
    return {"template": case["template"]} if "template" in case else {}


if __name__ == "__main__":
    sys.exit(main())
