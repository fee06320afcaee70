"""Bases in 4 and 8 bits: read as themselves, dequantised where floats are needed, and never changed."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from lsf.cli.main import main
from lsf.criteria.registry import CRITERIA
from lsf.criteria.result import AnalysisSettings
from lsf.data.encode import encode
from lsf.data.task import Example, Task
from lsf.errors import BadInputError, ModelError
from lsf.lens.analyze import analyze
from lsf.lens.gradients import trainable_view
from lsf.lens.kernels import SPECTRA, block_spectra
from lsf.lens.speed import analysis_phases
from lsf.models.batches import autocasting, make_batches
from lsf.models.loading import load_model, weights_hash
from lsf.models.quantised import float_weight, is_packed, n_values, scales, settle, shape_of, unpacked_by_table
from lsf.models.sharing import float_view, share_model
from lsf.progress import Silent, do_nothing
from lsf.training.proof import fingerprint
from tests.tiny import WHOLE_BLOCKS, save_tiny

KINDS = ("nf4", "int8")
MEASURED = tuple(name for name, one in CRITERIA.items() if one.needs not in ("runs", "nothing"))
IDS = torch.arange(1, 22).reshape(3, 7)
dequantize_4bit = pytest.importorskip("bitsandbytes.functional").dequantize_4bit


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def place(tmp_path_factory, family, kind):
    """A folder of a tiny model whose rows are whole blocks where they are packed in 4 bits."""
    return save_tiny(family, tmp_path_factory.mktemp(family), **WHOLE_BLOCKS[family] if kind == "nf4" else {})


@pytest.fixture(scope="module")
def packed(place, kind):
    return load_model(str(place), kind, "cpu")


@pytest.fixture(scope="module")
def plain(place):
    return load_model(str(place), "float32", "cpu")


@pytest.fixture(scope="module")
def task():
    words = ("cat", "dog", "tree", "sky", "sun", "moon", "mat", "a")
    rows = tuple(Example(f"the {word} {verb}", " red .") for word in words for verb in ("is", "was"))
    return Task("toy", rows, rows[:4], rows[:4])


def test_what_is_loaded_is_what_transformers_loads_and_reads_itself_rightly(packed, place, kind):
    config = {"nf4": {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "int8": {"load_in_8bit": True}}[kind]
    theirs = AutoModelForCausalLM.from_pretrained(
        place, dtype=torch.float32, quantization_config=BitsAndBytesConfig(**config), device_map={"": "cpu"}
    ).eval()
    settle(theirs)  # on some processors its first pass would round the scales to bfloat16
    with torch.no_grad():
        assert torch.equal(packed.model(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    assert packed.info.dtype == kind
    assert packed.self_check < 1e-5
    assert sum(is_packed(value) for value in packed.model.parameters()) == len(tuple(scales(packed.model))) / (
        2 if kind == "nf4" else 1
    )


def test_rows_of_parts_of_a_block_are_unpacked_rightly_or_refused(tiny):
    """As bitsandbytes' kernels for AVX-512 do not; on other processors such a model is read as any."""
    try:
        ragged = load_model(str(tiny("llama")), "nf4", "cpu").model
    except ModelError as error:
        assert "unpacks model.layers.0.self_attn.q_proj wrongly on this processor: its rows of 32" in str(error)
        return
    for module in ragged.modules():
        if (weight := module._parameters.get("weight")) is not None and is_packed(weight):
            assert torch.allclose(float_weight(module), unpacked_by_table(weight), rtol=1e-5)


def test_whole_blocks_are_unpacked_as_the_table_has_them(packed, kind):
    for module in packed.model.modules():
        weight = module._parameters.get("weight")
        if kind == "nf4" and weight is not None and is_packed(weight):
            assert unpacked_by_table(weight).shape == weight.quant_state.shape
            assert torch.allclose(
                dequantize_4bit(weight.data, weight.quant_state), unpacked_by_table(weight), rtol=1e-5
            )


def test_a_weight_that_is_not_what_its_table_says_is_refused(tiny, monkeypatch):
    monkeypatch.setattr("bitsandbytes.functional.dequantize_4bit", lambda _data, state: torch.ones(state.shape))
    with pytest.raises(ModelError, match="rows of 32 values are no whole blocks of 64; accepted are int8"):
        load_model(str(tiny("llama")), "nf4", "cpu")


def test_counts_are_those_of_the_float_model(packed, plain):
    assert packed.info.n_params == plain.info.n_params
    for mine, theirs in zip(packed.model.parameters(), plain.model.parameters(), strict=True):
        assert n_values(mine) == theirs.numel()


def test_dequantised_weights_lie_near_the_float_ones_in_the_checkpoint_s_layout(packed, plain, kind):
    for name, module in packed.model.named_modules():
        if (weight := module._parameters.get("weight")) is None or not is_packed(weight):
            continue
        exact = plain.model.get_submodule(name).weight
        found = float_weight(module)
        assert found.shape == exact.shape
        assert (found - exact).abs().max() < {"nf4": 0.16, "int8": 0.005}[kind] * exact.abs().max()


def test_a_second_view_shares_every_byte_and_gives_the_same_logits(packed):
    before = fingerprint(packed.model)
    view = share_model(packed.model)
    with torch.no_grad():
        assert torch.equal(view(input_ids=IDS).logits, packed.model(input_ids=IDS).logits)
    mine, base = dict(view.named_parameters()), dict(packed.model.named_parameters())
    assert all(mine[name] is not value and mine[name].data_ptr() == value.data_ptr() for name, value in base.items())
    ours, theirs = dict(scales(view)), dict(scales(packed.model))
    assert all(ours[name].data_ptr() == value.data_ptr() for name, value in theirs.items())
    packed_name = next(name for name, value in base.items() if is_packed(value))
    with pytest.raises(BadInputError, match="accepted over a quantised base are methods"):
        share_model(packed.model, own=[packed_name])
    assert fingerprint(packed.model) == before


