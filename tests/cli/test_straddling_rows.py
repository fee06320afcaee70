"""A blank that ends a prompt lies in one token with the word behind it (byte-level): commands count such rows."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from lsf.cli.main import main
from tests.data.test_encode import byte_tokenizer
from tests.tiny import tiny_model

COUNTED = (
    "{} rows have a token that is part prompt, part completion; it counts as a target. Where the prompt ends in a "
    "blank, move it to the completion's beginning."
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model whose tokenizer has one token for a blank and the word Paris."""
    tokenizer, folder = byte_tokenizer(False), tmp_path_factory.mktemp("bytes")
    tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def rows(tmp_path: Path) -> Callable[[str, str], str]:
    """Return a function that writes twenty rows of a prompt, numbered, and a completion."""

    def write(prompt: str, completion: str) -> str:
        made = [{"prompt": f"{n} {prompt}", "completion": completion} for n in range(20)]
        (path := tmp_path / "d.jsonl").write_text("".join(json.dumps(row) + "\n" for row in made))
        return str(path)

    return write


COMMANDS: dict[str, tuple[int, Callable[[str, str, Path], Sequence[str]]]] = {
    "analyze": (
        8,
        lambda model, data, folder: (
            "analyze", "--model", model, "--data", data, "--split", "train", "--limit", "8", "--criteria", "deviation",
            "--json", str(folder / "out.json"),
        ),
    ),
    "tune": (
        20,
        lambda model, data, folder: (
            "tune", "--model", model, "--data", data, "--blocks", "3", "--steps", "1", "--runs", str(folder / "runs"),
        ),
    ),
    "data": (20, lambda model, data, folder: ("data", data, "--model", model)),
}  # fmt: skip
"""Command -> how many of the twenty rows it reads, and what is typed."""


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_whose_prompt_ends_in_a_blank_are_counted_in_one_line_and_others_are_not(
    command: str, model: str, rows: Callable[[str, str], str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read, typed = COMMANDS[command]
    assert main(list(typed(model, rows("it is ", "Paris"), tmp_path))) == 0
    assert [line.count(COUNTED.format(read)) for line in "".join(capsys.readouterr()).splitlines()].count(1) == 1
    assert main(list(typed(model, rows("it is", " Paris"), tmp_path))) == 0
    assert "part prompt" not in "".join(capsys.readouterr())
