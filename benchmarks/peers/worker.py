"""One peer as a contestant: the same model, the same rows, its own way to the states, the same deviations."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from benchmarks.models import BATCH
from benchmarks.peers.readers import NORMED_LAST, READERS, final_norm
from benchmarks.peers.scoring import deviation, semantic_bases
from benchmarks.turns import Turn


@torch.no_grad()
def measure(peer: str, read: Any, model: Any, tokenizer: Any, rows: list[tuple[str, str]], turn: Turn | None) -> Any:
    """Return deviation and target deviation per state over all rows, in the file's order, padded batch by batch."""
    found = tokenizer([prompt + completion for prompt, completion in rows], return_offsets_mapping=True)
    borders = [
        next(place for place, (_, end) in enumerate(spans) if end > len(prompt))
        for (prompt, _), spans in zip(rows, found["offset_mapping"], strict=True)
    ]
    prompts = [ids[:border] for ids, border in zip(found["input_ids"], borders, strict=True)]
    targets = [ids[border] for ids, border in zip(found["input_ids"], borders, strict=True)]
    bases = semantic_bases(model.get_output_embeddings().weight, torch.tensor(targets))
    norm, embedding = final_norm(model), model.get_input_embeddings()
    found = []
    for start in range(0, len(prompts), BATCH):
        group = prompts[start : start + BATCH]
        width = max(map(len, group))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in group])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in group])
        row, place = torch.arange(len(group)), torch.tensor([len(row) - 1 for row in group])
        states = read(ids, mask, row, place)
        readings = torch.cat([norm(states[:, :-1]), states[:, -1:]], dim=1) if peer in NORMED_LAST else norm(states)
        found.append(deviation(readings, norm(embedding(ids[row, place])), bases[start : start + BATCH]))
        if turn is not None:
            turn.over()
    return [torch.cat(part).mean(dim=0).tolist() for part in zip(*found, strict=True)]


def main() -> None:
    """Run one peer."""
    parser = argparse.ArgumentParser()
    parser.add_argument("peer", choices=READERS)
    parser.add_argument("model")
    parser.add_argument("rows", help="JSON file of prompts and completions")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--sparing", action="store_true")
    arguments = parser.parse_args()
    rows = json.loads(Path(arguments.rows).read_text(encoding="utf-8"))
    turn = Turn()
    model = AutoModelForCausalLM.from_pretrained(arguments.model, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(arguments.model)
    read = READERS[arguments.peer](model, tokenizer, arguments.model, arguments.sparing)
    measure(arguments.peer, read, model, tokenizer, rows[: 2 * BATCH], None)
    turn.ready()
    found: Any = None
    for round_ in range(arguments.rounds):
        found = measure(arguments.peer, read, model, tokenizer, rows, turn)
        if round_ < arguments.rounds - 1:
            turn.over()
    turn.finish(deviation=found[0], target_deviation=found[1])


if __name__ == "__main__":
    main()
