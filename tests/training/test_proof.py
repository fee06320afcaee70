"""What the two levels of proof see."""

from dataclasses import replace

import pytest
import torch

from lsf.methods.context import MethodContext
from lsf.methods.registry import METHODS
from lsf.training.proof import fingerprint, marks, prove, storages
from lsf.training.run import tune


@pytest.fixture
def model(loaded, spec):
    return METHODS["full"].prepare(loaded, spec.plan, MethodContext())


def move(model):
    with torch.no_grad():
        for value in model.parameters():
            if value.requires_grad:
                value.add_(1.0)


def proved(before, model, written=frozenset()):
    return prove(before, model, written, 1, 1)


@pytest.mark.parametrize("level", ["identity", "hash"])
def test_a_run_says_which_level_proved_it_and_both_come_to_the_same(loaded, task, spec, folder, level):
    asked = replace(spec, proof=level)
    proof = tune(loaded, task, asked, folder(asked)).proof
    assert proof is not None
    assert proof.holds
    assert (proof.level, proof.frozen_hash is None) == (level, level == "identity")
    assert (proof.frozen_tensors, proof.tuned_tensors, proof.tuned_moved) == (30, 9, 9)


def test_what_did_not_move_is_named(loaded, spec, model):
    for before in (marks(model, loaded.model), fingerprint(model)):
        assert len(proved(before, model).tuned_unmoved) == 9
    starts = marks(model, loaded.model), fingerprint(model)
    move(model)
    assert all(proved(before, model).holds for before in starts)


def test_a_frozen_tensor_that_was_written_or_replaced_is_seen_by_identity(loaded, model):
    before = marks(model, loaded.model)
    move(model)
    frozen = next(value for value in model.parameters() if not value.requires_grad)
    kept = frozen.data
    frozen.data = kept.clone()
    assert not proved(before, model).frozen_identical
    frozen.data = kept
    assert proved(before, model).frozen_identical
    with torch.no_grad():
        frozen.add_(0.0)
    assert not proved(before, model).frozen_identical


def test_a_fused_optimizer_writes_uncounted_so_what_it_held_is_looked_at_too(loaded, model):
    value = torch.nn.Parameter(torch.ones(3))
    value.grad = torch.ones(3)
    torch.optim.AdamW([value], fused=True).step()
    assert (value.tolist() != [1.0] * 3, value._version) == (True, 0)
    before = marks(model, loaded.model)
    move(model)
    frozen = [value for value in model.parameters() if not value.requires_grad]
    assert not proved(before, model, storages(frozen[:1])).frozen_identical


def test_a_write_that_nothing_counts_is_seen_by_the_hash_alone(loaded, model):
    starts = marks(model, loaded.model), fingerprint(model)
    move(model)
    frozen = next(value for value in model.parameters() if not value.requires_grad)
    old = frozen.data.clone()
    frozen.data.mul_(2.0)
    by_identity, by_hash = (proved(before, model) for before in starts)
    frozen.data.copy_(old)
    assert by_identity.frozen_identical
    assert not by_hash.frozen_identical
