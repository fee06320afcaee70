import pytest

from lsf.cli.main import main
from lsf.errors import BadInputError
from lsf.plans.plan import Plan
from lsf.runs.spec import RunSpec
from lsf.runs.store import FullQuotaError, bytes_of, create_run, list_runs, runs_quota

SPEC = RunSpec("bundled", "lesson:facts", Plan("bundled", 8, (3,)))


@pytest.mark.parametrize(("text", "size"), [("", None), ("2000", 2e3), ("50G", 5e10), ("1.5 mb", 1.5e6)])
def test_a_quota_is_a_number_of_bytes_with_or_without_a_unit(monkeypatch, text, size):
    monkeypatch.setenv("LSF_RUNS_QUOTA", text)
    assert runs_quota() == size


def test_a_full_quota_refuses_another_run_and_leaves_those_there_are(monkeypatch, tmp_path, capsys):
    create_run(tmp_path, SPEC)
    used = bytes_of(tmp_path)
    monkeypatch.setenv("LSF_RUNS_QUOTA", str(used + 1))
    create_run(tmp_path, SPEC)
    before = bytes_of(tmp_path)
    with pytest.raises(FullQuotaError, match=r"take 0\.0 MB of the 0\.0 MB that LSF_RUNS_QUOTA grants; delete some"):
        create_run(tmp_path, SPEC)
    assert (len(list_runs(tmp_path)), bytes_of(tmp_path)) == (2, before)
    asked = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "3", "--steps", "1", "--device", "cpu"]
    assert main(["tune", *asked, "--runs", str(tmp_path)]) == 2
    assert "LSF_RUNS_QUOTA grants" in capsys.readouterr().err
    assert main(["runs", "list", "--runs", str(tmp_path)]) == 0
    assert "0.0 MB granted" in capsys.readouterr().err


def test_a_quota_that_is_no_size_is_refused_with_what_would_be_one(monkeypatch):
    monkeypatch.setenv("LSF_RUNS_QUOTA", "plenty")
    with pytest.raises(BadInputError, match="'plenty'; a number of bytes such as 50G was expected"):
        runs_quota()
