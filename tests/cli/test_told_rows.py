"""What is told of rows: left out, cut, shared by splits, read otherwise than they stand; and what nobody may read."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas
import pytest

import lsf
from lsf.cli.main import main
from lsf.data.sources import load_task
from lsf.errors import BadInputError, DataError, PlanError

ROOT = Path(__file__).parents[2]


def rows_in(path: Path, rows: Sequence[Mapping[str, object]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def long_and_short(path: Path) -> str:
    answers = [" " + " ".join(["one"] * (n if n % 2 else 1)) for n in range(40)]
    return rows_in(path, [{"prompt": f"The town of {n} is the", "completion": said} for n, said in enumerate(answers)])


def shared(path: Path) -> str:
    row = {"prompt": "The town is", "completion": " red"}
    return rows_in(path, [{**row, "split": name} for name in ("train", "validation", "test")])


COMMANDS = {
    "tune": "--blocks 7 --steps 1 --runs {out}/runs",
    "sweep": "--steps 1 --seeds 1 --learning-rate 1e-3 --eval-limit 2 --json {out}/sweep.json",
}


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_that_do_not_fit_are_told(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = long_and_short(tmp_path / "d.jsonl")
    options = COMMANDS[command].format(out=tmp_path).split()
    assert main([command, "--model", "bundled", "--data", data, "--max-length", "6", *options]) == 0
    said = capsys.readouterr().err
    assert "training rows left out, whose target does not fit into 6 tokens." in said
    assert "training rows cut at the beginning, to fit into 6 tokens." in said


@pytest.mark.parametrize("command", COMMANDS)
def test_rows_that_training_and_test_share_are_told(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, options = shared(tmp_path / "d.jsonl"), COMMANDS[command].format(out=tmp_path).split()
    assert main([command, "--model", "bundled", "--data", data, *options]) == 0
    assert "1 test row has a prompt that training has too; 1 with the same answer." in capsys.readouterr().err


def test_an_analysis_tells_what_the_chat_template_leaves_out_as_the_report_of_the_data_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tools = [{"type": "function", "function": {"name": "look_up"}}]
    turns = [{"role": "user", "content": "the cat"}, {"role": "assistant", "content": "the dog"}]
    data = rows_in(tmp_path / "d.jsonl", [{"messages": turns, "tools": tools}] * 3)
    page = tmp_path / "a.html"
    asked = ["--limit", "2", "--criteria", "deviation", "--json", str(tmp_path / "a.json"), "--html", str(page)]
    told = "The chat template leaves out the descriptions of tools (line 1 and"
    assert main(["analyze", "--model", "bundled", "--data", data, "--split", "all", *asked]) == 0
    assert f"lsf: {told} 1 more)." in capsys.readouterr().err
    assert json.loads((tmp_path / "a.json").read_text())["data"]["told"] == [f"{told} 1 more)."]
    assert f"{told} 1 more)." in page.read_text()
    assert main(["data", data, "--model", "bundled"]) == 0
    assert "note: The chat template leaves out the descriptions of tools (line" in capsys.readouterr().out


def test_texts_of_pairs_are_called_the_same_in_every_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = ["--model", "bundled", "--data", "lesson:facts"]
    asked = {
        "analyze": ["--limit", "2", "--criteria", "deviation", "--json", str(tmp_path / "a.json")],
        "tune": ["--blocks", "7", "--steps", "1", "--eval-limit", "2", "--runs", str(tmp_path / "runs")],
    }
    assert main(["data", "lesson:facts", "--model", "bundled"]) == 0
    for command, options in asked.items():
        assert main([command, *source, *options]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("texts: ")]
    assert [line.partition(";")[0] for line in told] == ["texts: prompt and answer as they stand"] * 3


def test_an_analysis_of_rows_that_no_test_is_made_of_says_nothing_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows: list[dict[str, object]] = [{"prompt": f"The town of {n} is", "completion": " red"} for n in range(3)]
    for some, told in ((rows[:2], False), (rows, True)):
        data = rows_in(tmp_path / "d.jsonl", some)
        asked = ["--criteria", "last", "--limit", "1", "--json", str(tmp_path / "a.json")]
        assert main(["analyze", "--model", "bundled", "--data", data, *asked]) == 0
        assert ("would test on" in capsys.readouterr().err) == told


def test_an_unknown_policy_is_answered_with_every_known_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["plan", "--analysis", str(tmp_path / "a.json"), "--criterion", "last", "--json", str(tmp_path / "p.json")]
    for budget in (["--blocks", "2"], ["--flops", "0.5"]):
        assert main([*asked, "--policy", "best", *budget]) == 2
        assert (
            "Unknown policy 'best'; known are: top_k, window, suffix, evenly_spaced, knapsack."
            in capsys.readouterr().err
        )


def test_evenly_spaced_blocks_take_no_criterion_and_every_other_policy_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = [str(tmp_path / name) for name in ("a.json", "p.json")]
    lsf.analyze(lsf.load("bundled"), "lesson:facts", criteria="deviation", limit=2).save(place[0])
    asked = ["plan", "--analysis", place[0], "--blocks", "3", "--json", place[1]]
    assert main([*asked, "--policy", "evenly_spaced"]) == 0
    assert "tune blocks 0, 4, 7 of 8" in capsys.readouterr().out
    assert json.loads(Path(place[1]).read_text())["criterion"] is None
    assert main([*asked, "--policy", "evenly_spaced", "--criterion", "deviation"]) == 2
    assert "The policy evenly_spaced looks at no score; leave out --criterion." in capsys.readouterr().err
    assert main(asked) == 2
    assert "--criterion NAME is missing, which the policy top_k chooses by." in capsys.readouterr().err


def test_python_warns_of_rows_as_the_commands_tell_them() -> None:
    rows = [{"prompt": f"The town {n} is", "completion": " red"} for n in range(12)]
    model = lsf.load("bundled")
    with pytest.warns(UserWarning, match=r"1 row: left out, since the completion is empty \(row 13\)"):
        lsf.analyze(model, [*rows, {"prompt": "x", "completion": ""}], criteria="deviation", limit=2)
    with pytest.warns(UserWarning, match="2 test rows have a prompt that training has too; 2 with the same answer"):
        lsf.analyze(model, {"train": rows, "test": rows[:2]}, criteria="deviation", limit=2)


@pytest.mark.parametrize("name", ["Split", "SPLIT ", "split"])
def test_the_column_of_splits_is_found_whatever_its_letters(name: str, tmp_path: Path) -> None:
    (tmp_path / "d.csv").write_text(f"Prompt,Completion,{name}\na, b,test\nc, d,train\ne, f,validation\n")
    task = load_task(str(tmp_path / "d.csv"))
    assert [row.prompt for row in (*task.train, *task.validation, *task.test)] == ["c", "e", "a"]
    assert task.own_splits and task.seen.notes == ()


def test_files_and_splits_that_are_not_read_are_named(tmp_path: Path) -> None:
    for name in ("train", "val", "test", "more"):
        rows_in(tmp_path / f"{name}.jsonl", [{"prompt": name, "completion": " red"}])
    (tmp_path / "README.md").write_text("What it is.")
    task = load_task(str(tmp_path))
    assert [row.prompt for row in task.validation] == ["val"]
    assert task.seen.notes == ("not read, since it is called by no split's name: more.jsonl.",)
    row = {"prompt": "a", "completion": " b"}
    held = lsf.read_data({"train": [row], "tests": [row], "dev": [row]})
    assert "not read, since it is called by no split's name: tests." in held.seen.notes
    assert lsf.read_data({"train": pandas.DataFrame([{**row, "split": "train"}])}).train[0].prompt == "a"
    with pytest.raises(DataError, match="two splits for validation: dev and valid; leave one there"):
        lsf.read_data({"train": [row], "dev": [row], "valid": [row]})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"text": "a", "label": " good "}, " good"),
        ({"question": "a", "answer": " 4"}, " 4"),
        ({"instruction": "a", "output": " yes"}, " yes"),
    ],
)
def test_an_answer_behind_a_blank_of_ours_brings_none_of_its_own(
    row: dict[str, object], said: str, tmp_path: Path
) -> None:
    blank = {name: value if name in ("text", "question", "instruction") else "  " for name, value in row.items()}
    task = load_task(rows_in(tmp_path / "d.jsonl", [row, blank]))
    assert [one.completion for one in task.train] == [said]
    assert "is empty (line 2)" in " ".join(task.seen.notes)


def test_a_label_written_false_is_no_target(tmp_path: Path) -> None:
    parts = [{"label": "false", "text": "a"}, {"label": "True", "text": " b"}]
    task = load_task(rows_in(tmp_path / "d.jsonl", [{"segments": parts}]))
    assert (task.train[0].prompt, task.train[0].completion) == ("a", " b")
    assert task.train[0].content.parts == ((False, "a"), (True, " b"))  # type: ignore[union-attr]
    with pytest.raises(DataError, match="segment 1 has the label 'no'; true or false was expected"):
        load_task(rows_in(tmp_path / "d.jsonl", [{"segments": [{"label": "no", "text": "a"}, *parts]}]))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"instruction": "a", "output": "b", "history": [["q", None]]}, "no list of pairs of question and answer"),
        ({"question": "q", "choices": ["a", None], "answer": 0}, "its choices are not a list of 2 to 10 texts"),
    ],
)
def test_what_is_missing_inside_a_value_is_not_read_as_the_word_none(
    row: dict[str, object], words: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=words):
        load_task(rows_in(tmp_path / "d.jsonl", [row]))


def test_a_line_end_that_a_shell_did_not_make_is_told(tmp_path: Path) -> None:
    name = rows_in(tmp_path / "d.jsonl", [{"q": "a", "a": "b"}])
    notes = load_task(name, r"Question: {q}\nAnswer:", " {a}").seen.notes
    assert any(r"The prompt template holds \n as two characters" in note for note in notes)
    assert "two characters" not in " ".join(load_task(name, "Question: {q}\nAnswer:", " {a}").seen.notes)


@pytest.mark.parametrize(("name", "words"), [("", "No data is named"), ("a" * 300 + ".csv", "File name too long")])
def test_data_without_a_name_or_with_one_too_long_is_refused(name: str, words: str) -> None:
    with pytest.raises(BadInputError, match=words):
        load_task(name)


AS_NOBODY = """
import os, sys
from pathlib import Path
import lsf.cli.main, lsf.data.tables, lsf.models.weights, lsf.runs.comparison, lsf.runs.formats
lsf.cli.main.main(["data", "lesson:facts"])  # what is imported on first use, from where nobody may not read
if os.getuid() == 0:
    os.setuid(65534)
