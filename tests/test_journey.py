"""The main job from the shell, as a person types it: analyze, plan, tune, compare, and a bundle that repeats a run."""

import csv
import gc
import io
import json
import signal
import zipfile
from pathlib import Path

import pytest

from lsf.cli.main import main
from lsf.criteria.result import Analysis
from lsf.runs.store import list_runs, load_run

SHORT, SHORTER = (["--steps", steps, "--eval-limit", limit] for steps, limit in (("12", "32"), ("6", "16")))


def run_cli(*arguments: object) -> None:
    assert main([str(argument) for argument in arguments]) == 0


def compared(folders: list[Path], capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    capsys.readouterr()
    run_cli("compare", *folders, "--format", "csv")
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def journey(
    source: list[object], length: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> dict[str, dict[str, str]]:
    """Analyse, plan by deviation and at random, tune both and everything, and return the comparison's rows by role."""
    run_cli("analyze", *source, "--split", "train", "--limit", "16", "--json", folder / "a.json")
    analysis, told = Analysis.load(folder / "a.json"), capsys.readouterr().out.splitlines()
    for name in analysis.criteria:
        assert (
            f"{analysis.scores(name)[-1]:.4g}" == next(line for line in told if line.startswith(f"{name} ")).split()[-1]
        )
    for criterion in ("deviation", "random"):
        plan = folder / f"{criterion}.json"
        run_cli("plan", "--analysis", folder / "a.json", "--criterion", criterion, "--blocks", 2, "--json", plan)
        run_cli("tune", *source, "--plan", plan, *length, "--runs", folder / "runs")
    run_cli("tune", *source, "--all", *length, "--runs", folder / "runs")
    rows = compared([folder / "runs"], capsys)
    assert rows == compared([run.folder for run in reversed(list_runs(folder / "runs"))], capsys)
    for run in list_runs(folder / "runs"):
        assert run.result is not None
        assert run.result.proof is not None
        assert run.result.proof.holds
        assert run.result.proof.tuned_moved == run.result.proof.tuned_tensors > 0
    return {row["role"]: row for row in rows}


@pytest.mark.slow
def test_the_journey_on_the_bundled_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = journey(["--model", "bundled", "--data", "lesson:facts"], SHORT, tmp_path, capsys)
    check_table(rows)
    assert 0 < float(rows["choice"]["x_params"]) < 0.5
    frozen = [load_run(run.folder).result for run in list_runs(tmp_path / "runs")]
    assert {result.proof.frozen_tensors > 0 for result in frozen if result and result.proof} == {True, False}


@pytest.mark.slow
def test_the_journey_on_a_real_model_and_real_text(
    shared: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "sst2.csv"
    with data.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "text"])
        for line in (shared / "data/sst2/train.txt").read_text(encoding="latin-1").splitlines()[:400]:
            label, _, text = line.partition(" ")
            writer.writerow(["good" if label == "1" else "bad", text])
    templates = ["--prompt-template", "Review: {text}\nIt was", "--completion-template", " {label}"]
    source = ["--model", shared / "models/stories260K", "--data", data, *templates]
    check_table(journey(source, SHORTER, tmp_path, capsys))


def check_table(rows: dict[str, dict[str, str]]) -> None:
    assert set(rows) == {"choice", "random", "full"}
    for role, row in rows.items():
        assert row["state"] == "succeeded"
        assert float(row["loss_after"]) < float(row["loss_before"])
        for name in ("exact_match_after", "forgetting", "seconds", "step_seconds_median", "trainable_params", "tokens"):
            assert row[name] != "", (role, name)
        assert (row["x_time"] == "") == (rows["full"]["fault"] != "")  # a run with a fault is the reference of no ratio
    assert len({row["loss_before"] for row in rows.values()}) == 1
    assert len({row["tokens"] for row in rows.values()}) == 1
    assert rows["full"]["fault"] or float(rows["full"]["x_params"]) == 1


def test_a_bundle_repeats_its_run_by_one_command_with_the_same_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "6-7", "--steps", "4", "--eval-limit", "16"]
    run_cli("tune", *source, "--runs", tmp_path / "runs")
    (first,) = list_runs(tmp_path / "runs")
    run_cli("runs", "bundle", first.folder, "--zip", tmp_path / "b.zip")
    with zipfile.ZipFile(tmp_path / "b.zip") as archive:
        archive.extractall(tmp_path)
    assert f"tune --spec {first.id}/spec.json" in (tmp_path / first.id / "README.txt").read_text()
    run_cli("tune", "--spec", tmp_path / first.id / "spec.json", "--runs", tmp_path / "again")
    (second,) = list_runs(tmp_path / "again")
    assert first.result is not None and second.result is not None
    assert (first.result.before, first.result.after) == (second.result.before, second.result.after)
    assert first.result.data_fingerprint == second.result.data_fingerprint
    capsys.readouterr()
    run_cli("runs", "show", second.folder)
    assert json.loads(capsys.readouterr().out)["result"]["state"] == "succeeded"
    run_cli("runs", "delete", second.folder)
    assert not second.folder.exists()


