"""The exported training script makes of every row the tokens and targets that a run makes of it."""

import json
import types
from functools import cache

import pytest
import torch
from safetensors.torch import load_file

from lsf.cli.main import main
from lsf.data.contents import DataOptions, options_in
from lsf.data.encode import encode
from lsf.data.reading import read_data
from lsf.data.sources import load_task
from lsf.export.recipe_data import transformers_data
from lsf.export.script import ScriptDefaults, training_script
from lsf.export.targets import EXPORTS
from lsf.models.loading import load_model
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import create_run
from lsf.training.run import tune
from lsf.training.splits import encode_splits
from tests.children import finished
from tests.data.chat_templates import TEMPLATES, byte_level
from tests.data.test_chat import AGAIN, ASKED, SAID
from tests.data.test_rewritten_turns import CHATML, QWEN3, THINKS
from tests.tiny import tiny_model, tiny_tokenizer

CALL = {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "look", "arguments": {"at": "s"}}}]}
CHATS = {
    "two turns": [ASKED, SAID, AGAIN, SAID],
    "a system prompt": [{"role": "system", "content": "a"}, ASKED, SAID],
    "the assistant speaks first": [SAID, ASKED, SAID],
    "weight 0": [ASKED, SAID | {"weight": 0}, AGAIN, SAID | {"weight": 1}],
    "weight 0 at the end": [ASKED, SAID, AGAIN, SAID | {"weight": 0}],
    "short": [ASKED, SAID | {"content": "d"}, AGAIN, SAID | {"content": "end"}],
    "blanks": [ASKED, SAID | {"content": " the sky.\n"}],
    "a tool": [ASKED, CALL, {"role": "tool", "content": "look"}, SAID],
    "arguments as text": [
        ASKED,
        CALL | {"tool_calls": [{"function": {"name": "look", "arguments": '{"at": "s"}'}}]},
        SAID,
    ],
}
"""What a chat may be, of which the script has to train what the product does."""


@cache
def tokenizer_for(template, special):
    return byte_level(template, special)


@cache
def script(code=None, **defaults):
    """Return the script as a module."""
    module = types.ModuleType("script")
    module.__file__ = "tune.py"
    code = training_script("none", "block 1", ["x"], ScriptDefaults(1e-3, **defaults)) if code is None else code
    exec(compile(code, "tune.py", "exec"), module.__dict__)
    return module


def pairs_of(rows):
    """Return ids and labels of encoded rows."""
    return [
        (list(row.ids), [token if at in set(row.targets) else -100 for at, token in enumerate(row.ids)]) for row in rows
    ]


def assert_same_rows(module, path, rows, tokenizer, length=1000, **options):
    """Compare what the script makes of rows, each alone, with what the product does."""
    given = {name: options[name] for name in ("train_on", "pairs") if name in options}
    for row in rows:
        path.write_text(json.dumps(row))
        ours = encode(tokenizer, read_data([row] * 3, options=DataOptions(**options)).train[:1], length, True).rows
        found = module.read(path, tokenizer, length=length, **given)
        assert [(one["input_ids"], one["labels"]) for one in found] == pairs_of(ours), row


@pytest.mark.parametrize("train_on", ["assistant", "last", "all"])
@pytest.mark.parametrize("chat", CHATS)
def test_the_script_trains_the_tokens_of_a_chat_that_the_product_trains(chat, train_on, tmp_path):
    own = [(text, family.tokens) for family in TEMPLATES for text in (family.plain, family.marked)]
    own += [(QWEN3, CHATML), (THINKS.replace("HEAD", "<|a|>").replace("ASK", "<|a|><think>"), ("<User>", "<|a|>"))]
    module, rows = script(), [{"messages": CHATS[chat]}]
    for template, special in own:
        assert_same_rows(module, tmp_path / "rows.jsonl", rows, tokenizer_for(template, special), train_on=train_on)


