"""The data section of a recipe: a run's chats in a file, and the other trainer's own words for what of them is trained.

The file holds the run's training rows alone, as `messages` of role and content, whatever format they came in.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lsf.data.contents import Chat
from lsf.data.encode import IGNORED, encode
from lsf.data.rendering import Renderer, template_of
from lsf.data.task import Example, Task
from lsf.errors import DataError, PlanError
from lsf.runs.spec import RunSpec

ENOUGH = 1 << 30
"""Tokens that no row is longer than."""
NEAR = 4
"""Axolotl trains an end-of-text that stands less than so many tokens behind what a turn says."""


@dataclass(frozen=True)
class DataSection:
    """What a recipe says of the data, and the files it names."""

    lines: tuple[str, ...]
    """YAML, behind the recipe's own."""
    files: Mapping[str, str]
    """Name of a file beside the recipe -> its text."""


def are_chats(task: Task, tokenizer: Any) -> bool:
    """Say whether a run on this data renders all its rows by a chat template that other trainers have too."""
    own = template_of(tokenizer)
    chats = [example.content for example in task.train]
    return all(
        isinstance(chat, Chat) and (isinstance(own, str) or (chat.template is not None and not chat.pair))
        for chat in chats
    )


def trained_turns(task: Task, tokenizer: Any) -> list[list[bool]]:
    """Return, for each message of each training chat, whether a run on a model with this tokenizer trains it."""
    renderers: dict[str | None, Renderer] = {}
    found = []
    for chat in _chats(task):
        if chat.template not in renderers:
            renderers[chat.template] = Renderer(tokenizer, chat.template)
        answers = renderers[chat.template].answers(chat)
        found.append([index in answers for index in range(len(chat.messages))])
    return found


def axolotl_data(place: Path, spec: RunSpec, task: Task, tokenizer: Any, length: int) -> DataSection:
    """Return Axolotl's `datasets` of the type chat_template; each message says by `train` whether it is trained.

    Args:
        place: of the recipe; the rows lie beside it.
        spec: of the run.
        task: its data, chats all of it.
        tokenizer: of its model.
        length: tokens per example.

    Raises:
        PlanError: the run trains every token; or a turn ends in a token that Axolotl could not be told.
    """
    if spec.train_on == "all":
        raise PlanError("Axolotl trains what turns say, not the words around them; export to llamafactory instead.")
    name = f"{place.stem}-rows.jsonl"
    template, row = spec.chat_template or template_of(tokenizer), encode(tokenizer, task.train[:1], ENOUGH).rows[0]
    ends = {tokenizer.decode([row.ids[at]]) for at in row.ends} - {tokenizer.eos_token}
    if unknown := [end for end in sorted(ends) if end not in str(template)]:
        raise PlanError(f"Axolotl is told a turn's end by its text, and the template does not hold {unknown[0]!r}.")
    end = tokenizer.eos_token_id
    beyond = ends and any(end in row.ids[at + 1 : at + NEAR] for at in row.ends)
    given = (
        ["chat_template: tokenizer_default"]
        if spec.chat_template is None
        else ["chat_template: jinja", f"chat_template_jinja: {json.dumps(template)}"]
    )
    lines = [
        *given,
        "train_on_inputs: false",
        f"sequence_len: {length}",
        *([f"eot_tokens: {json.dumps(sorted(ends))}"] if ends else []),
        "datasets:",
        f"  - path: {json.dumps(str((place.parent / name).resolve()))}",
        "    ds_type: json",
        "    type: chat_template",
        "    field_messages: messages",
        "    message_property_mappings: {role: role, content: content}",
        "    roles_to_train: [assistant]",
        "    message_field_training: train",
        "    train_on_eos: turn",
    ]
    rows = [
        {"messages": [turn | {"train": on} for turn, on in zip(chat.messages, trained, strict=True)]}
        | ({"tools": chat.tools} if chat.tools else {})
        for chat, trained in zip(_chats(task), trained_turns(task, tokenizer), strict=True)
    ]
    told = ["# The end-of-text behind the end of a turn is trained too, which the run did not do."] if beyond else []
    return DataSection((*lines, *told, *_not_said(spec)), {name: _lines(rows)})


DATASET_INFO = "dataset_info.json"
"""Where LLaMA-Factory looks for what its data sets are."""