def test_a_failing_repeat_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["tune", "--runs", str(tmp_path), "--blocks", "1"]) == 2
    assert "needs --model and --data" in capsys.readouterr().err
    assert main(["tune", "--runs", str(tmp_path), "--spec", "no.json"]) == 2
    assert "There is no file no.json" in capsys.readouterr().err
    assert main(["tune", "--runs", str(tmp_path), "--spec", "no.json", "--steps", "3"]) == 2
    assert "leave out --steps" in capsys.readouterr().err


def test_ctrl_c_is_one_line_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lsf.cli.analyze.load_asked_task", lambda _: signal.raise_signal(signal.SIGINT))
    asked = ["analyze", "--model", "bundled", "--data", "lesson:facts", "--json", str(tmp_path / "a.json")]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a library may have put its own
    try:
        assert main(asked) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr().err == "lsf: interrupted.\n"


def test_the_demo_tells_of_every_lesson(capsys: pytest.CaptureFixture[str]) -> None:
    run_cli("demo")
    assert gc.isenabled()  # as before the command
    said = capsys.readouterr().out
    for name in ("facts", "aliases", "labels", "sums", "dialect", "twohop"):
        assert f"lesson:{name}" in said


def test_a_stand_alone_report_opens_without_a_network(tmp_path: Path) -> None:
    run_cli(
        "analyze", "--model", "bundled", "--data", "lesson:labels", "--limit", "20",
        "--json", tmp_path / "a.json", "--html", tmp_path / "a.html",
    )  # fmt: skip
    page = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "Plotly.newPlot" in page
    assert "<script src" not in page and "<link" not in page and "<img" not in page


def test_an_analysis_says_of_how_many_examples_its_kernels_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for limit, told in (("70", True), ("20", False)):
        asked = ["--model", "bundled", "--data", "lesson:facts", "--limit", limit, "--criteria", "alignment,deviation"]
        run_cli("analyze", *asked, "--json", tmp_path / "a.json")
        assert (
            "Tangent kernels (alignment) were computed on the first 64 examples." in capsys.readouterr().out
        ) == told
        assert Analysis.load(tmp_path / "a.json").data.kernel_examples == min(64, int(limit))


def test_runs_go_to_the_folder_of_the_app_where_none_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "tune",
        "--model",
        "bundled",
        "--data",
        "lesson:facts",
        "--blocks",
        "7",
        "--steps",
        "1",
        "--eval-limit",
        "8",
    ]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LSF_RUNS", raising=False)
    run_cli(*command)
    monkeypatch.setenv("LSF_RUNS", str(tmp_path / "elsewhere"))
    run_cli(*command)
    assert [len(list_runs(tmp_path / place)) for place in ("runs", "elsewhere")] == [1, 1]
    capsys.readouterr()
    run_cli("runs", "list")
    assert str(tmp_path / "elsewhere") in capsys.readouterr().out