WORDS_ALONE = TEMPLATES[0].text.replace("GEN{{ m['content'] }}<|im_end|>END", "GEN{{ m['content'] }}END<|im_end|>")


@pytest.mark.parametrize("train_on", ["assistant", "last"])
def test_the_script_follows_generation_marks_as_the_product_does(train_on, tmp_path):
    marked = WORDS_ALONE.replace("GEN", "{% generation %}").replace("END", "{% endgeneration %}")
    tokenizer, rows = byte_level(marked, CHATML), [{"messages": CHATS[name]} for name in ("two turns", "weight 0")]
    assert_same_rows(script(), tmp_path / "rows.jsonl", rows, tokenizer, train_on=train_on)
    (found,) = script().read(tmp_path / "rows.jsonl", tokenizer, train_on)
    assert tokenizer.decode([token for token in found["labels"] if token >= 0]) == SAID["content"]  # no end of turn


@pytest.mark.parametrize("pairs", ["auto", "raw", "chat"])
@pytest.mark.parametrize("template", [None, TEMPLATES[0].plain], ids=["no template", "chatml"])
def test_the_script_reads_pairs_and_chats_as_the_product_does_at_any_length(template, pairs, tmp_path):
    said, given = {"role": "assistant", "content": "no"}, [ASKED, SAID, AGAIN]
    rows = [
        {"prompt": " the cat ", "completion": " sat on "}, {"prompt": "the", "completion": " mat</s>"},
        {"prompt": "<s>the", "completion": " mat"}, {"prompt": given, "completion": [said]},
        {"messages": [*given, said]},
    ]  # fmt: skip
    tokenizer, path = byte_level(template, CHATML), tmp_path / "rows.jsonl"
    for length in (1000, 40, 30):
        assert_same_rows(script(), path, rows, tokenizer, length=length, pairs=pairs)
    starting = tiny_tokenizer()  # which puts a start token before every text
    assert starting("the").input_ids[0] == starting.bos_token_id
    for length in (64, 5):
        assert_same_rows(script(), path, rows[:3], starting, length=length, pairs="raw")


def test_a_row_that_cannot_be_read_is_named_and_one_that_does_not_fit_is_left_out(tmp_path, capsys):
    tokenizer, path = byte_level(TEMPLATES[0].plain, CHATML), tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": [ASKED, SAID]}) + "\n" + json.dumps({"messages": [ASKED]}))
    with pytest.raises(SystemExit, match="line 2: ValueError: it has no assistant's turn"):
        script().read(path, tokenizer)
    long = {"messages": [ASKED, SAID | {"content": "word " * 50}]}
    path.write_text(json.dumps({"messages": [ASKED, SAID]}) + "\n" + json.dumps(long))
    assert len(script().read(path, tokenizer, length=60)) == 1
    assert "1 rows left out, whose target does not fit into 60 tokens" in capsys.readouterr().out


