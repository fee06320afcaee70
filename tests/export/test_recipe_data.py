"""Data sections of recipes: what the importing tool's own rules make of them is what the run trained."""

import json
from dataclasses import replace

import pytest
import yaml

from lsf.cli.main import main
from lsf.data.contents import DataOptions
from lsf.data.encode import encode
from lsf.data.reading import read_data
from lsf.errors import PlanError
from lsf.export.recipe_data import SECTIONS, are_chats
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from tests.data.chat_templates import TEMPLATES, byte_level
from tests.export.importers import labels_by_axolotl, labels_by_llamafactory
from tests.tiny import tiny_model

CHATML = TEMPLATES[0]
TURNS = [("user", "what is blue?"), ("assistant", "the sky."), ("user", "and?"), ("assistant", "the sea")]
TALK = [{"role": role, "content": words} for role, words in TURNS]
ROWS = [{"messages": TALK}, {"messages": TALK[:2]}, {"messages": TALK[2:]}]
SHAREGPT = [{"conversations": [{"from": turn["role"], "value": turn["content"]} for turn in TALK]}] * 3


def labels_of(row):
    targets = set(row.targets)
    return list(row.ids), [token if at in targets else -100 for at, token in enumerate(row.ids)]


def exported(target, tmp_path, rows, tokenizer, **options):
    """Return the recipe's section, the rows beside it, dataset_info and the run's own rows."""
    task = read_data(rows, options=DataOptions(**options))
    spec = RunSpec("m", "d", Plan("m", 2, (1,)), **options)
    found = SECTIONS[target](tmp_path / "recipe.yaml", spec, task, tokenizer, 64)
    lines = [json.loads(line) for line in found.files["recipe-rows.jsonl"].splitlines()]
    info = json.loads(found.files.get("dataset_info.json", "null"))
    own = encode(tokenizer, task.train, 10_000, append_eos=True).rows
    assert len(own) == len(lines)
    comments = [line for line in found.lines if line.startswith("#")]
    return yaml.safe_load("\n".join(found.lines)) | {"comments": comments}, lines, info, own


@pytest.mark.parametrize("options", [{}, {"train_on": "last"}], ids=str)
@pytest.mark.parametrize("name", ["chatml", "llama3", "gemma", "phi3", "zephyr", "granite", "command"])
def test_axolotl_trains_the_tokens_of_the_run(name, options, tmp_path):
    template = next(one for one in TEMPLATES if one.name == name)
    tokenizer = byte_level(template.plain, template.tokens)
    recipe, lines, _, own = exported("axolotl", tmp_path, ROWS, tokenizer, **options)
    assert recipe["chat_template"] == "tokenizer_default"
    assert any("The end-of-text behind" in line for line in recipe["comments"]) == (name == "phi3")
    for line, row in zip(lines, own, strict=True):
        ids, labels = labels_by_axolotl(recipe, line, tokenizer)
        if name == "phi3":  # an end-of-text of its own behind the last turn
            assert labels.pop() == ids[-1] == tokenizer.eos_token_id
            labels.append(-100)
        assert (ids, labels) == labels_of(row)


def test_axolotl_gets_a_given_template_sharegpt_rows_and_answers_that_are_given(tmp_path):
    tokenizer = byte_level(None, CHATML.tokens)
    given = {"chat_template": CHATML.plain}
    pairs = [{"prompt": TALK[:3], "completion": TALK[3:]}] * 3
    for rows in (SHAREGPT, pairs):
        recipe, lines, _, own = exported("axolotl", tmp_path, rows, tokenizer, **given)
        assert (recipe["chat_template"], recipe["eot_tokens"]) == ("jinja", ["<|im_end|>"])
        for line, row in zip(lines, own, strict=True):
            assert labels_by_axolotl(recipe, line, tokenizer) == labels_of(row)


@pytest.mark.parametrize("options", [{}, {"train_on": "last"}, {"train_on": "all"}], ids=str)
@pytest.mark.parametrize("rows", [ROWS, SHAREGPT], ids=["chat", "sharegpt"])
def test_llamafactory_trains_the_tokens_of_the_run_and_what_ends_a_turn(rows, options, tmp_path):
    tokenizer = byte_level(CHATML.plain, CHATML.tokens)
    recipe, lines, info, own = exported("llamafactory", tmp_path, rows, tokenizer, **options)
    for line, row in zip(lines, own, strict=True):
        ids, labels = labels_by_llamafactory(recipe, line, info, tokenizer)
        wanted_ids, wanted = labels_of(row)
        assert ids == wanted_ids
        more = [ids[at] for at in range(1, len(ids)) if labels[at] != wanted[at]]
        assert all(labels[at] == ids[at] for at in range(1, len(ids)) if wanted[at] != -100)
        assert tokenizer.decode(more).strip() == ""


BAD = {"role": "assistant", "content": "the sea", "weight": 0}