lsf.cli.main.LOG_FILE = Path("log")
for asked in (["data", "closed/d.csv"], ["data", "closed"], ["runs", "show", "closed"], ["compare", "closed"],
              ["runs", "list", "--runs", "closed"], ["data", "lesson:facts", "--model", "./closed"]):
    print(lsf.cli.main.main(asked))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no such permissions")
def test_what_may_not_be_read_is_refused_in_a_sentence(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir()
    (closed / "d.csv").write_text("prompt,completion\na, b\n")
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_mode & 0o001 == 0 and folder.owner() != "nobody":
            folder.chmod(folder.stat().st_mode | 0o001)
    closed.chmod(0)
    command = [sys.executable, "-c", AS_NOBODY]
    path = {"PYTHONPATH": str(ROOT), "PATH": "", "HOME": str(tmp_path)}
    try:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, env=path)
    finally:
        closed.chmod(0o700)
    said = done.stderr.splitlines()
    assert len(said) == 6 and all("closed" in line and "Permission denied" in line for line in said), done.stderr
    assert [line for line in done.stdout.splitlines() if line.isdigit()] == ["2"] * 6


def test_python_takes_tables_and_paths_as_pandas_and_pathlib_have_them() -> None:
    with pytest.raises(BadInputError, match="no/such/model does not exist"):
        lsf.load(Path("no/such/model"))
    with pytest.raises(BadInputError, match="dtype is 'flaot32'; accepted are: auto, float32"):
        lsf.load("bundled", dtype="flaot32")
    numbered = pandas.DataFrame([["1+1", "2"]] * 4)
    task = lsf.read_data(numbered, "{0} =", " {1}")
    assert (task.train[0].prompt, task.train[0].completion) == ("1+1 =", " 2")
    with pytest.raises(DataError, match="has repeated columns: prompt, prompt, completion"):
        lsf.read_data(pandas.DataFrame([["a", "b", "c"]], columns=["prompt", "prompt", "completion"]))


