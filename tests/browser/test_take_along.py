"""What is taken along from Compare: peft and transformers compute with it what the run's own model does."""

import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsf.bundled import MODEL_FOLDER
from lsf.cli.main import main
from lsf.models.loading import load_model
from lsf.runs.lock import MERGED
from lsf.runs.store import Run, list_runs
from lsf.training.artefacts import load_tuned
from tests.browser.conftest import WORK, Process, Tab, expect

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture
def adapter(shared_process: Process) -> Iterator[Run]:
    """Three blocks by LoRA, tuned from the shell into the folder that the app reads."""
    known = {run.id for run in list_runs(shared_process.runs)}
    asked = ["--model", "bundled", "--data", "lesson:facts", "--blocks", "5-7", "--method", "lora", "--steps", "10"]
    assert main(["tune", *asked, "--seed", "77", "--runs", str(shared_process.runs)]) == 0
    (made,) = (run for run in list_runs(shared_process.runs) if run.id not in known)
    yield made


def taken(tab: Tab, name: str, to: Path) -> Path:
    """Download a ZIP from the page and unpack it; the one folder in it."""
    with tab.page.expect_download() as found:
        tab.button(name)
    with zipfile.ZipFile(found.value.path()) as archive:
        archive.extractall(to)
    (folder,) = to.iterdir()
    return folder


@torch.no_grad()
def test_peft_loads_the_adapter_and_transformers_the_merged_model(tab: Tab, adapter: Run, tmp_path: Path) -> None:
    tab.open(f"compare?run={adapter.id}")
    expect(tab.page.get_by_role("heading", name="Take it along")).to_be_visible(timeout=WORK)
    small = taken(tab, "Adapter (ZIP)", tmp_path / "adapter")
    assert not (adapter.folder / MERGED).exists()
    tab.settled()
    tab.button("Merge the whole model")
    expect(tab.page.get_by_text("Merged in float32, its logits differ")).to_be_visible(timeout=WORK)
    whole = taken(tab, "Whole model, merged (ZIP)", tmp_path / "whole")

    loaded = load_model("bundled", "float32", "cpu")
    ids = loaded.tokenizer("The capital of", return_tensors="pt")["input_ids"]
    tuned = load_tuned(adapter.folder, loaded)(input_ids=ids).logits
    fresh = AutoModelForCausalLM.from_pretrained(MODEL_FOLDER, dtype=torch.float32)
    assert not torch.allclose(fresh(input_ids=ids).logits, tuned, atol=1e-2)
    with_adapter = PeftModel.from_pretrained(fresh, str(small)).eval()
    torch.testing.assert_close(with_adapter(input_ids=ids).logits, tuned, rtol=1e-4, atol=1e-4)
    alone = AutoModelForCausalLM.from_pretrained(whole).eval()
    assert alone.dtype == loaded.model.dtype
    torch.testing.assert_close(alone(input_ids=ids).logits, tuned, rtol=1e-4, atol=1e-4)
    assert AutoTokenizer.from_pretrained(whole)("The capital of")["input_ids"] == ids[0].tolist()