def test_a_run_is_exported_with_its_rows_and_the_script_makes_the_runs_targets_of_them(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    tokenizer = byte_level(WORDS_ALONE.replace("GEN", "").replace("END", ""), CHATML)
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained("model")
    tokenizer.save_pretrained("model")
    asked = [{"role": "user", "content": f"{number}?"} for number in range(8)]
    rows = [{"messages": [*CHATS["weight 0"], turn, SAID], "split": "train"} for turn in asked]
    rows += [{"prompt": [ASKED, SAID, AGAIN], "completion": [SAID]}, {"prompt": " a pair ", "completion": " of texts"}]
    rows += [
        {"text": "a text, which is cut into windows of so many tokens, the last of them short"},
        {"input_ids": [3, 4], "labels": [-100, 4]},
    ]
    rows += [{"messages": [ASKED, SAID | {"content": "much too long for it " * 4}]}]
    rows = [{**row, "split": "train"} for row in rows] + [{**rows[0], "split": "test"}]
    (tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    kinds = {"train_on": "last", "max_length": 40, "seed": 7, "batch_size": 4, "steps": 9, "warmup_steps": 2}
    spec = RunSpec("model", "d.jsonl", Plan("model", 4, (3,)), **kinds)
    for name in ("out", "alone"):
        (tmp_path / name).mkdir()
    export = ["export", "--run", str(create_run(tmp_path / "runs", spec)), "--to", "transformers"]
    assert main([*export, "--out", "out/tune.py"]) == 0
    assert "beside it: out/tune-rows.jsonl" in capsys.readouterr().out
    made = script((tmp_path / "out" / "tune.py").read_text())
    found = made.read(tmp_path / "out" / "tune-rows.jsonl", tokenizer)
    train = encode_splits(
        load_model("model", "float32", "cpu"), load_task("d.jsonl", options=options_in(spec)), spec
    ).train
    assert [(one["input_ids"], one["labels"]) for one in found] == pairs_of(train)
    assert (len(train), made.TRAIN_ON, made.MAX_LENGTH) == (12, "last", 40)  # a row is for validation
    monkeypatch.setattr("sys.argv", ["out/tune.py", "--help"])
    with pytest.raises(SystemExit):
        made.main()
    assert "tune-rows.jsonl holds one JSON object per line" in capsys.readouterr().out
    assert main([*export, "--out", "out/tune.py"]) == 2
    assert "tune-rows.jsonl already exists" in capsys.readouterr().err
    (tmp_path / "d.jsonl").unlink()
    assert main([*export, "--out", "alone/tune.py"]) == 0
    assert "Its rows are not written beside the script" in capsys.readouterr().err
    assert 'add_argument("--data", required=True)' in (tmp_path / "alone" / "tune.py").read_text()


def test_the_texts_of_a_lesson_stay_raw_in_the_script_of_a_chat_model(tmp_path):
    task, tokenizer = load_task("lesson:facts"), byte_level(TEMPLATES[0].plain, CHATML)
    spec = RunSpec("model", "lesson:facts", Plan("model", 4, (3,)))
    (text,) = transformers_data(tmp_path / "tune.py", spec, task, tokenizer, 64).files.values()
    (tmp_path / "rows.jsonl").write_text(text)
    found = script().read(tmp_path / "rows.jsonl", tokenizer, pairs="raw")
    ours = encode(tokenizer, task.train, 64, append_eos=True).rows
    assert [(one["input_ids"], one["labels"]) for one in found] == pairs_of(ours)


def tuned_run(folder, steps=3, **asked):
    """Return the folder of a finished run on the bundled model and a lesson, of a few steps."""
    spec = RunSpec("bundled", "lesson:facts", steps=steps, batch_size=4, eval_limit=8, **asked)
    run = create_run(folder, spec)
    return run, tune(load_model("bundled", "float32", "cpu"), load_task("lesson:facts"), spec, run)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("blocks", "options"), [((5, 6), {"r": 4, "alpha": 12.0, "maps": "mlp"}), ((0, 3), {})], ids=["mlp", "default"]
)
def test_the_script_of_a_run_by_lora_tunes_the_parameters_that_the_run_tuned(blocks, options, tmp_path):
    run, result = tuned_run(tmp_path / "runs", plan=Plan("bundled", 8, blocks), method="lora", options=options)
    assert main(["export", "--run", str(run), "--to", "transformers", "--out", str(tmp_path / "tune.py")]) == 0
    done = finished(tmp_path / "tune.py", "--out", tmp_path / "tuned", "--learning-rate", "0.01", folder=tmp_path)
    assert done.poll() == 0, done.err[-3000:]
    assert f"tuning {result.trainable_params:,} parameters" in done.out
    folders = run / "weights", tmp_path / "tuned"
    ours, theirs = (load_file(folder / "adapter_model.safetensors") for folder in folders)
    assert {name: value.shape for name, value in theirs.items()} == {name: one.shape for name, one in ours.items()}
    assert sum(value.numel() for value in theirs.values()) == result.trainable_params
    assert all(value.any() for value in theirs.values())  # B starts at zero: each was trained
    known, found = (json.loads((folder / "adapter_config.json").read_text()) for folder in folders)
    for key in ("r", "lora_alpha", "lora_dropout", "bias", "layers_to_transform", "base_model_name_or_path"):
        assert found[key] == known[key], key
    assert set(found["target_modules"]) == set(known["target_modules"])
    assert not list((tmp_path / "tuned").glob("model*.safetensors"))  # the base is not written again
    assert f"default={result.learning_rate})" in (tmp_path / "tune.py").read_text()


def exported(run, target, place):
    """Return what `export --run` writes."""
    assert main(["export", "--run", str(run), "--to", target, "--out", str(place)]) == 0
    return place.read_text()


def test_a_run_by_lora_is_exported_to_peft_with_its_options(tmp_path):
    options = {"r": 4, "alpha": 12.0, "maps": "mlp"}
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (5,)), method="lora", options=options)
    found = json.loads(exported(create_run(tmp_path, spec), "peft", tmp_path / "adapter_config.json"))
    assert (found["r"], found["lora_alpha"], found["layers_to_transform"]) == (4, 12.0, [5])
    assert found["target_modules"] == ["mlp.down_proj", "mlp.gate_proj", "mlp.up_proj"]