UNCHECKED = """
import numpy, lsf, lsf.errors
plan = lsf.Plan("m", 8, numpy.array([7, 6]))
print(plan.blocks, plan.to_json()["blocks"])
try:
    lsf.Plan("m", 8, 3)
except lsf.errors.PlanError as error:
    print(error)
"""


def test_a_plan_takes_blocks_as_numpy_has_them() -> None:
    """In a process of its own, in which kinds of arguments are not checked, as in a notebook."""
    done = subprocess.run([sys.executable, "-c", UNCHECKED], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["(6, 7) (6, 7)", "blocks is 3; several were expected, such as (3,)."]


def test_python_refuses_what_is_no_plan_and_no_number_of_blocks(tmp_path: Path) -> None:
    model, rows = lsf.load("bundled"), [{"prompt": f"The town {n} is", "completion": " red"} for n in range(12)]
    with pytest.raises(BadInputError, match="A list was given as the plan"):
        lsf.tune(model, rows, [1, 2], runs=tmp_path)  # type: ignore[arg-type]
    found = lsf.analyze(model, rows, criteria="deviation", limit=2)
    for budget in ("2", 2.5):
        with pytest.raises(PlanError, match="a whole number of blocks was expected, 1 to 8"):
            found.recommend(budget, "deviation")  # type: ignore[arg-type]
        with pytest.raises(PlanError, match="a whole number of blocks was expected, 1 to 8"):
            lsf.recommend(found, budget)  # type: ignore[arg-type]


def test_targets_that_the_model_has_no_word_for_are_told_by_analyze_and_tune(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["turquoise", "magenta"]
    rows = [{"prompt": f"The town of {n} is the", "completion": f" {words[n % 2]}"} for n in range(10)]
    asked = ["--model", "bundled", "--data", rows_in(tmp_path / "rows.jsonl", rows)]
    for command in (
        ["analyze", "--criteria", "deviation", "--json", str(tmp_path / "a.json")],
        ["tune", "--blocks", "7", "--steps", "1", "--runs", str(tmp_path / "runs")],
    ):
        assert main([*command, *asked]) == 0
        assert "targets stand for words that the model does not know; it can neither tell" in capsys.readouterr().err
