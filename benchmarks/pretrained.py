"""Further small models for the study, pretrained on the bundled model's world, so that its lessons teach them too.

`python benchmarks/pretrained.py [NAMES]` writes those that are missing to .lsf/pretrained (some 20 minutes each).
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

SPECS: dict[str, dict[str, Any]] = {
    "plain8": {"biases": False},
    "reseeded": {"seed": 1, "biases": False},
    "gpt2x12": {"seed": 2, "family": "gpt2", "blocks": 12, "width": 96, "inner": 384},
    "narrow12": {"seed": 3, "blocks": 12, "width": 80, "inner": 160, "biases": False},
    "neox8": {"seed": 4, "family": "gpt_neox", "width": 128, "inner": 384},
    "gpt2x8": {"seed": 5, "family": "gpt2", "width": 112, "inner": 448},
    "wide6": {"seed": 6, "blocks": 6, "width": 160, "inner": 320, "biases": False},
}
"""The bundled model as it was until 2026-11-28, without biases, and its twin of another seed; GPT-2 of 12 blocks; a
Llama that is deeper and narrower; GPT-NeoX and GPT-2 of as many blocks as the bundled model; a Llama that is shallower
and wider: what each has of its own in `PretrainingSpec`."""


def folder_of(name: str) -> Path:
    """Return where a model is kept."""
    return Path(__file__).parents[1] / ".lsf/pretrained" / name


def main() -> None:
    """Pretrain what is missing, and print what each has learned."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help=f"of {', '.join(SPECS)}; default: all")
    names = parser.parse_args().names or [*SPECS]
    if unknown := set(names) - set(SPECS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SPECS)}")
    from lsf.bundled.pretrain import PretrainingSpec, pretrain  # noqa: PLC0415 torch, where there is work

    for name in names:
        kept = folder_of(name) / "pretraining.json"
        if not kept.exists():
            pretrain(
                folder_of(name), spec=PretrainingSpec(**SPECS[name]), progress=lambda line: print(line, flush=True)
            )
        log = json.loads(kept.read_text(encoding="utf-8"))
        right = 100 * log["held_out_exact_match"]
        print(f"{name}: {log['parameters']:,} values, {right:.1f} % of held-out wordings right")


if __name__ == "__main__":
    main()