def test_the_script_of_a_run_that_has_not_ended_has_the_rate_that_was_given_or_that_the_plan_brings(tmp_path):
    brings = Plan("bundled", 8, (5,), rates={"full": 0.0321, "lora": 0.0456})
    for method, rate in brings.rates.items():
        run = create_run(tmp_path, RunSpec("bundled", "lesson:facts", brings, method=method))
        assert f"default={rate})" in exported(run, "transformers", tmp_path / f"tried-{method}.py")
    brings.save(tmp_path / "plan.json")
    assert (
        main(["export", "--plan", str(tmp_path / "plan.json"), "--to", "transformers", "--out", str(tmp_path / "p.py")])
        == 0
    )
    assert "default=0.0321)" in (tmp_path / "p.py").read_text()
    for method in ("full", "lora"):
        spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (5,)), method=method, learning_rate=0.0123)
        assert "default=0.0123)" in exported(create_run(tmp_path, spec), "transformers", tmp_path / f"{method}.py")


@pytest.mark.parametrize(
    ("method", "target", "does"),
    [
        ("bitfit", "transformers", "tunes all weights of block 7"),
        ("adapter", "axolotl", "tunes all weights of block 7"),
        ("bitfit", "llamafactory", "tunes all weights of block 7"),
        ("full", "peft", "tunes LoRA on block 7"),
    ],
)
def test_an_export_that_does_not_tune_as_the_run_did_says_so(method, target, does, tmp_path, capsys):
    options = {"kind": "pfeiffer"} if method == "adapter" else {}
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (7,)), method=method, options=options)
    run = create_run(tmp_path / "runs", spec)
    text = exported(run, target, tmp_path / "written")
    sentence = (
        f"{run.name} was tuned by the method {spec.how}, which an export to {target} cannot carry out; this one {does}."
    )
    assert f"lsf: {sentence}\n" in capsys.readouterr().err
    assert text.startswith(f"# {sentence}\n") == (target != "peft")  # JSON has no comments


