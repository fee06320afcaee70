"""A device that is too small: allocations that fail under a real limit, and the same numbers in smaller batches."""

import errno
import json
import os
import resource
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from lsf.cli.main import main
from lsf.criteria.result import Analysis, AnalysisSettings
from lsf.data.encode import encode
from lsf.data.task import Example, Task, split_examples
from lsf.errors import OutOfMemoryError, PlanError
from lsf.lens.analyze import analyze
from lsf.lens.kernels import tangent_kernels, unhooked
from lsf.models.batches import Batch, halves_of, make_batches
from lsf.models.cache import ModelCache
from lsf.models.devices import is_out_of_memory
from lsf.models.loading import LoadedModel, load_model
from lsf.plans.policies import make_plan
from lsf.progress import Reporter, Silent
from lsf.training.attempts import free_memory
from tests.children import finished
from tests.lens.test_reference import PAIRS, task_of

PROGRAM = """
import json, resource, sys
from lsf.models import batches
from lsf.lens.analyze import analyze
from lsf.models.loading import load_model
from lsf.progress import Silent
from tests.models.test_out_of_memory import asked, many

folder, extra = sys.argv[1], int(sys.argv[2])
loaded = load_model(folder)
analyze(loaded, many(40), asked(8), Silent())  # everything is imported and warm
split = [0]
whole = batches.halves_of
def counted(batch):
    split[0] += 1
    return whole(batch)
import lsf.lens.gradients, lsf.lens.forward
lsf.lens.gradients.halves_of = lsf.lens.forward.halves_of = counted
task = many(400)
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + extra, used + extra))
found = analyze(loaded, task, asked(400), Silent())
print(json.dumps([split[0], found.scores("deviation"), found.scores("gradient_norm")]))
"""