@pytest.mark.parametrize("options", [{}, {"train_on": "last"}], ids=str)
def test_an_answer_of_weight_0_is_trained_by_no_tool(options, tmp_path):
    tokenizer = byte_level(CHATML.plain, CHATML.tokens)
    earlier, later = [TALK[0], BAD, *TALK[2:]], [*TALK[:3], BAD]
    for chat in (earlier, later):
        recipe, lines, _, own = exported("axolotl", tmp_path, [{"messages": chat}] * 3, tokenizer, **options)
        for line, row in zip(lines, own, strict=True):
            assert labels_by_axolotl(recipe, line, tokenizer) == labels_of(row)
    recipe, lines, info, own = exported("llamafactory", tmp_path, [{"messages": earlier}] * 3, tokenizer, **options)
    assert recipe["mask_history"] is True
    _, labels = labels_by_llamafactory(recipe, lines[0], info, tokenizer)
    assert [at for at, label in enumerate(labels) if label != -100][: len(own[0].targets)] == list(own[0].targets)
    with pytest.raises(PlanError, match="all answers of a chat or the last"):
        exported("llamafactory", tmp_path, [{"messages": later}] * 3, tokenizer, **options)


def test_a_call_that_the_template_leaves_out_is_trained_by_no_tool(tmp_path):
    tokenizer = byte_level(CHATML.plain, CHATML.tokens)
    call = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "look", "arguments": {}}}]}
    rows = [{"messages": [TALK[0], call, {"role": "tool", "content": "blue"}, TALK[3]]}] * 3
    recipe, lines, _, own = exported("axolotl", tmp_path, rows, tokenizer)
    assert [turn["train"] for turn in lines[0]["messages"]] == [False, False, False, True]
    assert labels_by_axolotl(recipe, lines[0], tokenizer) == labels_of(own[0])


def test_what_a_tool_cannot_be_told_is_one_sentence(tmp_path):
    tokenizer = byte_level(CHATML.plain, CHATML.tokens)
    odd = [{"messages": [TALK[0], *TALK]}] * 3
    tools = [{"messages": TALK, "tools": [{"type": "function", "function": {"name": "f"}}]}] * 3
    pairs = [{"prompt": TALK[:3], "completion": TALK[3:]}] * 3
    mixed = [*pairs, *ROWS[:1]] * 3
    for target, rows, options, words in (
        ("axolotl", ROWS, {"train_on": "all"}, "Axolotl trains what turns say"),
        ("llamafactory", ROWS, {"chat_template": CHATML.plain}, "takes no template but the tokenizer's"),
        ("llamafactory", odd, {}, r"Row \d is not of a user's and an assistant's turns"),
        ("llamafactory", tools, {}, r"Row \d has tools"),
        ("llamafactory", mixed, {}, "all answers of a chat or the last"),
    ):
        with pytest.raises(PlanError, match=words):
            exported(target, tmp_path, rows, tokenizer, **options)
    assert not are_chats(read_data([{"text": "the sky"}] * 3), tokenizer)
    assert not are_chats(read_data([{"prompt": "a", "completion": "b"}] * 3), byte_level(None))
    assert are_chats(read_data([{"prompt": "a", "completion": "b"}] * 3), tokenizer)


def test_the_command_writes_the_rows_beside_the_recipe_and_replaces_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_level(CHATML.plain, CHATML.tokens)
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained("model")
    tokenizer.save_pretrained("model")
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS * 4))
    (tmp_path / "text.jsonl").write_text('{"text": "the sky"}\n' * 4)
    spec = RunSpec("model", "chats.jsonl", Plan("model", 4, (3,)), general="text.jsonl")
    run = create_run(tmp_path / "runs", spec)
    for target in ("axolotl", "llamafactory"):
        (tmp_path / target).mkdir()
        asked = ["export", "--run", str(run), "--to", target]
        out = ["--out", f"{target}/recipe.yaml"]
        assert main([*asked, *out]) == 0
        recipe = yaml.safe_load((tmp_path / target / "recipe.yaml").read_text())
        assert {"base_model", "model_name_or_path"} & set(recipe)
        assert "20% general data, which is not in this recipe" in (tmp_path / target / "recipe.yaml").read_text()
        n_rows = len((tmp_path / target / "recipe-rows.jsonl").read_text().splitlines())
        assert 0 < n_rows < 12  # what was for validation and test is left out
        assert main([*asked, *out]) == 2
        assert "recipe-rows.jsonl already exists" in capsys.readouterr().err
        assert main(asked) == 2
        assert "give --out FILE" in capsys.readouterr().err
    plain = create_run(tmp_path / "runs", replace(spec, data="text.jsonl", general=None))
    assert main(["export", "--run", str(plain), "--to", "axolotl"]) == 0
    told = capsys.readouterr()
    assert "was not trained on chats; the recipe leaves out its data" in told.err
    assert "datasets" not in told.out
    tokenizer.chat_template = None
    (tmp_path / "model" / "chat_template.jinja").unlink()
    tokenizer.save_pretrained("model")
    assert main(["export", "--run", str(run), "--to", "axolotl", "--out", "plain.yaml"]) == 0
    assert "trained on chats by a plain template, since its model has none" in capsys.readouterr().err
