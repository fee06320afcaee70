"""How much of the gradients is there at a time, counted in the bytes that operations make; and that it costs no bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from lsf.data.encode import encode
from lsf.lens import gradients
from lsf.lens.gradients import BackwardReadings, backward_readings
from lsf.lens.kernels import tangent_kernels
from lsf.models.batches import Batch, make_batches
from lsf.models.loading import LoadedModel, load_model
from lsf.progress import Silent
from lsf.training.measured_pass import Held
from tests.lens.test_reference import PAIRS, task_of
from tests.tiny import save_tiny

SHORT = [("the", " dog"), ("a", " cat"), ("one", " two"), ("is", " red")]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> LoadedModel:
    """A model whose blocks are much larger than what a few short examples leave in them."""
    sizes = {"hidden_size": 256, "intermediate_size": 1024}
    return load_model(str(save_tiny("llama", tmp_path_factory.mktemp("wide"), **sizes)))


def batches_of(loaded: LoadedModel, batch_size: int, pairs: list[tuple[str, str]] = PAIRS) -> list[Batch]:
    rows = encode(loaded.tokenizer, task_of(pairs).rows, 64).rows
    return make_batches(rows, "first", batch_size, 0, loaded.device)


def block_bytes(loaded: LoadedModel) -> int:
    """Return the bytes of one block's float32 gradient."""
    return 4 * sum(parameter.numel() for parameter in loaded.layout.blocks[0].parameters())


def peak_of(loaded: LoadedModel, work: Callable[[], Any]) -> tuple[int, Any]:
    """Return the most bytes there were at once of what operations made, and what the work came to."""
    held = Held()
    held.know(loaded.model)
    with held:
        found = work()
    return held.peak, found


def test_of_one_batch_no_more_than_a_part_of_one_blocks_gradients_is_there_at_a_time(wide: LoadedModel) -> None:
    batches = batches_of(wide, len(SHORT), SHORT)
    peak, _ = peak_of(wide, lambda: backward_readings(wide, batches, Silent(), fisher=True))
    assert peak < block_bytes(wide)


def test_of_several_batches_as_many_blocks_are_added_up_at_a_time_as_there_is_room_for(
    wide: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches, block = batches_of(wide, 2, SHORT), block_bytes(wide)
    found: dict[int, BackwardReadings] = {}
    for n_blocks in (4, 2, 1):
        monkeypatch.setattr(gradients, "free_bytes", lambda _, n=n_blocks: n * block / gradients.GRADIENT_SHARE)
        peak, found[n_blocks] = peak_of(wide, lambda: backward_readings(wide, batches, Silent(), fisher=True))
        assert n_blocks * block <= peak < (n_blocks + 1) * block
    for other in (found[2], found[1]):
        assert other.gradients == found[4].gradients
        assert np.array_equal(other.fisher, found[4].fisher)  # type: ignore[arg-type]


def test_less_than_one_blocks_room_is_taken_for_one(wide: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "free_bytes", lambda _: 0)
    found = backward_readings(wide, batches_of(wide, 3), Silent())
    monkeypatch.undo()
    assert found == backward_readings(wide, batches_of(wide, 3), Silent())


def test_tangent_kernels_make_no_parameters_gradient(wide: LoadedModel) -> None:
    (batch,) = batches_of(wide, 2, SHORT[:2])
    peak, kernels = peak_of(wide, lambda: tangent_kernels(wide, batch, Silent()))
    assert peak < block_bytes(wide) / 4
    assert (np.diagonal(kernels, axis1=1, axis2=2) > 0).all()


def test_the_trial_step_keeps_a_copy_and_a_step_of_the_blocks_and_no_gradient_beside_them(wide: LoadedModel) -> None:
    batches, block = batches_of(wide, 2, SHORT), block_bytes(wide)
    peak, _ = peak_of(wide, lambda: backward_readings(wide, batches, Silent(), trial_step=True))
    assert 8 * block <= peak < 9 * block


def test_a_batch_that_has_to_be_halved_in_a_later_group_changes_no_number(
    wide: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = batches_of(wide, 4)
    whole = backward_readings(wide, batches, Silent(), fisher=True)
    losses, failed = gradients.position_losses, []

    def short(layout: Any, batch: Batch) -> Any:
        if layout.blocks[2].mlp.up_proj.weight.requires_grad and len(batch.ids) > 2:
            failed.append(len(batch.ids))
            torch.empty(2**60)
        return losses(layout, batch)

    monkeypatch.setattr(gradients, "free_bytes", lambda _: 0)
    monkeypatch.setattr(gradients, "position_losses", short)
    halved = backward_readings(wide, batches, Silent(), fisher=True)
    assert failed and whole is not None and halved is not None
    assert whole.fisher is not None and halved.fisher is not None
    np.testing.assert_allclose(halved.fisher, whole.fisher, rtol=1e-4)
    for one, other in zip(halved.gradients, whole.gradients, strict=True):
        np.testing.assert_allclose(one.gradient_norms, other.gradient_norms, rtol=1e-4)


def test_gradients_of_a_bfloat16_model_are_added_up_in_float32(tiny: Callable[[str], Path]) -> None:
    loaded = load_model(str(tiny("llama")), dtype="bfloat16")
    batches = batches_of(loaded, 1, PAIRS * 20)
    found = backward_readings(loaded, batches, Silent())
    assert found is not None
    view = gradients.trainable_view(loaded)
    tensors = list(view.blocks[1].parameters())
    exact = [torch.zeros(tensor.shape, dtype=torch.float64) for tensor in tensors]
    rounded = [torch.zeros_like(tensor) for tensor in tensors]
    for batch in batches:
        hidden = view.model.base_model(input_ids=batch.ids).last_hidden_state
        logits = view.logits(hidden[batch.rows, batch.places]).float()
        loss = cross_entropy(logits, batch.targets, reduction="sum") / len(batches)
        for sums in zip(exact, rounded, torch.autograd.grad(loss, tensors), strict=True):
            sums[0].add_(sums[2])
            sums[1].add_(sums[2])
    expected = [total.norm().item() for total in exact]
    np.testing.assert_allclose(found.gradients[1].gradient_norms, expected, rtol=1e-5)
    worst = max(abs(total.float().norm().item() / norm - 1) for total, norm in zip(rounded, expected, strict=True))
    assert worst > 1e-3  # what adding up in bfloat16 would have cost
