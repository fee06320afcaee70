"""What is counted on models without weights, beside the same models with weights, and the page that tells of it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from benchmarks import big_models
from benchmarks.weightless import analysis_parts, weightless
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import EncodedExample
from lsf.data.task import Example
from lsf.lens.gradients import backward_readings
from lsf.models.batches import make_batches
from lsf.models.loading import load_model
from lsf.models.quantised import scales
from lsf.plans.plan import Plan
from lsf.progress import Silent
from lsf.runs.spec import RunSpec
from lsf.training.forecaster import Forecaster
from lsf.training.measured_pass import Held
from lsf.training.splits import EncodedSplits
from tests.tiny import SIZES, save_tiny

ROOT = Path(__file__).parents[2]
CHANGES: dict[str, Any] = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32, "vocab_size": 500}
SETTINGS: dict[str, Any] = {**SIZES, **CHANGES}
ROWS = (EncodedExample(tuple(range(3, 51)), 40, 8, Example("", "")),) * 6
PLANS = {"full": Plan("tiny", 4, (2, 3)), "lora": Plan("tiny", 4, (0, 1, 2, 3))}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    return save_tiny("llama", tmp_path_factory.mktemp("model"), **CHANGES)


def counted(loaded, method, optimizer="adamw") -> Any:
    fixed = {"steps": 5, "batch_size": 6, "cache": "off", "method": method, "optimizer": optimizer}
    spec = RunSpec("tiny", "texts", PLANS[method], **fixed)
    splits = EncodedSplits(ROWS, (), (), n_dropped=0, n_held_out_dropped=0, n_straddling=0, steps=5)
    return Forecaster(loaded, splits, spec, None, lambda: None).counted()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", PLANS)
def test_without_weights_a_run_is_counted_as_with_them(folder_of, method, dtype):
    real = counted(load_model(str(folder_of), dtype, "cpu"), method)
    with weightless(CONFIG_MAPPING["llama"](**SETTINGS), "tiny", getattr(torch, dtype)) as loaded:
        bare = counted(loaded, method)
        assert all(type(value).__name__ == "FakeTensor" or value.is_meta for value in loaded.model.buffers())
    assert replace(bare, activations=0) == replace(real, activations=0)
    assert bare.activations == pytest.approx(real.activations, rel=0.2)


def test_a_model_without_weights_takes_no_memory_and_leaves_torch_as_it_was():
    swap = torch.utils.swap_tensors
    with weightless(big_models.config_of("7B"), "7B") as loaded:
        assert loaded.info.n_params == 7_615_616_512
        assert big_models.float_bytes(loaded) == 2 * loaded.info.n_params
    assert torch.utils.swap_tensors is swap
    assert type(torch.ones(2)) is torch.Tensor


def test_the_bytes_counted_for_a_base_in_4_bits_are_those_of_a_real_one(folder_of):
    pytest.importorskip("bitsandbytes")
    real = load_model(str(folder_of), "nf4", "cpu")
    held = (*(value for _, value in scales(real.model)), *real.model.parameters())
    with weightless(CONFIG_MAPPING["llama"](**SETTINGS), "tiny", torch.float32) as loaded:
        assert big_models.nf4_bytes(loaded) == sum(value.nbytes for value in held)


def test_lora_over_a_real_base_in_4_bits_takes_what_is_counted_for_it(folder_of):
    pytest.importorskip("bitsandbytes")
    real = counted(load_model(str(folder_of), "nf4", "cpu"), "lora")
    with weightless(CONFIG_MAPPING["llama"](**SETTINGS), "tiny", torch.float32) as loaded:
        bare = counted(loaded, "lora")
        activations = bare.activations + big_models.largest_map(loaded)
    assert replace(bare, activations=0) == replace(real, activations=0)
    assert 0.8 <= activations / real.activations <= 1.35


def test_the_gradient_pass_of_an_analysis_peaks_within_a_quarter_of_what_is_counted(folder_of):
    real = load_model(str(folder_of), "float32", "cpu")
    settings = AnalysisSettings(batch_size=6, positions="all")
    batches = make_batches(ROWS, settings.positions, 6, 0, real.device)
    with Held() as held:
        held.know(real.model)
        backward_readings(real, batches, Silent(), fisher=True)
    with weightless(CONFIG_MAPPING["llama"](**SETTINGS), "tiny", torch.float32) as loaded:
        parts = analysis_parts(loaded, ROWS, settings)
    assert 0.75 <= held.peak / (parts.gradients + parts.backward) <= 1.25
    assert parts.copies == 0
    assert parts.peak >= parts.forward + parts.lens


def test_the_page_has_every_model_way_optimizer_and_card():
    page = (ROOT / "docs" / "memory.md").read_text()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines() if line.startswith("|")]
    rows = [row for row in cells if row[0] in big_models.MODELS]
    for name in big_models.MODELS:
        mine = [row for row in rows if row[0] == name]
        assert [row[1] for row in mine if row[1] in ("bfloat16", "nf4")] == ["bfloat16", "nf4"]
        ways = [(re.sub(r" \(.*", "", row[1]), row[2], row[3]) for row in mine if row[1] not in ("bfloat16", "nf4")]
        kinds = ("adamw", "adamw_8bit", "adafactor")
        assert ways == [("LoRA, all blocks", base, kind) for kind in kinds for base in ("bfloat16", "nf4")] + [
            (f"all weights of L/{share} blocks", "bfloat16", kind) for share in (8, 4) for kind in kinds
        ]
    assert all(answer in ("yes", "one by one", "no") for row in rows for answer in row[-4:])


@pytest.mark.slow
def test_the_page_says_what_is_counted_now():
    page = (ROOT / "docs" / "memory.md").read_text()
    with weightless(big_models.config_of("1B"), "1B") as loaded:
        rows = big_models.tuning_rows(loaded, "all weights of L/8 blocks (2)", "full", Plan("1B", 16, (14, 15)))
    for line in big_models.table(rows).splitlines()[2:]:
        assert line in page


def test_a_card_holds_a_run_by_the_share_that_forecasts_use():
    row = {"weights": 10 * 10**9, "peak": 5 * 10**9, "least": 10**9}
    assert [big_models._fits(card, *row.values()) for card in big_models.CARDS] == ["yes", "yes", "yes", "yes"]
    assert [big_models._fits(16, 10 * 10**9, peak * 10**9, 10**9) for peak in (5, 6)] == ["yes", "one by one"]
    assert big_models._fits(16, 10 * 10**9, 7 * 10**9, 6 * 10**9) == "no"