def llamafactory_data(place: Path, spec: RunSpec, task: Task, tokenizer: Any, length: int) -> DataSection:
    """Return LLaMA-Factory's `dataset` of messages, described in dataset_info.json; its template is the tokenizer's.

    Args and errors as `axolotl_data`; PlanError too for another template, tools, turns that do not alternate, and
    for answers that are left out between trained ones.
    """
    if spec.chat_template is not None:
        raise PlanError("LLaMA-Factory takes no template but the tokenizer's and its own; export to axolotl instead.")
    chats = _chats(task)
    for example, chat in zip(task.train, chats, strict=True):
        where = (example.where or "an example").capitalize()
        if chat.tools or any(turn.get("tool_calls") or turn["role"] == "tool" for turn in chat.messages):
            raise PlanError(f"{where} has tools, which LLaMA-Factory writes in its own way; export to axolotl instead.")
        roles = [turn["role"] for turn in chat.messages]
        roles = roles[1:] if roles[0] == "system" else roles
        if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
            raise PlanError(f"{where} is not of a user's and an assistant's turns in turn; LLaMA-Factory drops it.")
    marked = zip(chats, trained_turns(task, tokenizer), strict=True)
    trained = [
        [on for turn, on in zip(chat.messages, marks, strict=True) if turn["role"] == "assistant"]
        for chat, marks in marked
    ]
    if spec.train_on == "all":
        which = ["train_on_prompt: true"]
    elif all(all(row) for row in trained):
        which = []
    elif all(row == [False] * (len(row) - 1) + [True] for row in trained):
        which = ["mask_history: true"]
    else:
        raise PlanError("LLaMA-Factory trains all answers of a chat or the last; export to axolotl instead.")
    name, rows = place.stem, f"{place.stem}-rows.jsonl"
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    tags |= {"system_tag": "system", "observation_tag": "tool", "function_tag": "function_call"}
    info = {name: {"file_name": rows, "formatting": "sharegpt", "columns": {"messages": "messages"}, "tags": tags}}
    lines = [
        f"dataset: {json.dumps(name)}",
        f"dataset_dir: {json.dumps(str(place.parent.resolve()))}",
        f"cutoff_len: {length}",
        *which,
        "# No template is named: it is taken from the tokenizer. What follows the end of a turn, such as a line end,",
        "# is trained too, which the run did not do.",
    ]
    plain = [
        {"messages": [{key: turn[key] for key in ("role", "content")} for turn in chat.messages]} for chat in chats
    ]
    files = {rows: _lines(plain), DATASET_INFO: json.dumps(info, indent=2) + "\n"}
    return DataSection((*lines, *_not_said(spec)), files)


def transformers_data(place: Path, spec: RunSpec, task: Task, tokenizer: Any, length: int) -> DataSection:
    """Return the rows of a run as the script of `lsf.export.script` reads them, each with the targets that the run had.

    Texts where the script makes the same of them; what is neither pair nor chat, or a chat of another template or with
    other targets than the run asks for, as token ids. Args as `axolotl_data`.
    """
    rows = [row for example in task.train for row in _script_rows(example, spec, tokenizer, length)]
    return DataSection((), {f"{place.stem}-rows.jsonl": _lines(rows)})


def _script_rows(example: Example, spec: RunSpec, tokenizer: Any, length: int) -> list[dict[str, Any]]:
    chat = example.content
    if chat is None or (isinstance(chat, Chat) and chat.pair and template_of(tokenizer) is None):
        return [{"prompt": example.prompt, "completion": example.completion}]
    if isinstance(chat, Chat) and (chat.train_on, chat.template) == (spec.train_on, spec.chat_template):
        turns = [
            turn | {"weight": 0} if index < chat.given and turn["role"] == "assistant" else turn
            for index, turn in enumerate(chat.messages)
        ]
        return [{"messages": turns} | ({"tools": chat.tools} if chat.tools else {})]
    try:
        found = encode(tokenizer, [example], length, append_eos=True).rows
    except DataError:  # its target does not fit
        return []
    targets = [set(row.targets) for row in found]
    return [
        {"input_ids": row.ids, "labels": [token if at in here else IGNORED for at, token in enumerate(row.ids)]}
        for row, here in zip(found, targets, strict=True)
    ]


def _chats(task: Task) -> list[Chat]:
    return [example.content for example in task.train if isinstance(example.content, Chat)]


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _not_said(spec: RunSpec) -> list[str]:
    if spec.general is None:
        return []
    return [f"# The run mixed in {spec.general_share:.0%} general data, which is not in this recipe."]


SECTIONS: Mapping[str, Callable[[Path, RunSpec, Task, Any, int], DataSection]] = {
    "axolotl": axolotl_data,
    "llamafactory": llamafactory_data,
    "transformers": transformers_data,
}
"""Export target whose recipes have a data section -> what writes it."""
