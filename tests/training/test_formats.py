"""What a run trains on: for every format its first loss is that of a plain loop of transformers on labels by hand."""

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from lsf.cli.main import main
from lsf.criteria.result import AnalysisSettings
from lsf.data.contents import OPTIONS, DataOptions
from lsf.data.encode import encode
from lsf.data.formats import FORMATS
from lsf.data.sources import load_task
from lsf.export.script import ScriptDefaults, training_script
from lsf.lens.analyze import analyze
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.runs.store import list_runs
from lsf.training.evaluation import answer, evaluate
from tests.data.chat_templates import TEMPLATES, byte_level
from tests.tiny import tiny_model

CHATML = TEMPLATES[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny chat model: byte-level tokens, generation marks in its template."""
    place = tmp_path_factory.mktemp("chat")
    tiny_model("llama", vocab_size=320, max_position_embeddings=512, eos_token_id=1).save_pretrained(place)
    byte_level(CHATML.marked, CHATML.tokens).save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_model(str(folder))


def by_hand(tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """Return ids and labels of a row, by transformers' own means."""
    if "input_ids" in row:
        return row["input_ids"], row["labels"]
    end = [tokenizer.eos_token_id]
    if "text" in row:
        ids = tokenizer(row["text"])["input_ids"] + end
        return ids, [-100, *ids[1:]]
    if "segments" in row:
        found = tokenizer("".join(part["text"] for part in row["segments"]), return_offsets_mapping=True)
        given = len(row["segments"][0]["text"])
        labels = [
            one if stop > given else -100
            for one, (_, stop) in zip(found["input_ids"], found["offset_mapping"], strict=True)
        ]
        return found["input_ids"] + end, labels + end
    found = tokenizer.apply_chat_template(turns_of(row), return_assistant_tokens_mask=True, return_dict=True)
    ids, mask = found["input_ids"], found["assistant_masks"]
    return ids, [one if marked else -100 for one, marked in zip(ids, mask, strict=True)]


def turns_of(row: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row's turns as its format means them."""
    user, said = {"role": "user"}, {"role": "assistant"}
    if "messages" in row:
        return row["messages"]
    if "conversations" in row:
        return [
            {"role": {"human": "user", "gpt": "assistant"}[t["from"]], "content": t["value"]}
            for t in row["conversations"]
        ]
    if "mapping" in row:
        messages = [node["message"] for node in row["mapping"].values()]
        return [{"role": one["author"]["role"], "content": one["content"]["parts"][0]} for one in messages]
    if "contents" in row:
        return [user | {"content": "What is green?"}, said | {"content": "The lamp."}]
    if isinstance(row.get("prompt"), dict):
        (reply,) = row["prompt"]["replies"]
        return [user | {"content": row["prompt"]["text"]}, said | {"content": reply["text"]}]
    if "instruction" in row:
        return [user | {"content": f"{row['instruction']}\n\n{row['input']}"}, said | {"content": row["output"]}]
    if "question" in row:
        return [user | {"content": row["question"]}, said | {"content": row["answer"]}]
    answer = row.get("chosen", row.get("completion"))
    if isinstance(answer, list):
        return [*row["prompt"], *answer]
    return [user | {"content": row["prompt"]}, said | {"content": str(answer).strip()}]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "bundle"])
def test_the_first_loss_is_that_of_a_plain_loop(
    name: str, folder: Path, loaded: LoadedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = dict(FORMATS[name].example)
    (path := tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({**row, "split": s}) + "\n" for s in ("train", "test"))
    )
    asked = ["tune", "--model", str(folder), "--data", str(path), "--blocks", "2", "--steps", "1", "--batch-size", "1"]
    assert main([*asked, "--cache", "off", "--learning-rate", "1e-3", "--runs", str(tmp_path / "runs")]) == 0
    (run,) = list_runs(tmp_path / "runs")
    steps = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    first = next(step["loss"] for step in steps if step.get("step") == 1 and "loss" in step)
    ids, labels = by_hand(loaded.tokenizer, row)
    with torch.no_grad():
        wanted = loaded.model(torch.tensor([ids]), labels=torch.tensor([labels])).loss.item()
    assert first == pytest.approx(wanted, abs=1e-5)
    assert run.result is not None
    kinds = {"tokens": "token ids", "segments": "segments", "text": "plain text"}
    assert run.result.rendering == kinds.get(name, "chat, by the model's template")
    assert run.result.samples[0].after is not None