def many(n: int) -> Task:
    """Return so many examples of 40 words, those of each hundred unlike the others."""
    words = "the cat dog sat ran on under mat tree red".split()
    rows = [
        Example(" ".join(words[(i + j * (1 + i // 100)) % 10] for j in range(40)), f" {words[i % 10]}")
        for i in range(n)
    ]
    return split_examples("many", rows)


def asked(batch_size: int) -> AnalysisSettings:
    """Return what is analysed, all in batches of one size."""
    return AnalysisSettings(limit=None, batch_size=batch_size, criteria=("deviation", "gradient_norm"))


def limited(folder: Path, extra: int) -> tuple[int, list[float], list[float]]:
    """Analyse in one batch, in a process of its own that may take `extra` more bytes than it has once it is warm."""
    done = finished("-c", PROGRAM, folder, extra)
    assert done.poll() == 0, done.err[-2000:]
    return tuple(json.loads(done.out.splitlines()[-1]))


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_AS") or sys.platform != "linux", reason="limits memory as Linux does")
def test_too_large_a_batch_is_halved_until_it_fits_and_the_numbers_stay(tiny: Callable[[str], Path]) -> None:
    folder = tiny("llama")
    splits, deviation, gradient = limited(folder, 16_000_000)
    assert splits > 0
    found = analyze(load_model(str(folder)), many(400), asked(16), Silent())
    assert deviation == pytest.approx(found.scores("deviation"), rel=1e-5)
    assert gradient == pytest.approx(found.scores("gradient_norm"), rel=1e-3)


def test_halves_hold_the_same_positions(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    rows = encode(loaded.tokenizer, task_of(PAIRS).rows, 64).rows
    (whole,) = make_batches(rows, "all", 16, 0, loaded.device)
    parts = whole.halves()
    assert [len(part.ids) for part in parts] == [3, 4]
    assert sum(part.n_tokens for part in parts) == whole.n_tokens
    assert torch.equal(torch.cat([part.targets for part in parts]), whole.targets)
    assert torch.equal(torch.cat([part.current for part in parts]), whole.current)
    assert np.concatenate([part.examples for part in parts]).tolist() == whole.examples.tolist()


def test_one_example_that_does_not_fit_is_said(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    rows = encode(loaded.tokenizer, [Example("the cat", " sat")], 64).rows
    (batch,) = make_batches(rows, "first", 1, 0, loaded.device)
    with pytest.raises(OutOfMemoryError, match="too little memory for one example of 3 tokens"):
        halves_of(batch)


@pytest.mark.parametrize("what", ["the model cache", "a halved batch", "between runs"])
def test_what_an_apple_gpu_keeps_for_later_is_given_back(
    what: str, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, model_cache, given_back = load_model(str(tiny("llama"))), ModelCache(), []
    rows = encode(loaded.tokenizer, [Example("the cat", " sat")] * 2, 64).rows
    (batch,) = make_batches(rows, "first", 2, 0, loaded.device)
    model_cache.load(str(tiny("llama")), "float32", "cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.mps, "empty_cache", lambda: given_back.append(what))
    {"the model cache": model_cache.unload, "a halved batch": lambda: halves_of(batch), "between runs": free_memory}[
        what
    ]()
    assert given_back == [what]


def test_a_failed_allocation_is_told_from_other_failures() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    with pytest.raises(RuntimeError) as other:
        _ = torch.zeros(2) @ torch.zeros(3)
    assert not is_out_of_memory(other.value)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("MPS backend out of memory (MPS allocated: 17.90 GiB, other allocations: 1.1 GiB)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory: you tried to"),
        OSError(errno.ENOMEM, os.strerror(errno.ENOMEM)),
        RuntimeError("std::bad_alloc"),
        SafetensorError("Error while deserializing header: Cannot allocate memory (os error 12)"),
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory."),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_way_of_running_out_of_memory_is_known_and_explained_while_loading(
    error: Exception, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_room(*_arguments: object, **_named: object) -> None:
        raise error

    assert is_out_of_memory(error)
    for step in ("weights.AutoModelForCausalLM.from_pretrained", "weights._leave_file", "loading.self_check"):
        with monkeypatch.context() as patch:
            patch.setattr(f"lsf.models.{step}", no_room)
            with pytest.raises(OutOfMemoryError, match=r"needs about 0.0 GB and CPU.*take a smaller model"):
                load_model(str(tiny("llama")), "float32", "cpu")


def test_a_kernel_that_does_not_fit_is_taken_of_the_first_half_of_the_examples(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, settings = load_model(str(tiny("llama"))), AnalysisSettings(criteria=("alignment",))
    task = many(50)

    def limited(loaded: LoadedModel, batch: Batch, report: Reporter) -> object:
        if len(batch.ids) > 16:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return tangent_kernels(loaded, batch, report)

    monkeypatch.setattr("lsf.lens.kernels.tangent_kernels", limited)
    found = analyze(loaded, task, settings, Silent())
    n_examples = found.data.n_examples
    assert n_examples > 32
    monkeypatch.undo()
    first = analyze(loaded, task, replace(settings, limit=n_examples // 4), Silent())
    assert n_examples // 4 <= 16
    assert found.scores("alignment") == pytest.approx(first.scores("alignment"), rel=1e-4)
    assert [sample.n_examples for sample in found.growth or ()] == [8, n_examples // 4]
    assert found.data.kernel_examples == n_examples // 4


def test_gradients_kept_per_example_bound_the_examples_of_a_kernel(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, settings = load_model(str(tiny("mixtral"))), AnalysisSettings(criteria=("alignment", "deviation"))
    kept = 4 * sum(tensor.numel() for block in loaded.layout.blocks for tensor in unhooked(block))
    assert kept > 0
    monkeypatch.setattr("lsf.lens.kernels.ROW_BYTES", 10 * kept + 1)
    found = analyze(loaded, many(50), settings, Silent())
    assert found.data.kernel_examples == 10 < found.data.n_examples
    first = analyze(loaded, many(50), replace(settings, limit=10), Silent())
    assert found.scores("alignment") == pytest.approx(first.scores("alignment"), rel=1e-4)
    monkeypatch.setattr("lsf.lens.kernels.ROW_BYTES", 2 * kept - 1)
    none = analyze(loaded, many(50), settings, Silent())
    assert none.data.kernel_examples is None
    assert none.criteria == ("deviation",)
    assert none.data.short is not None
    assert none.data.short.startswith("alignment: not measured, since gradients of expert tensors are kept example by")
    with pytest.raises(PlanError, match=r"it has: deviation\. alignment: not measured, since"):
        make_plan(none, "alignment", "window", 1)


@pytest.mark.parametrize("criteria", ["deviation,gradient_norm,fisher,first_order_drop,alignment,snr,last"])
@pytest.mark.parametrize("short", ["gradients", "trial step", "kernels"])
def test_what_memory_does_not_suffice_for_is_null_and_told_and_the_rest_is_written(
    short: str,
    criteria: str,
    tiny: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out = tmp_path / "rows.jsonl", tmp_path / "a.json"
    data.write_text("\n".join(json.dumps({"prompt": prompt, "completion": rest}) for prompt, rest in PAIRS))
    asked = ["analyze", "--model", str(tiny("llama")), "--data", str(data), "--criteria", criteria, "--json", str(out)]
    assert main(asked) == 0
    whole = Analysis.load(out)
    assert whole.data.short is None
    where, missing = {
        "gradients": ("gradients.position_losses", ("gradient_norm", "fisher", "first_order_drop")),
        "trial step": ("gradients._drop_after", ("first_order_drop",)),
        "kernels": ("kernels.example_losses", ("alignment",)),
    }[short]
    monkeypatch.setattr(f"lsf.lens.{where}", lambda *_: torch.empty(2**60))
    capsys.readouterr()
    assert main(asked) == 0
    told, found = capsys.readouterr().err, Analysis.load(out)
    assert f"lsf: cpu has too little memory for {', '.join(missing)}: not measured; take shorter examples" in told
    assert found.data.short is not None and found.data.short in told
    for name in criteria.split(","):
        assert found.scores(name) == ((None,) * 4 if name in missing else whole.scores(name))
    assert found.states == whole.states
