"""Which tensors the importing tools would tune by what an export tells them: their rules, in our words.

Axolotl (its module `utils.freeze`): a pattern's period stands for itself unless a `+` follows, so that each is
escaped before the pattern is matched at a name's beginning; a pattern that ends in `[...]` ends in rows of a tensor.
LLaMA-Factory (`model.adapter`, freeze tuning): numbers of blocks from the config; an extra name must be the last part
of a module outside of what is numbered; a tensor is tuned whose name contains `.NUMBER.` or an extra name.

Of data. Axolotl (`prompt_strategies.chat_template`): the whole chat is tokenised by the template; what a trained turn
says stands where the ids differ from those of a chat that ends in the same turn with other words; an end-of-text, or
one of `eot_tokens`, at most three ids behind it is trained with it. LLaMA-Factory (`data.template`,
`data.processor.supervised`): what is around a user's and an assistant's words is read off the tokenizer's template, and
each turn is tokenised for itself; the second of each two turns is trained, with all that is behind its words.
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


def labels_by_axolotl(recipe: dict[str, Any], row: dict[str, Any], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Return ids and labels (-100 is no target) of a row of the recipe's data set."""
    (data,) = recipe["datasets"]
    assert data["type"] == "chat_template"
    assert recipe["train_on_inputs"] is False
    jinja = {"tokenizer_default": None, "jinja": recipe.get("chat_template_jinja")}[recipe["chat_template"]]
    mapping = data["message_property_mappings"]
    turns = [{key: turn[name] for key, name in mapping.items()} for turn in row[data["field_messages"]]]

    def ids_of(some: list[dict[str, str]]) -> list[int]:
        return tokenizer.apply_chat_template(some, chat_template=jinja, tokenize=True, return_dict=False)

    ids = ids_of(turns)
    labels = [-100] * len(ids)
    turn_ends = {tokenizer.convert_tokens_to_ids(end) for end in recipe.get("eot_tokens", [])}
    for index, turn in enumerate(row[data["field_messages"]]):
        told = turn.get(data.get("message_field_training"))
        if not (turns[index]["role"] in data["roles_to_train"] if told is None else told):
            continue
        other = ids_of([*turns[:index], {**turns[index], "content": "[[dummy_message]]"}])
        full = ids_of(turns[: index + 1])
        short = min(len(other), len(full))
        start = next(at for at in range(short) if other[at] != full[at])
        end = len(full) - next(at for at in range(short) if other[-1 - at] != full[-1 - at])
        labels[start:end] = ids[start:end]
        assert data["train_on_eos"] == "turn"
        for ends in (turn_ends, {tokenizer.eos_token_id}):
            stop = next((at for at in range(end, len(ids)) if ids[at] in ends), None)
            if stop is not None and stop - end <= 3:
                labels[stop] = ids[stop]
    return ids, labels


def labels_by_llamafactory(recipe: dict[str, Any], row: dict[str, Any], info: Any, tokenizer: Any) -> Any:
    """Return ids and labels of a row of the recipe's data set; ValueError for a row it drops."""
    known = info[recipe["dataset"]]
    assert known["formatting"] == "sharegpt"
    assert "template" not in recipe
    tags = known["tags"]
    turns = [(turn[tags["role_tag"]], turn[tags["content_tag"]]) for turn in row[known["columns"]["messages"]]]
    if [role for role, _ in turns] != [tags["user_tag"], tags["assistant_tag"]] * (len(turns) // 2):
        raise ValueError("dropped")

    def text_of(*roles: str, asking: bool = False) -> str:
        some = [{"role": role, "content": "{{content}}"} for role in roles]
        return tokenizer.apply_chat_template(some, add_generation_prompt=asking, tokenize=False)

    asked = text_of("user", asking=True)
    around = {"user": asked, "assistant": text_of("user", "assistant")[len(asked) :]}
    ids, labels = [], []
    for index, (role, words) in enumerate(turns):
        own = tokenizer(around[role].replace("{{content}}", words), add_special_tokens=False)["input_ids"]
        last = index == len(turns) - 1 or not recipe.get("mask_history")
        on = recipe.get("train_on_prompt") or (role == "assistant" and last)
        ids, labels = ids + own, labels + (own if on else [-100] * len(own))
    return ids, labels
