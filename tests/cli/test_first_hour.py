"""What somebody meets in the first hour: a misspelt name, a number as people write it, one file taken for another."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lsf
from lsf.cli.main import main
from lsf.cli.terminal import TerminalReporter
from lsf.criteria.result import Analysis
from lsf.data.reading import read_data
from lsf.errors import BadInputError, DataError, PlanError, RunError, UnknownNameError
from lsf.evidence.own import evidence_folder
from lsf.files import cache_folder
from lsf.plans.plan import Plan, check_plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import append_metrics, create_run, list_runs, new_run, runs_folder
from tests.criteria.factory import analysis_of

TUNE = "tune --model bundled --data rows.jsonl --eval-limit 2"
PLAN = "plan --analysis a.json --criterion deviation --policy knapsack --json p.json"
ROWS = [{"prompt": f"The town {n} is", "completion": " red"} for n in range(12)]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LSF_RUNS", str(tmp_path / "runs"))
    (tmp_path / "rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    analysis_of([0.1, 0.2, 0.3]).save(tmp_path / "a.json")
    Plan("bundled", 8, (7,)).save(tmp_path / "plan.json")
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], asked: str) -> str:
    """Return the one sentence of a command that is refused as bad input; nothing was loaded before it."""
    assert main(asked.split()) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--blocks 7 --steps 0", "steps is 0; it must lie between 1 and 1000000"),
        ("--blocks 7 --learning-rate nan", "learning_rate is nan"),
        ("--blocks 7 --micro-batch 5", "it must divide the batch of 16"),
        ("--blocks 7 --method lora --option rank=4", "The method lora has no option 'rank'; known are: r, alpha, maps"),
        ("--blocks 7 --general-share 0.5", "--general-share has no effect without --general"),
        ("--all --modules head", "--modules goes with --blocks"),
        ("--blocks 7 --report-to wandb", "--report-to wandb needs the package wandb"),
        ("--plan nowhere.json", "There is no file nowhere.json; a plan was expected there"),
        ("--plan a.json", "a.json is not a whole plan: it has no 'n_blocks'"),
        ("--blocks 7 --steps 10 --epochs 1", "--steps and --epochs both say how long the run is"),
    ],
)
def test_what_needs_no_model_to_be_refused_is_refused_before_one_is_loaded(
    place: Path, capsys: pytest.CaptureFixture[str], asked: str, words: str
) -> None:
    assert words in refused(capsys, f"{TUNE} {asked}")
    assert not (place / "runs").exists()


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--flops 0,5", "Argument --flops: '0,5' is not a number"),
        ("--memory 24X", "Argument --memory: '24X' is not a number of bytes, such as 24e9 or 24G"),
        ("--memory 1k", "No block fits a budget of 1,000 bytes; the least is"),
        ("--flops 0.01", "No block fits a budget of 0.01 of full fine-tuning's FLOPs; the least is"),
    ],
)
def test_a_budget_is_read_as_people_write_it(
    place: Path, capsys: pytest.CaptureFixture[str], asked: str, words: str
) -> None:
    assert words in refused(capsys, f"{PLAN} {asked}")
    assert main([*PLAN.split(), "--memory", "1G"]) == 0
    assert Plan.load(place / "p.json").budget == {"memory": 1e9}


def test_one_file_given_for_another_is_told_by_what_it_lacks(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = refused(capsys, "plan --analysis plan.json --criterion deviation --blocks 1 --json p.json")
    assert told == "lsf: plan.json is not a whole analysis: it has no 'data'."


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ("row.jsonl", "The data file row.jsonl does not exist; a CSV, TSV, JSON, JSONL, Parquet, Arrow or text "
         "file was expected. Did you mean rows.jsonl?"),
        ("facts", "There is no file facts here; the lesson of that name is lesson:facts."),
        ("nothing.csv", "The data file nothing.csv does not exist; a CSV, TSV, JSON, JSONL, Parquet, Arrow or text "
         "file was expected."),
    ],
)  # fmt: skip
def test_the_data_that_was_meant_is_offered(
    place: Path, capsys: pytest.CaptureFixture[str], data: str, words: str
) -> None:
    assert refused(capsys, f"data {data}") == f"lsf: {words}"


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("bundld", " Did you mean bundled?"),
        ("SmolM2", " Did you mean smollm2?"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", " smollm2 is that model, and can be made without the hub."),
        ("gpt2", ""),
    ],
)
def test_the_model_that_was_meant_is_offered(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str, words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    told = refused(capsys, f"data rows.jsonl --show 0 --model {model}")
    assert told.endswith(f"the Hugging Face hub does not answer (no network?).{words}")


def test_a_run_stopped_at_its_start_says_so_and_no_more(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    enter, before = TerminalReporter.phase, signal.signal(signal.SIGINT, signal.default_int_handler)
    pressed = list[str]()

    def press(self: TerminalReporter, name: str) -> None:
        enter(self, name)
        pressed.append(name)
        if len(pressed) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(TerminalReporter, "phase", press)
    try:
        assert main(f"{TUNE} --blocks 7 --steps 3".split()) == 1
    finally:
        signal.signal(signal.SIGINT, before)
    said, (run,) = capsys.readouterr(), list_runs(place / "runs")
    first, *rest = said.out.splitlines()
    assert first == f"cancelled after 0 steps: {run.folder}"
    assert rest in ([], ["texts: prompt and answer as they stand"])  # it may be noticed after the rows were read
    assert said.err.splitlines()[-1] == "lsf: Stopped at its start."


@pytest.mark.parametrize(
    ("answer", "words"),
    [({"said": "red"}, "the column 'answer' holds a dict"), ({"text": None}, "the answer is null")],
)
def test_an_answer_that_is_an_object_is_not_called_null(answer: dict[str, Any], words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_data([{"question": f"{n}?", "answer": answer} for n in range(3)])


def test_scores_of_a_criterion_that_there_is_not_are_no_row_of_none() -> None:
    analysis: Analysis = analysis_of([0.1, 0.2])
    assert analysis.scores("absent") == analysis.scores("alignment") == (None, None)
    with pytest.raises(UnknownNameError, match="Unknown criterion 'aligment'; known are: deviation,"):
        analysis.scores("aligment")


def test_what_is_no_plan_is_told_how_to_make_one() -> None:
    check_plan(Plan("bundled", 8, (7,)))
    with pytest.raises(PlanError, match=r"A str was given as the plan; make one first: lsf\.Plan\("):
        check_plan("5-6")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("--plan other.json", "The plan was made for other with 30 blocks; bundled has 8."),
        ("--blocks 7 --modules heda", "The plan tunes the module 'heda', which bundled does not have"),
    ],
)
def test_a_plan_for_another_model_leaves_no_failed_run(
    place: Path, capsys: pytest.CaptureFixture[str], asked: str, words: str
) -> None:
    Plan("other", 30, (3,)).save(place / "other.json")
    assert main([*TUNE.split(), *asked.split()]) == 2
    assert words in capsys.readouterr().err
    assert not (place / "runs").exists()


def test_python_takes_numbers_of_numpy_and_says_what_was_meant(tmp_path: Path) -> None:
    model, rows = lsf.load("bundled"), ROWS
    limit: Any = np.int64(2)
    assert lsf.analyze(model, rows, criteria="deviation", limit=limit).data.n_examples == 2
    with pytest.raises(BadInputError, match=r"There is no setting 'limt'; known are: limit, .* Did you mean limit\?"):
        lsf.analyze(model, rows, limt=2)
    runs, plan = tmp_path / "runs", Plan("bundled", 8, (7,))
    with pytest.raises(BadInputError, match=r"r is an option of the method lora; write options=\{'r': \.\.\.\}"):
        lsf.tune(model, rows, plan, method="lora", r=4, runs=runs)
    with pytest.raises(PlanError, match="The plan was made for other with 30 blocks; bundled has 8"):
        lsf.tune(model, rows, Plan("other", 30, (3,)), runs=runs)
    assert not runs.exists()


def test_a_tilde_is_the_home_folder_also_where_no_shell_resolves_it(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = place / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USERPROFILE", str(home))
    assert main(["export", "--plan=plan.json", "--to", "peft", "--out=~/peft.json"]) == 0
    assert json.loads((home / "peft.json").read_text())["layers_to_transform"] == [7]
    assert main([*TUNE.split(), "--blocks", "7", "--steps", "1", "--runs=~/runs"]) == 0
    (run,) = list_runs(home / "runs")
    capsys.readouterr()
    assert main(["compare", "--format", "json", "~/runs"]) == 0
    assert [row["run"] for row in json.loads(capsys.readouterr().out)["rows"]] == [run.id]
    assert [row.run for row in lsf.compare(["~/runs"]).rows] == [row.run for row in lsf.compare(run).rows] == [run.id]
    Plan("bundled", 8, (6,)).save("~/own.json")
    assert Plan.load("~/own.json").blocks == (6,)
    assert not (place / "~").exists()


def test_a_folder_named_by_a_variable_that_is_not_set_is_not_the_one_one_stands_in(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*TUNE.split(), "--blocks", "7", "--runs", ""]) == 2
    assert capsys.readouterr().err == (
        "lsf: Argument --runs: an empty text names no file or folder; see lsf tune --help.\n"
    )


@pytest.mark.parametrize(
    ("model", "data", "words"),
    [
        (
            "bundled",
            "rows.jsonl",
            "Its data rows.jsonl is not found from this folder; it was named in the",
        ),
        ("bundled", "in memory", "Its data was in memory, in Python, and is not kept"),
        (
            "models/mine",
            "lesson:facts",
            "It is the model of a run or a sweep: a folder is named as in the",
        ),
    ],
)
def test_a_run_says_why_its_data_or_model_is_not_found_from_another_folder(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, model: str, data: str, words: str
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(place / "hub"))
    run = create_run(place / "runs", RunSpec(model, data, Plan(model, 8, (7,))))
    elsewhere = place / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    assert main(["tune", "--resume", str(run)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("called", "words"), [("/opt/lsf/__main__.py", "see python -m lsf --help"), ("/usr/bin/lsf", "see lsf --help")]
)
def test_help_is_named_as_it_can_be_asked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, called: str, words: str
) -> None:
    monkeypatch.setattr("sys.argv", [called])
    assert main([]) == 2
    assert words in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"lsf {lsf.__version__}\n"


@pytest.mark.parametrize(
    ("variable", "folder", "usual"),
    [
        ("LSF_RUNS", runs_folder, "runs"),
        ("LSF_CACHE", cache_folder, "~/.cache/lsf"),
        ("LSF_EVIDENCE", evidence_folder, "~/.local/share/lsf/evidence"),
    ],
)
def test_a_folder_in_the_environment_may_begin_with_a_tilde_and_is_the_usual_one_where_it_is_empty(
    monkeypatch: pytest.MonkeyPatch, variable: str, folder: Callable[[], Path], usual: str
) -> None:
    monkeypatch.setenv(variable, "~/mine")
    assert folder() == Path.home() / "mine"
    monkeypatch.setenv(variable, "")
    assert folder() == Path(usual).expanduser()


def test_a_sweep_that_cannot_be_kept_is_told_before_it_is_scored(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lsf.sweep(lsf.load("bundled"), ROWS, json="s.json", seeds=1, steps=1, learning_rate=1e-3, over="window:8")
    monkeypatch.setenv("LSF_EVIDENCE", "rows.jsonl")
    told = refused(capsys, "evidence add s.json")
    assert told == "lsf: Cannot make the folder rows.jsonl: rows.jsonl is a file."


@pytest.mark.parametrize("before", [False, True])
def test_what_is_refused_after_the_run_has_its_folder_leaves_none_and_takes_nothing_that_was_there(
    place: Path, capsys: pytest.CaptureFixture[str], before: bool
) -> None:
    runs = place / "runs"
    if before:
        runs.mkdir()
        (runs / "notes.txt").write_text("mine")
    asked = "--blocks 7 --steps 2 --warmup-steps 50 --learning-rate 1e-3"
    assert main(f"{TUNE} {asked}".split()) == 2
    assert "warmup_steps is 50 and the run has 2 steps" in capsys.readouterr().err
    assert [path.name for path in runs.iterdir()] == ["notes.txt"] if before else not runs.exists()
    with pytest.raises(BadInputError, match="warmup_steps is 50"):
        lsf.tune(lsf.load("bundled"), ROWS, Plan("bundled", 8, (7,)), runs=runs, steps=2, warmup_steps=50)
    assert [path.name for path in runs.iterdir()] == ["notes.txt"] if before else not runs.exists()


def test_a_run_that_fails_or_had_begun_keeps_its_folder(place: Path) -> None:
    spec, runs = RunSpec("bundled", "rows.jsonl", Plan("bundled", 8, (7,))), place / "runs"
    with pytest.raises(RunError), new_run(runs, spec):
        raise RunError("The loss diverged.")
    with pytest.raises(DataError), new_run(runs, spec) as begun:
        append_metrics(begun, {"step": 1})
        raise DataError("The test has no rows any more.")
    assert len(list_runs(runs)) == 2
