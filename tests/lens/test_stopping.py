"""A stop is heeded within one matrix or one timed pass; an analysis is foreseen without its weights being read."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from lsf.criteria.result import AnalysisSettings
from lsf.errors import StoppedError
from lsf.lens import speed
from lsf.lens.analyze import analyze
from lsf.lens.kernels import SPECTRA, block_spectra
from lsf.lens.speed import analysis_phases
from lsf.models import devices as offload
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.cost import Load, forward_flops
from lsf.progress import Stop, Unheard, do_nothing
from tests.lens.test_backward import batches_of
from tests.lens.test_reference import PAIRS, task_of
from tests.models.test_offload import spread


class Stopping(Unheard):
    """A reporter whose stop is set from outside."""

    def __init__(self, stop: Stop | None = None) -> None:
        self.stop: Stop | None = stop


def counted(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, then: Callable[[], None]) -> list[None]:
    """Let a function be counted and something follow each of its calls; return the list that grows by one a call."""
    calls, real = list[None](), getattr(owner, name)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(None)
        result = real(*args, **kwargs)
        then()
        return result

    monkeypatch.setattr(owner, name, call)
    return calls


def test_a_stop_ends_the_spectra_after_one_matrix_and_leaves_their_criteria_out(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, report = load_model(str(tiny("mixtral"))), Stopping()
    done = counted(monkeypatch, torch.linalg, "svdvals", lambda: setattr(report, "stop", "keep"))
    assert block_spectra(loaded, report) is None
    assert len(done) == 1
    report.stop = None
    settings = AnalysisSettings(criteria=("deviation", "snr"))
    assert analyze(loaded, task_of(PAIRS), settings, report).criteria == ("deviation",)
    assert len(done) == 2


def test_what_is_discarded_after_the_forward_pass_is_not_kept(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, report = load_model(str(tiny("llama"))), Stopping()
    counted(monkeypatch, torch.linalg, "svdvals", lambda: setattr(report, "stop", "discard"))
    with pytest.raises(StoppedError):
        analyze(loaded, task_of(PAIRS), AnalysisSettings(criteria=("deviation", "snr")), report)


def test_a_stop_ends_the_timing_of_an_analysis(tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, report = load_model(str(tiny("llama"))), Stopping()
    monkeypatch.setattr(speed, "_KEPT", {})  # other tests may have timed a model of this make
    passes = counted(monkeypatch, speed, "_pass", lambda: setattr(report, "stop", "keep"))
    with pytest.raises(StoppedError):
        analyze(loaded, task_of(PAIRS), AnalysisSettings(), report)
    assert len(passes) <= 1 + speed.REPEATS  # of one size


def test_a_flop_costs_something_also_where_a_longer_pass_was_the_faster_one() -> None:
    fixed, per_flop = speed._line((1e6, 0.012), (1e8, 0.010))
    assert fixed == pytest.approx(0.012, rel=0.01)
    assert per_flop == pytest.approx(0.010 * speed.NOISE / 0.99e8)
    assert speed._line((1e6, 0.001), (1e8, 0.1)) == pytest.approx((0.0, 1e-9))


def test_passes_are_timed_until_one_takes_so_much_longer_that_noise_does_not_make_the_cost_of_a_flop(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, passed, real = load_model(str(tiny("llama"))), list[int](), speed._pass

    def passing(model: LoadedModel, tokens: int) -> Load:
        passed.append(tokens)
        return real(model, tokens)

    def took(do: Callable[[], Any], _device: torch.device) -> tuple[Any, float]:
        return do(), 0.2 + 0.002 * passed[-1]

    for name, value in (("_pass", passing), ("_seconds", took), ("SIZES", (4, 64, 256, 1024, 4096)), ("ROW", 4)):
        monkeypatch.setattr(speed, name, value)
    found, sizes = speed._timed(loaded, do_nothing), speed.sizes_of(loaded)
    assert sorted(set(passed)) == [4, 64, 256, 1024]  # 0.71 s would be less than four times 0.21 s, 2.25 s are more
    assert passed.count(1024) == passed.count(256) == 1  # what takes so long is not repeated
    for tokens in (4, 256, 1024):  # rows of one length: FLOPs grow as tokens do
        assert found.of(forward_flops(sizes, real(loaded, tokens)), 1) == pytest.approx(0.2 + 0.002 * tokens)


def test_an_offloaded_model_is_timed_by_one_pass_and_nothing_of_it_is_fetched_for_its_shapes(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, whole = spread(tiny("llama")), load_model(str(tiny("llama")), "float32", "cpu")
    batches = batches_of(loaded, "first", 3)
    monkeypatch.setattr(speed, "_KEPT", {})  # other tests may have timed a model of this make
    passes = counted(monkeypatch, speed, "_pass", do_nothing)
    fetched = counted(monkeypatch, offload, "align_module_device", do_nothing)
    planned = analysis_phases(loaded, batches, {"forward", "weights"}, 0, do_nothing)
    assert (len(passes), len(fetched)) == (1, 0)
    assert all(phase.seconds and phase.seconds > 0 for phase in planned)
    flops = []
    for model in (loaded, whole):
        (found,) = (one for one in analysis_phases(model, batches, {"weights"}, 0, do_nothing) if one.name == SPECTRA)
        flops.append((found.seconds or 0.0) / speed.speed_of(model, do_nothing).flop_seconds)
    assert flops[0] == pytest.approx(flops[1])
