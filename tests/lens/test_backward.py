"""Per-example gradients, Fisher, tangent kernels and the trial step against torch.func and plain autograd."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call, grad
from torch.nn.functional import cross_entropy

import lsf
from lsf.data.encode import encode
from lsf.lens.gradients import TRIAL_RATE, backward_readings, length
from lsf.lens.kernels import GradientHook, block_spectra, pair_products, squared_norms, tangent_kernels
from lsf.lens.semantics import semantic_bases
from lsf.models.batches import Batch, make_batches
from lsf.models.loading import LoadedModel, load_model
from lsf.progress import Silent
from tests.lens.test_reference import PAIRS, task_of

# llama: linear maps and RMS norms; gpt2: Conv1D, biases, LayerNorm; gemma2: norms that add one to their weight;
# qwen3: norms over heads; mixtral: expert tensors, which have to fall back; opt: an MLP over all tokens in one axis
FAMILIES = ["llama", "gpt2", "gemma2", "qwen3", "gpt_neox", "mixtral", "opt"]


def batches_of(loaded: LoadedModel, positions: str, batch_size: int) -> list[Batch]:
    rows = encode(loaded.tokenizer, task_of(PAIRS).rows, 64).rows
    return make_batches(rows, positions, batch_size, 0, loaded.device)


def per_example(loaded: LoadedModel, batch: Batch) -> list[list[torch.Tensor]]:
    """Return each example's gradient of its own mean loss per block, flat, by torch.func on the plain model."""
    model: Any = loaded.model
    gradients = []
    for row in range(len(batch.ids)):
        mine = batch.rows == row
        last = int(batch.places[mine].max()) + 1

        def loss(parameters: dict[str, torch.Tensor], row: int = row, mine: Any = mine, last: int = last) -> Any:
            logits = functional_call(model, parameters, kwargs={"input_ids": batch.ids[row : row + 1, :last]}).logits
            return cross_entropy(logits[0, batch.places[mine]], batch.targets[mine])

        found = grad(loss)(dict(model.named_parameters()))
        blocks = range(len(loaded.layout.blocks))
        gradients.append(
            [torch.cat([found[name].flatten() for name in loaded.layout.block_parameters(b)]) for b in blocks]
        )
    return gradients


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["first", "all"])
def test_fisher_is_the_mean_squared_per_example_gradient(
    family: str, positions: str, tiny: Callable[[str], Path]
) -> None:
    loaded = load_model(str(tiny(family)))
    batches = batches_of(loaded, positions, 3)
    found = backward_readings(loaded, batches, Silent(), fisher=True)
    plain = backward_readings(loaded, batches, Silent())
    assert found is not None and found.fisher is not None and plain is not None
    examples = [example for batch in batches for example in per_example(loaded, batch)]
    expected = [torch.stack([example[b] for example in examples]).pow(2).mean().item() for b in range(4)]
    np.testing.assert_allclose(found.fisher, expected, rtol=2e-3)
    for one, other in zip(found.gradients, plain.gradients, strict=True):
        np.testing.assert_allclose(one.gradient_norms, other.gradient_norms, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("positions", ["first", "all"])
def test_kernels_are_inner_products_of_per_example_gradients(
    family: str, positions: str, tiny: Callable[[str], Path]
) -> None:
    loaded = load_model(str(tiny(family)))
    (batch,) = batches_of(loaded, positions, len(PAIRS))
    found = tangent_kernels(loaded, batch, Silent())
    rows = {int(batch.examples[(batch.rows == row).numpy()][0]): row for row in range(len(batch.ids))}
    in_order = per_example(loaded, batch)
    examples = [in_order[rows[example]] for example in sorted(rows)]
    assert list(rows) != sorted(rows)  # the batch is sorted by length
    for block in range(4):
        stacked = torch.stack([example[block] for example in examples])
        expected = (stacked @ stacked.T).detach().numpy()
        np.testing.assert_allclose(found[block], expected, rtol=2e-3, atol=2e-4 * np.abs(expected).max())


@pytest.mark.parametrize("module", ["self_attn.o_proj", "mlp.down_proj", "input_layernorm"])
def test_a_hook_on_a_map_or_a_norm_counts_in_the_gradient_behind_it(module: str, tiny: Callable[[str], Path]) -> None:
    steered = lsf.load(str(tiny("llama")), "float32", "cpu")
    steered.model.model.layers[1].get_submodule(module).register_forward_hook(lambda _module, _given, out: 3.0 * out)
    loaded = steered.measured()
    (batch,) = batches_of(loaded, "all", len(PAIRS))
    found, kernels = backward_readings(loaded, [batch], Silent(), fisher=True), tangent_kernels(loaded, batch, Silent())
    assert found is not None and found.fisher is not None
    for block in range(4):
        stacked = torch.stack([example[block] for example in per_example(loaded, batch)])
        assert found.fisher[block] == pytest.approx(stacked.pow(2).mean().item(), rel=2e-3)
        assert np.trace(kernels[block]) == pytest.approx(stacked.pow(2).sum().item(), rel=2e-3)


def test_the_trial_step_promises_what_one_adamw_step_does_to_first_order(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    batches = batches_of(loaded, "first", 4)
    found = backward_readings(loaded, batches, Silent(), trial_step=True)
    assert found is not None and found.first_order_drop is not None
    losses = []
    for step in (False, True):
        model = load_model(str(tiny("llama"))).model.requires_grad_(True)
        blocks = [parameter for layer in model.model.layers for parameter in layer.parameters()]

        def mean_loss(model: Any = model) -> torch.Tensor:
            each = [
                cross_entropy(model(input_ids=b.ids).logits[b.rows, b.places], b.targets, reduction="sum")
                for b in batches
            ]
            return torch.stack(each).sum() / len(PAIRS)

        if step:
            mean_loss().backward()
            torch.optim.AdamW(blocks, lr=TRIAL_RATE, weight_decay=0.0).step()
        losses.append(mean_loss().item())
    assert found.first_order_drop.sum() == pytest.approx(losses[0] - losses[1], rel=0.05)
    assert losses[0] > losses[1]
    assert (found.first_order_drop > 0).all()


def test_the_trial_step_of_a_bfloat16_model_is_not_lost_in_its_rounding(tiny: Callable[[str], Path]) -> None:
    drops = {}
    for dtype in ("float32", "bfloat16"):
        loaded = load_model(str(tiny("llama")), dtype=dtype)
        for norm in (module for name, module in loaded.model.named_modules() if name.endswith("layernorm")):
            norm.weight.data.fill_(8.0)  # a bfloat16 of 8 does not move by 1e-4
        found = backward_readings(loaded, batches_of(loaded, "first", 4), Silent(), trial_step=True)
        assert found is not None and found.first_order_drop is not None
        drops[dtype] = found.first_order_drop
    np.testing.assert_allclose(drops["bfloat16"], drops["float32"], rtol=0.25)


@pytest.mark.parametrize("shape", [(2**13, 2**11), (8, 2**10, 2**11), (7,)])
def test_the_norm_of_a_large_tensor_is_not_lost_in_running_sums(shape: tuple[int, ...]) -> None:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul_(0.02)
    assert length(values).item() == pytest.approx(float(np.linalg.norm(values.numpy().astype(np.float64))), rel=1e-6)


def test_backward_passes_leave_the_loaded_model_alone(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")))
    before = {name: parameter.clone() for name, parameter in loaded.model.named_parameters()}
    batches = batches_of(loaded, "first", 4)
    backward_readings(loaded, batches, Silent(), fisher=True, trial_step=True)
    tangent_kernels(loaded, batches[0], Silent())
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, before[name])
        assert parameter.grad is None and not parameter.requires_grad


def test_semantic_loss_is_the_cross_entropy_over_all_meanings(
    tiny: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_model(str(tiny("llama")))
    head = loaded.layout.head_weight.double()
    meanings = torch.nn.functional.normalize(torch.linalg.pinv(head).T, dim=-1)
    readings = torch.randn(5, 3, 32, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([4, 9, 4, 20, 7])
    cosine = torch.nn.functional.normalize(readings.double(), dim=-1) @ meanings.T
    expected = torch.stack([cross_entropy(cosine[:, state] / 0.1, targets, reduction="none") for state in range(3)], 1)
    for chunk in (16_384, 7):
        monkeypatch.setattr("lsf.lens.semantics.CHUNK_ROWS", chunk)
        found = semantic_bases(loaded.layout.head_weight).losses(readings, targets)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)


def test_spectra_are_those_of_every_matrix_of_every_block(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("mixtral")))
    spectra = block_spectra(loaded, Silent())
    assert spectra is not None
    layer = loaded.model.model.layers[1]
    expected = np.linalg.svd(layer.self_attn.o_proj.weight.numpy(), compute_uv=False)
    assert any(
        found.shape == tuple(layer.self_attn.o_proj.weight.shape) and np.allclose(found.values, expected, rtol=1e-4)
        for found in spectra[1]
    )
    matrices = sum(p.shape[0] if p.dim() == 3 else 1 for p in layer.parameters() if p.dim() > 1)
    assert len(spectra[1]) == matrices


@pytest.mark.parametrize("tokens", [2, 60])
def test_pairs_are_the_same_by_positions_and_by_weight_gradients(tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(tokens)
    inputs, gradients = (torch.randn(5, tokens, width, generator=draw) for width in (8, 12))
    hook = GradientHook(0, inputs, gradients, (gradients.sum(dim=1),))
    whole = torch.cat([torch.einsum("nto,nti->noi", gradients, inputs).flatten(1), gradients.sum(dim=1)], dim=1)
    torch.testing.assert_close(pair_products(hook), whole @ whole.T, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(squared_norms(hook), (whole**2).sum(dim=1))
    monkeypatch.setattr("lsf.lens.kernels.HELD", 50)  # in parts of one row of the weight
    torch.testing.assert_close(pair_products(hook), whole @ whole.T, rtol=1e-4, atol=1e-3)
