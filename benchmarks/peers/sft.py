"""TRL's SFTTrainer on rows of several formats: the loss of its first batch, by its own preparation of the rows."""

import argparse
import importlib
import json
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging


def first_losses(folder: str, case: dict[str, Any]) -> dict[str, float]:
    """Return the loss of a first batch that holds all rows of a case, and how many tokens are trained.

    Args:
        folder: of the model.
        case: `rows`, and `options` of SFTConfig.

    Returns:
        `loss`, SFTTrainer's own, in nats per target; `plain`, that of plain transformers on its batch; `bare_loss` and
        `bare_plain`, the same without the line break that a template writes behind the end of the last turn;
        `n_targets`.
    """
    trl = importlib.import_module("trl")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    with tempfile.TemporaryDirectory() as scratch:
        if "template" in case:
            place = Path(scratch) / "template.jinja"
            place.write_text(case["template"], encoding="utf-8")
            case["options"]["chat_template_path"] = str(place)
        arguments = trl.SFTConfig(
            output_dir=scratch,
            per_device_train_batch_size=len(case["rows"]),
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **case["options"],
        )
        trainer = trl.SFTTrainer(
            model=model, args=arguments, train_dataset=Dataset.from_list(case["rows"]), processing_class=tokenizer
        )
        batch = next(iter(trainer.get_train_dataloader()))
        trainer.model.eval()
        with torch.no_grad():
            found: dict[str, float] = {"n_targets": int((batch["labels"][:, 1:] != -100).sum())}
            for kind, labels in (("", batch["labels"]), ("bare_", _without_last_break(batch, tokenizer))):
                found[f"{kind}loss"] = trainer.compute_loss(trainer.model, {**batch, "labels": labels}).item()
                found[f"{kind}plain"] = trainer.model(**{**batch, "labels": labels}).loss.item()
    return found


def _without_last_break(batch: Any, tokenizer: Any) -> Any:
    """Return labels in which a line break at the very end of a row, behind a special token, is no target."""
    labels, special = batch["labels"].clone(), set(tokenizer.all_special_ids)
    for ids, mask, row in zip(batch["input_ids"], batch["attention_mask"], labels, strict=True):
        last = int(mask.sum()) - 1
        if tokenizer.decode([int(ids[last])]) == "\n" and int(ids[last - 1]) in special:
            row[last] = -100
    return labels


def main() -> None:
    """Read cases from a file and write what was found to another."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder of the model")
    parser.add_argument("cases", help="JSON file: name -> rows and options")
    parser.add_argument("out", help="JSON file to write")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    disable_progress_bars()
    logging.disable_progress_bar()
    warnings.simplefilter("ignore", FutureWarning)
    cases = json.loads(Path(asked.cases).read_text(encoding="utf-8"))
    found = {name: first_losses(asked.model, case) for name, case in cases.items()}
    Path(asked.out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main()