@pytest.mark.parametrize(("method", "target"), [("full", "axolotl"), *(("lora", target) for target in EXPORTS)])
def test_an_export_that_tunes_as_the_run_did_says_nothing_of_the_method(method, target, tmp_path, capsys):
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (7,)), method=method)
    text = exported(create_run(tmp_path / "runs", spec), target, tmp_path / "written")
    assert "cannot carry out" not in capsys.readouterr().err + text


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"reweight_tau": 0.1}, "weights of examples that are measured anew at every pass"),
        ({"general": "lesson:labels", "keep": "best"}, "general data, 20% of its rows; the parameters of its best"),
        ({"until": "flat"}, "an end where validation no longer gained"),
        ({"method": "lora", "dtype": "nf4"}, "a base in nf4, which the script tunes as it is saved"),
    ],
)
def test_what_a_run_was_asked_for_and_its_script_does_not_do_is_said(asked, words, tmp_path, capsys):
    run = create_run(tmp_path / "runs", RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (7,)), **asked))
    text = exported(run, "transformers", tmp_path / "tune.py")
    told = capsys.readouterr().err
    assert f"lsf: {run.name} was tuned with what the script does not carry over: {words}" in told
    assert text.startswith(f"# {run.name} was tuned with what the script does not carry over: {words}")
    assert str(script(text).__doc__).startswith("Tunes ")


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-3), ("bfloat16", 0.8)])
def test_the_script_ends_with_the_weights_of_the_run(dtype, apart, tmp_path, monkeypatch):
    """All rows are in every batch, so that their order does not matter."""
    monkeypatch.chdir(tmp_path)
    names = "train", "validation", "test"
    rows = [f"the {one} is,{number},{split}" for number, one in enumerate("abcdefgh") for split in names]
    (tmp_path / "d.csv").write_text("\n".join(["prompt,completion,split", *rows]) + "\n")
    plan = Plan("bundled", 8, (3, 7), embedding=True)
    kinds = {"learning_rate": 0.01, "warmup_steps": 2, "weight_decay": 0.1, "pairs": "raw", "device": "cpu"}
    spec = RunSpec("bundled", "d.csv", plan, steps=6, batch_size=8, dtype=dtype, **kinds)
    run, base = create_run(tmp_path / "runs", spec), load_model("bundled", dtype, "cpu")
    task = load_task("d.csv", options=options_in(spec))
    assert tune(base, task, spec, run).state == "succeeded"
    assert len(encode_splits(base, task, spec).train) == 8
    assert f'"--dtype", choices=("auto", "float32", "bfloat16"), default={dtype!r}' in exported(
        run, "transformers", tmp_path / "tune.py"
    )
    done = finished(tmp_path / "tune.py", "--out", tmp_path / "tuned", folder=tmp_path)
    assert done.poll() == 0, done.err[-3000:]
    ours, theirs = load_file(run / "weights" / "tuned.safetensors"), load_file(tmp_path / "tuned" / "model.safetensors")
    before = dict(base.model.named_parameters())
    assert {value.dtype for value in theirs.values()} == {getattr(torch, dtype)}
    assert ours.keys() < theirs.keys()
    assert all(value.equal(before[name]) for name, value in theirs.items() if name not in ours)
    ended = {name: value.to(theirs[name].dtype).float() for name, value in ours.items()}
    moved, differ = (
        torch.cat([(value - other[name].float()).flatten() for name, value in ended.items()])
        for other in (before, theirs)
    )
    assert differ.norm() < apart * moved.norm()


@pytest.mark.slow
def test_the_script_steps_with_the_optimizer_of_the_run(tmp_path):
    weights = {}
    for name, optim in (("adamw", "adamw_torch_fused"), ("adafactor", "adafactor")):
        folder = tmp_path / name
        run, _ = tuned_run(folder / "runs", plan=Plan("bundled", 8, (7,)), optimizer=name, learning_rate=0.01)
        assert f"optim={optim!r}," in exported(run, "transformers", folder / "tune.py")
        done = finished(folder / "tune.py", "--out", folder / "tuned", folder=folder)
        assert done.poll() == 0, done.err[-3000:]
        weights[name] = load_file(folder / "tuned" / "model.safetensors")
    moved = [name for name, value in weights["adamw"].items() if not value.equal(weights["adafactor"][name])]
    assert moved and all(".7." in name for name in moved)  # the same rows in the same order, by other steps
    spec = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (7,)), optimizer="adamw_8bit")
    text = exported(create_run(tmp_path / "8bit", spec), "transformers", tmp_path / "eight.py")
    assert "optim='adamw_8bit'," in text
    compile(text, "eight.py", "exec")
