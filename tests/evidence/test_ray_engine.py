"""Sweeps on a real Ray cluster of two workers: the same cells as the local engine's, whoever is killed or stopped."""

import os
import shutil
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from lsf.cli.main import main
from lsf.data.task import Task
from lsf.errors import BadInputError
from lsf.evidence.ray_engine import SweepWorker, carry_out_on_ray, connected, next_cell, room
from lsf.evidence.sweep import NOT_YET, Cell, Rate, Score, Sweep
from lsf.evidence.sweeping import carry_out_sweep, start_sweep
from lsf.models.loading import LoadedModel, weights_hash
from lsf.progress import Silent
from tests.evidence.test_sweeping import SPEC, StopAfter, n_measured, swept, values


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Return the address of a Ray cluster with room for two workers."""
    folder = Path(tempfile.mkdtemp(prefix="ray", dir="/tmp"))  # sockets allow no long path
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_TMPDIR", str(folder))  # where a cluster's address is noted: on a new machine nothing is there
        (folder / "ray").mkdir()
        own = {"num_cpus": 2, "include_dashboard": False, "object_store_memory": 80_000_000, "temp_dir": str(folder)}
        running = Cluster(initialize_head=True, head_node_args=own)
        yield str(running.address)
        running.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def workers() -> list[psutil.Process]:
    """Return the living processes that Ray runs our workers in."""
    found = list[psutil.Process]()
    for process in psutil.Process().children(recursive=True):
        try:
            if "SweepWorker" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:  # it has just ended
            continue
    return found


def ended(processes: list[psutil.Process]) -> bool:
    """Say whether none of them lives; a zombie has ended, and only Ray has not asked for its state yet."""
    _, alive = psutil.wait_procs(processes, timeout=10)
    return bool(processes) and all(one.status() == psutil.STATUS_ZOMBIE for one in alive)


class Killer(StopAfter):
    """Kills a worker each time so many cells are out, as often as it was told; may ask to pause as well."""

    def __init__(self, kills: int, out: int, cells: int = 1000) -> None:
        super().__init__(cells)
        self.kills, self.out, self.killed = kills, out, list[psutil.Process]()

    def progress(self, done: float, total: float | None, message: str = "") -> None:
        super().progress(done, total, message)
        if message.startswith(f"run: {self.out} ") and len(self.killed) < self.kills:
            self.killed.append(next(one for one in workers() if one not in self.killed))
            self.killed[-1].send_signal(signal.SIGKILL)


@pytest.mark.slow
def test_two_workers_measure_the_cells_of_the_local_engine_in_what_it_began_with_one_of_them_killed(
    cluster: str, breaking: LoadedModel, task: Task
) -> None:
    spec = replace(SPEC, learning_rate=None, steps=2)
    begun = swept(breaking, task, spec, StopAfter(2))
    report, saved = Killer(kills=1, out=2), list[int]()
    with connected(cluster):
        found = carry_out_on_ray(breaking, task, begun, report, lambda sweep: saved.append(len(sweep.missing)))
    assert ended(report.killed)
    whole = swept(breaking, task, spec)
    assert values(found) == values(whole)
    assert found.rates == whole.rates
    assert {cell.key: cell.reason for cell in found.missing} == {cell.key: cell.reason for cell in whole.missing}
    assert "1" in {cell.plan for cell in found.missing}
    assert all(cell in found.cells for cell in begun.cells if cell.after is not None)
    assert saved == sorted(saved, reverse=True)
    assert len(saved) == len(begun.missing)
    assert "left" in report.told[-1]
    assert found.seconds > begun.seconds


@pytest.mark.slow
def test_a_cell_whose_workers_die_twice_is_missing_with_its_reason_and_tried_again_the_next_time(
    cluster: str, loaded: LoadedModel, task: Task
) -> None:
    whole = swept(loaded, task, replace(SPEC, learning_rate=None, over="window:4", steps=2))
    full = [Cell(cell.plan, cell.blocks, cell.seed) if cell.plan == "full" else cell for cell in whole.cells]
    begun = replace(whole, cells=tuple(full), rates={"0-3": whole.rates["0-3"]})
    report = Killer(kills=2, out=1, cells=1)
    with connected(cluster):
        found = carry_out_on_ray(loaded, task, begun, report, lambda _sweep: None, n_workers=1)
        with pytest.raises(BadInputError, match="The Ray cluster has no GPU for a model on cuda"):
            room("cuda")
    assert len(report.killed) == 2
    assert ended(report.killed)
    reasons = {cell.key: str(cell.reason) for cell in found.missing}
    assert reasons.pop(("full", 0)).startswith("Its worker on the Ray cluster died, and so did the next that tried")
    assert reasons == {("full", 1): NOT_YET}
    again = carry_out_sweep(loaded, task, found, Silent(), lambda _sweep: None)
    assert values(again) == values(whole)


@pytest.mark.slow
def test_the_command_pauses_at_sigterm_on_the_cluster_and_the_local_engine_goes_on(
    cluster: str, asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out, whole = tmp_path / "ray.json", tmp_path / "local.json"
    asked = [*asked[:-1], "--over", "window:3", "--seeds", "1", "--json"]
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    stray = list[int]()
    before = signal.signal(signal.SIGTERM, lambda number, _frame: stray.append(number))

    def stop() -> None:
        end = time.monotonic() + 90
        while n_measured(out) < 1 and time.monotonic() < end:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        assert main([*asked, str(out), "--engine", "ray", "--ray-workers", "1"]) == 1
    finally:
        stopper.join()
        signal.signal(signal.SIGTERM, before)
    assert stray == []
    assert "The sweep was stopped; repeat the command to continue it." in capfd.readouterr().err
    half = Sweep.load(out)
    assert 1 <= len(half.cells) - len(half.missing) < len(half.cells)
    assert not workers()
    assert main([*asked, str(out)]) == 0
    assert main([*asked, str(whole)]) == 0
    assert values(Sweep.load(out)) == values(Sweep.load(whole))


@pytest.mark.slow
def test_a_worker_that_reads_other_weights_ends_the_sweep_with_one_sentence(
    cluster: str, loaded: LoadedModel, task: Task
) -> None:
    sweep = replace(start_sweep(loaded, task, SPEC), weights="other")
    with connected(cluster), pytest.raises(BadInputError) as error:
        carry_out_on_ray(loaded, task, sweep, Silent(), lambda _sweep: None, 1)
    said = (
        f"The weights of {loaded.info.name} on {socket.gethostname()} differ from those here; give both the same files."
    )
    assert str(error.value) == said


def test_a_worker_says_where_the_model_cannot_be_loaded(task: Task, tmp_path: Path) -> None:
    worker = SweepWorker(task, str(tmp_path / "gone"), "float32", "cpu", "other")
    with pytest.raises(BadInputError, match=r"A worker on \S+ cannot load the model: The model folder .*gone does not"):
        worker.begin()


def test_a_worker_gets_the_base_first_and_one_seed_of_a_plan_whose_rate_is_not_known(
    loaded: LoadedModel, task: Task
) -> None:
    empty = start_sweep(loaded, task, replace(SPEC, learning_rate=None, over="single"))
    base = next_cell(empty, (), ())
    assert base is not None
    assert base.key == ("base", 0)
    assert next_cell(empty, {base.key}, ()) is None
    sweep = empty.with_cell(replace(base, after=Score(0.0, 1.0), reason=None))
    keys, found = set[tuple[str, int]](), list[tuple[str, int]]()
    while (cell := next_cell(sweep, keys, ())) is not None:
        keys.add(cell.key)
        found.append(cell.key)
    assert found == [("full", 0), ("0", 0), ("1", 0), ("2", 0), ("3", 0)]
    known = replace(sweep, rates={"0": Rate(1e-3, ())})
    other = next_cell(known, keys, ())
    assert other is not None
    assert other.key == ("0", 1)
    given = next_cell(
        sweep, keys - {("full", 0)}, {("full", 0)}
    )  # its search failed: the next seed tries, as it would locally
    assert given is not None
    assert given.key == ("full", 1)
    assert weights_hash(loaded.model) == sweep.weights


@pytest.fixture
def closed_port() -> Iterator[int]:
    """Return a port that nothing answers on, and that nobody else can take meanwhile."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize("named", ["option", "environment"])
