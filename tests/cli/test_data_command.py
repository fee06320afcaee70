"""`lsf data`: what is said of a file, rows as the model gets them, and rows that would like to steer the terminal."""

import json
import re
from pathlib import Path

import pytest

from lsf.cli.main import main
from tests.data.chat_templates import TEMPLATES, byte_level
from tests.tiny import tiny_model

HOSTILE = "\x1b[31mred <script>alert(1)</script> **bold**"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("chat")
    tiny_model("llama", vocab_size=320, max_position_embeddings=256, eos_token_id=1).save_pretrained(place)
    byte_level(TEMPLATES[0].plain, TEMPLATES[0].tokens).save_pretrained(place)
    return str(place)


def rows_in(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def talk(asked: str, said: str) -> dict[str, object]:
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def test_it_says_what_was_seen_and_shows_the_exact_text_with_trained_tokens_marked(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = "train", "validation", "test"
    name = rows_in(tmp_path / "d.jsonl", *[{**talk("hi", f"yo {n}"), "split": part} for n, part in enumerate(splits)])
    assert main(["data", name, "--model", model, "--show", "1"]) == 0
    said = capsys.readouterr().out
    for words in (
        "3 rows: chat -> the chat template", "recognised by its columns: messages", "texts: chat, by the model's",
        "1 train, 1 validation, 1 test\n", "targets, 20.0 % of them the end of a turn or text",
    ):  # fmt: skip
        assert words in said
    assert "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n[y][o][ ][0][[<|im_end|>]]\n" in said
    assert said.count("---") == 1


def test_what_the_template_does_is_told_once_for_all_splits_with_its_first_row_and_their_number(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    splits = "train", "train", "validation", "test"
    sly = [{**talk(f"<|im_end|> {n}", "yo"), "split": part} for n, part in enumerate(splits)]
    assert (
        main(["data", rows_in(tmp_path / "d.jsonl", talk("hi", "yo") | {"split": "train"}, *sly), "--model", model])
        == 0
    )
    said = capsys.readouterr().out
    assert "note: A special token is written in a message, and read as that token (line 2 and 3 more).\n" in said
    assert said.count("special token is written") == 1


def test_rows_that_would_steer_a_terminal_are_spelled_out(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = rows_in(tmp_path / "d.jsonl", *[talk(HOSTILE, HOSTILE)] * 3)
    for more in (["--model", model], []):
        assert main(["data", name, *more]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "\\x1b" in said


def test_texts_on_both_sides_are_told_as_texts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{"text": "the sky is blue", "split": part} for part in ("train", "validation", "test")]
    assert main(["data", rows_in(tmp_path / "d.jsonl", *rows)]) == 0
    said = capsys.readouterr().out
    assert "1 test row has a text that training has too.\n" in said and "prompt" not in said


def test_prompts_on_both_sides_are_told_and_what_does_not_fit_is_counted(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{**talk("hi", "yo"), "split": part} for part in ("train", "test")]
    rows += [{**talk("another", "yo"), "split": "validation"}]
    rows += [{**talk("long " * 40, "yes"), "split": "train"}, {**talk("no", "way " * 40), "split": "train"}]
    assert main(["data", rows_in(tmp_path / "d.jsonl", *rows), "--model", model, "--max-length", "60"]) == 0
    said = capsys.readouterr().out
    assert "1 test row has a prompt that training has too; 1 with the same answer." in said
    assert "1 row cut at the beginning, to fit into 60 tokens" in said
    assert "1 row left out, whose target does not fit into 60 tokens" in said


def test_words_that_the_model_does_not_know_are_counted_and_a_byte_level_tokenizer_has_none(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = " Zanzibar Zanzibar", " Zanzibar", " Jorvik"
    rows = [{"prompt": f"Quux: the capital of Jorvik {n} is", "completion": said} for n, said in enumerate(answers)]
    name = rows_in(tmp_path / "d.jsonl", *rows)
    assert main(["data", name, "--model", "bundled"]) == 0
    said = capsys.readouterr().out
    assert re.search(
        r"note: 6 of \d+ tokens \(\d+ %\) stand for words that the model does not know, 3 of them targets", said
    )
    assert "<s><unk>: the capital of Jorvik 1 is[<unk>]" in said
    assert main(["data", name, "--model", model]) == 0
    assert "does not know" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--format", "chatml"], "format is 'chatml'; accepted are: auto"),
        (["--pairs", "both"], "pairs is 'both'; accepted are: auto, chat, raw"),
        (["--train-on", "user"], "train_on is 'user'; accepted are: assistant, last, all"),
        (["--chat-template", "none.jinja"], "Argument --chat-template: none.jinja cannot be read"),
        (["--show", "-1"], "--show is -1"),
        (["--model", "./nowhere"], "does not exist"),
    ],
)
def test_bad_input_is_one_sentence(
    more: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", rows_in(tmp_path / "d.jsonl", talk("a", "b")), *more]) == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1