def task_of(rows: list[dict[str, Any]], tmp_path: Path, **options: Any) -> Any:
    (path := tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_task(str(path), options=DataOptions(**options))


def test_the_whole_turn_is_judged_and_the_model_is_asked_up_to_the_last_one(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    task = task_of([dict(FORMATS["chat"].example)] * 4, tmp_path)
    (row,) = encode(loaded.tokenizer, task.train[:1], 512).rows
    ids, labels = by_hand(loaded.tokenizer, dict(FORMATS["chat"].example))
    logits = loaded.model(torch.tensor([ids])).logits[0].log_softmax(-1)
    nll = [-logits[at - 1, one].item() for at, one in enumerate(labels) if one != -100]
    assert evaluate(loaded.model, [row], 1).loss == pytest.approx(sum(nll) / len(nll), abs=1e-5)
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert [row.ids[place] for place in row.ends] == [end]
    assert isinstance(answer(loaded.model, loaded.tokenizer, row, 512), str)
    assert loaded.tokenizer.decode(row.ids[: row.asked]).endswith("<|im_start|>assistant\n")


def test_plain_text_is_windowed_every_token_once_and_its_perplexity_is_told_per_byte(
    loaded: LoadedModel, tmp_path: Path
) -> None:
    text = "the sky is blue. " * 20 + "é"
    task = task_of([{"text": text}] * 4, tmp_path)
    found = encode(loaded.tokenizer, task.train[:1], 50)
    ids = loaded.tokenizer(text)["input_ids"]
    assert [one for row in found.rows for one in row.ids[1:]] == ids[1:]
    assert all(one.ids[-1] == other.ids[0] for one, other in zip(found.rows, found.rows[1:], strict=False))
    n_bytes = len(text.encode()) - len(loaded.tokenizer.decode(ids[:1]).encode())
    assert sum(row.n_bytes for row in found.rows) == n_bytes
    metrics = evaluate(loaded.model, found.rows, 4)
    assert metrics.loss is not None and metrics.byte_perplexity is not None
    total = metrics.loss * sum(row.n_targets for row in found.rows)
    assert metrics.byte_perplexity == pytest.approx(torch.tensor(total / n_bytes).exp().item(), rel=1e-6)


@pytest.mark.parametrize(("positions", "wanted"), [("first", "every:16"), ("every:5", "every:5"), ("all", "all")])
def test_an_analysis_of_plain_text_looks_at_every_kth_token(
    positions: str, wanted: str, loaded: LoadedModel, tmp_path: Path
) -> None:
    task = task_of([{"text": "the sky is blue. " * 4}] * 4, tmp_path)
    found = analyze(loaded, task, AnalysisSettings(positions=positions, criteria=("deviation",), limit=2), Silent())
    n_targets = len(loaded.tokenizer("the sky is blue. " * 4)["input_ids"]) - 1
    step = 1 if wanted == "all" else int(wanted[6:])
    assert (found.data.positions, found.data.rendering) == (wanted, "plain text")
    assert found.data.n_positions == 2 * -(-n_targets // step)


def test_an_analysis_of_plain_text_tells_how_many_rows_its_windows_are_of(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path := tmp_path / "d.jsonl").write_text(
        "".join(json.dumps({"text": f"{n} is blue. " * 8}) + "\n" for n in range(4))
    )
    asked = ["analyze", "--model", str(folder), "--data", str(path), "--limit", "2", "--max-length", "40"]
    assert main([*asked, "--criteria", "deviation", "--json", str(tmp_path / "a.json")]) == 0
    said = capsys.readouterr().out
    assert "2 of 4 rows were read; --limit takes" in said and ", 6 examples (0 dropped" in said


def test_an_analysis_of_a_chat_looks_at_each_turns_first_token(loaded: LoadedModel, tmp_path: Path) -> None:
    turns = FORMATS["chat"].example["messages"]
    task = task_of([{"messages": [*turns, *turns]}] * 4, tmp_path)
    settings = AnalysisSettings(criteria=("deviation", "gradient_norm", "alignment"), limit=3)
    found = analyze(loaded, task, settings, Silent())
    assert (found.data.n_examples, found.data.n_positions) == (3, 6)


def test_the_exported_script_trains_the_same_tokens(loaded: LoadedModel, tmp_path: Path) -> None:
    made: dict[str, Any] = {"__name__": "script"}
    exec(compile(training_script("none", "block 1", ["x"], ScriptDefaults(1e-3)), "tune.py", "exec"), made)
    turns = FORMATS["chat"].example["messages"]
    rows = [{"messages": turns}, {"messages": [*turns, *turns]}]
    (path := tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    ours = encode(loaded.tokenizer, task_of(rows * 2, tmp_path).rows[:2], 512, append_eos=True).rows
    theirs = made["read"](path, loaded.tokenizer)
    assert [one["input_ids"] for one in theirs] == [list(row.ids) for row in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert [at for at, label in enumerate(other["labels"]) if label != -100] == list(mine.targets)


def test_a_chat_run_is_compared_and_repeated_from_its_bundle_with_the_same_numbers(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = FORMATS["chat"].example["messages"]
    asked = [{"role": "user", "content": f"{n}?"} for n in range(6)]
    rows: list[dict[str, Any]] = [{"messages": [*turns, turn, turns[1]]} for turn in asked]
    rows += [{"text": "some words"}, {"prompt": "a pair", "completion": " of texts"}]
    (path := tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = ["tune", "--model", str(folder), "--data", str(path), "--blocks", "2", "--steps", "2", "--train-on", "last"]
    assert main([*words, "--batch-size", "2", "--learning-rate", "1e-3", "--runs", str(tmp_path / "runs")]) == 0
    (first,) = list_runs(tmp_path / "runs")
    assert main(["runs", "bundle", str(first.folder), "--zip", str(tmp_path / "b.zip")]) == 0
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path / "bundle")
    path.unlink()
    spec = tmp_path / "bundle" / first.id / "spec.json"
    assert main(["tune", "--spec", str(spec), "--runs", str(tmp_path / "again")]) == 0
    (again,) = list_runs(tmp_path / "again")
    assert first.result is not None and again.result is not None
    assert (again.result.before, again.result.after) == (first.result.before, first.result.after)
    assert again.result.data_fingerprint == first.result.data_fingerprint
    assert main(["compare", str(tmp_path / "runs")]) == 0
    assert "block 2" in capsys.readouterr().out


def test_a_spec_of_before_chats_means_raw(folder: Path, tmp_path: Path) -> None:
    spec = RunSpec("m", "d", Plan("m", 4, (1,)))
    known = {name: value for name, value in spec.to_json().items() if name not in OPTIONS}
    (path := tmp_path / "spec.json").write_text(json.dumps(known))
    assert RunSpec.load(path).pairs == "raw"
    assert spec.pairs == "auto"