def test_where_no_cluster_answers_the_command_says_how_to_start_one(
    named: str,
    closed_port: int,
    asked: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    address = f"127.0.0.1:{closed_port}"
    monkeypatch.setenv("RAY_ADDRESS", address if named == "environment" else "")
    option = ["--ray-address", address] if named == "option" else []
    assert main([*asked, str(tmp_path / "s.json"), "--engine", "ray", *option]) == 2
    said = capfd.readouterr().err
    assert said.startswith(f"lsf: No Ray cluster to run on at {address} (")
    assert "start one by `ray start --head`" in said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--engine", "ray", "--ray-address", "here"], "HOST:PORT, ray://HOST:PORT or auto was expected"),
        (["--ray-address", "auto"], "--ray-address and --ray-workers belong to --engine ray"),
        (["--engine", "ray", "--ray-workers", "0"], "--ray-workers is 0; 1 or more was expected"),
        (["--engine", "spark"], "invalid choice: 'spark'"),
    ],
)
def test_options_of_the_engine_that_cannot_be_are_refused(
    options: list[str], sentence: str, asked: list[str], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main([*asked, str(tmp_path / "s.json"), *options]) == 2
    assert sentence in capfd.readouterr().err


def test_without_ray_the_command_says_what_to_install(
    asked: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main([*asked, str(tmp_path / "s.json"), "--engine", "ray"]) == 2
    assert "not installed: pip install -r requirements-ray.txt" in capfd.readouterr().err
    assert (Path(__file__).parents[2] / "requirements-ray.txt").read_text().startswith("ray==")
