"""The first page: what a new user finds, and every way the input can be wrong."""

from collections.abc import Callable
from pathlib import Path

from tests.pages.conftest import Driver


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
    assert "`question`, `answer`" in app.shown()
    assert "8 training, 1 validation and 1 test examples" in app.shown()


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
    "one.csv": (b"prompt,completion\nthe cat, mat\n", "at least 3"),
    "ragged.csv": (b"prompt,completion\nthe cat, mat\nthe dog\nthe sun, sky\n", "line 3"),
    "columns.csv": (b"question,answer\na,b\nc,d\ne,f\n", "no column 'prompt'"),
    "binary.csv": (b"prompt,completion\n\x00\x01\x02", "binary"),
    "latin.csv": ("prompt,completion\ncaf\xe9, mat\n".encode("latin-1"), "not UTF-8"),
    "broken.jsonl": (b'{"prompt": "a", "completion": " b"}\n{"prompt": \n', "line 2"),
    "blank.csv": (b"prompt,completion\nthe cat, mat\nthe dog,\nthe sun, sky\n", "the completion is empty"),
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


def test_a_model_that_is_not_at_hand_is_one_sentence_when_it_is_fetched(app: Driver, cats: Path) -> None:
    app.use(Path("nobody-here"), cats)
    app.click("Fetch and load")
    app.wait("load")
    app.at.run()
    assert any("nobody-here" in error for error in app.errors())


def test_nothing_typed_says_what_to_type(app: Driver) -> None:
    app.at.session_state["model-kind"] = "Your own"
    app.at.run()
    assert "Type a Hugging Face id or a local folder" in app.shown()
    assert next(button for button in app.at.button if button.label == "Analyse").disabled