def test_a_changed_scale_changes_both_hashes(packed):
    before = fingerprint(packed.model)
    weights_hash(packed.model)  # kept from now on
    _, scale = next(iter(scales(packed.model)))
    kept = scale.clone()
    try:
        scale.mul_(2)
        assert fingerprint(packed.model) != before
        assert weights_hash(share_model(packed.model)) != weights_hash(packed.model)
    finally:
        scale.copy_(kept)
    assert fingerprint(packed.model) == before
    assert weights_hash(share_model(packed.model)) == weights_hash(packed.model)


def test_a_float_view_is_an_ordinary_model_of_the_dequantised_values(packed, plain, kind):
    view = float_view(packed.model)
    assert not any(is_packed(value) for value in view.parameters())
    assert [type(module) for module in view.modules()] == [type(module) for module in plain.model.modules()]
    assert not hasattr(view.config, "quantization_config")
    assert hasattr(packed.model.config, "quantization_config")
    with torch.no_grad():
        difference = (view(input_ids=IDS).logits - packed.model(input_ids=IDS).logits).abs().max()
    assert difference < {"nf4": 1e-4, "int8": 0.2}[kind]  # int8 rounds what enters a map too


def test_every_criterion_but_the_short_runs_is_had_and_the_base_stays_as_it_is(packed, plain, task):
    before = fingerprint(packed.model)
    settings = AnalysisSettings(criteria=MEASURED, batch_size=4)
    found, exact = (analyze(one, task, settings, Silent()) for one in (packed, plain))
    for mine, theirs in zip(found.blocks, exact.blocks, strict=True):
        assert mine.n_params == theirs.n_params
        for name in MEASURED:
            assert (mine.scores[name] is None) == (theirs.scores[name] is None), name
    for name in ("deviation", "gradient_norm", "fisher", "ntk", "snr"):
        one, other = (np.array([row.scores[name] for row in each.blocks]) for each in (found, exact))
        assert not np.array_equal(one, other)
        assert np.abs(one - other).max() < 0.8 * np.abs(other).max(), name
    assert fingerprint(packed.model) == before


def test_gradients_are_those_at_the_dequantised_weights(packed):
    layout = trainable_view(packed)
    with torch.enable_grad():
        layout.model(input_ids=IDS).logits.sum().backward()
    for block in layout.blocks:
        for parameter in block.parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all()


def test_spectra_are_those_of_dequantised_matrices(packed):
    view, spectra = float_view(packed.model), block_spectra(packed, Silent())
    assert spectra is not None
    for block, found in enumerate(spectra):
        names = [name for name, value in packed.layout.blocks[block].named_parameters() if n_values(value) > 300]
        matrices = [view.get_submodule(packed.layout.block_names[block]).get_parameter(name) for name in names]
        assert len(found) == len(matrices)
        for one, matrix in zip(found, matrices, strict=True):
            assert one.shape == tuple(matrix.shape)
            assert np.allclose(one.values, torch.linalg.svdvals(matrix).numpy(), rtol=1e-4, atol=1e-5)


def test_the_spectra_are_foreseen_without_a_matrix_being_dequantised(packed, plain, monkeypatch):
    def never(*_args):
        raise AssertionError("a matrix was dequantised")

    (batch,) = make_batches(
        encode(packed.tokenizer, [Example("the cat", " sat")], 8).rows, "first", 1, 0, packed.device
    )
    monkeypatch.setattr("lsf.models.devices.float_weight", never)
    assert SPECTRA in [phase.name for phase in analysis_phases(packed, [batch], {"weights"}, 0, do_nothing)]
    for mine, theirs in zip(packed.model.parameters(), plain.model.parameters(), strict=True):
        assert sorted(shape_of(mine)) == sorted(theirs.shape)


def test_a_bfloat16_base_beside_packed_weights_is_read_under_autocast(packed):
    with autocasting(packed.model, packed.info.dtype):
        assert not torch.is_autocast_enabled("cpu")
    half = share_model(packed.model)
    half.set_input_embeddings(torch.nn.Embedding(4, 4, dtype=torch.bfloat16))
    with autocasting(half, packed.info.dtype):
        assert torch.is_autocast_enabled("cpu")


def test_where_it_cannot_be_had_one_sentence_says_so(tiny, monkeypatch, tmp_path, capsys, kind):
    with pytest.raises(BadInputError, match="lies whole on one device"):
        load_model(str(tiny("llama")), kind, "map")
    monkeypatch.setattr("bitsandbytes.supported_torch_devices", {"cuda"})
    with pytest.raises(BadInputError, match=f"no {kind} for cpu; accepted devices are: cuda"):
        load_model(str(tiny("llama")), kind, "cpu")
    monkeypatch.setattr("lsf.models.quantised.find_spec", lambda name: None)
    asked = [
        "analyze",
        "--model",
        "no/such/model",
        "--data",
        "lesson:facts",
        "--dtype",
        kind,
        "--json",
        str(tmp_path / "a.json"),
    ]
    assert main(asked) == 2
    told = capsys.readouterr().err
    assert "needs the package bitsandbytes" in told
    assert "pip install bitsandbytes" in told
