"""Which tensors the importing tools would tune by what an export tells them: their rules, in our words.

Axolotl (its module `utils.freeze`): a pattern's period stands for itself unless a `+` follows, so that each is
escaped before the pattern is matched at a name's beginning; a pattern that ends in `[...]` ends in rows of a tensor.
LLaMA-Factory (`model.adapter`, freeze tuning): numbers of blocks from the config; an extra name must be the last part
of a module outside of what is numbered; a tensor is tuned whose name contains `.NUMBER.` or an extra name.
"""

import re
from collections.abc import Iterable
from typing import Any


def tuned_by_axolotl(names: Iterable[str], patterns: Iterable[str]) -> set[str]:
    """Return the parameters that Axolotl's `unfrozen_parameters` leave unfrozen."""
    expressions = []
    for pattern in patterns:
        assert not re.search(r"\[\d*(:\d*)?\]$", pattern), f"{pattern} would be read as rows of a tensor"
        literal, after = "", pattern
        while "." in after:
            before, after = after.split(".", 1)
            literal += before + ("." if after.startswith("+") else "\\.")
        expressions.append(re.compile(literal + after))
    return {name for name in names if any(expression.match(name) for expression in expressions)}


def tuned_by_llamafactory(model: Any, options: dict[str, Any]) -> set[str]:
    """Return the parameters that LLaMA-Factory tunes; ValueError for what it refuses."""
    names = [name for name, _ in model.named_parameters()]
    if options["finetuning_type"] == "full":
        return set(names)
    config, wanted = model.config, options["freeze_trainable_layers"]
    n_blocks = next(
        getattr(config, key) for key in ("num_hidden_layers", "num_layers", "n_layer") if getattr(config, key, 0)
    )
    blocks = range(max(0, n_blocks - wanted), n_blocks) if wanted > 0 else range(min(-wanted, n_blocks))
    assert options["freeze_trainable_modules"] == "all"
    parts = [f".{block}." for block in blocks]
    outside = {name.split(".")[-2] for name in names if not any(part.isdigit() for part in name.split(".")[1:-1])}
    for extra in filter(None, options.get("freeze_extra_modules", "").split(",")):
        if extra not in outside:
            raise ValueError(f"no module {extra}; there are {', '.join(sorted(outside))}")
        parts.append(extra)
    return {name for name in names if any(part in name for part in parts)}
