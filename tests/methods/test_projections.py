"""The maps from few numbers to many: against written-out matrices, their own transposes, and what they promise."""

import pytest
import scipy.linalg
import torch

from lsf.errors import BadInputError
from lsf.methods.catalogue import options_of
from lsf.methods.intrinsic import (
    KINDS,
    Fastfood,
    KeptFastfood,
    counters,
    gaussians,
    hadamard,
    hashed,
    key_of,
    permutation,
    project,
    signs,
)
from lsf.methods.registry import METHODS
from lsf.plans.plan import Plan, full_plan
from tests.methods.conftest import context_for, tuned_values

PLAN = Plan("tiny", 4, (1, 3))
CPU = torch.device("cpu")


@pytest.mark.parametrize("n", [1, 2, 8, 64, 128, 2048])
def test_the_walsh_hadamard_transform_is_the_matrix_of_scipy(n):
    x = torch.randn(n, dtype=torch.float64, generator=torch.Generator().manual_seed(n))
    torch.testing.assert_close(hadamard(x), torch.from_numpy(scipy.linalg.hadamard(n)).double() @ x)


def test_fastfood_is_its_formula_written_out_with_matrices():
    d, n, length = 5, 20, 32
    fastfood = Fastfood(d, n, "key")
    h = torch.from_numpy(scipy.linalg.hadamard(length)).double()
    b, order, g, scale = fastfood._parts(torch.zeros(1, dtype=torch.float64))
    shuffle = torch.eye(length, dtype=torch.float64)[order]
    matrix = h @ torch.diag(g) @ shuffle @ h @ torch.diag(b)
    expected = (length * (g**2).sum()).sqrt() * (n / length) ** 0.5
    assert scale == pytest.approx(expected.item())
    v = torch.arange(1.0, d + 1, dtype=torch.float64)
    torch.testing.assert_close(fastfood.apply(v), (matrix[:n, :d] / expected) @ v)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "n"), [(200, 16_384), (150, 5_000)])
def test_the_norm_is_kept_within_five_percent(kind, d, n):
    for seed in range(5):
        v = torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        ratio = KINDS[kind](d, n, str(seed)).apply(v).norm() / v.norm()
        assert abs(ratio - 1) < 0.05


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("d", "n"), [(5, 20), (30, 12), (3, 1), (16, 16)])
def test_the_gradient_is_right_in_float64_also_where_d_is_larger_than_the_tensor(kind, d, n):
    v = torch.randn(d, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project(x, KINDS[kind](d, n, "a")), v)


def test_d_larger_than_a_tensors_own_power_of_two_lengthens_the_transform():
    assert Fastfood(5, 20, "k").length == 32
    assert Fastfood(100, 20, "k").length == 128
    moved = Fastfood(100, 20, "k").apply(torch.eye(100, dtype=torch.float64)[99])
    assert moved.abs().sum() > 0  # the last coordinate is not cut off


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_key_gives_the_same_projection_and_another_key_another(kind):
    v = torch.ones(7)
    one, same, other = (KINDS[kind](7, 50, key).apply(v) for key in ("0/1", "0/1", "0/2"))
    assert torch.equal(one, same)
    assert (one - other).abs().max() > 0.01


def test_draws_have_the_moments_they_promise():
    first, second = key_of("moments")[:2]
    bits = hashed(counters(2**18, CPU), first, second)
    normal, sign = gaussians(bits), signs(bits)
    assert abs(normal.mean()) < 0.01 and abs(normal.std() - 1) < 0.01 and abs(normal.pow(4).mean() - 3) < 0.1
    assert set(sign.unique().tolist()) == {-1.0, 1.0} and abs(sign.mean()) < 0.01
    assert abs((normal[1:] * normal[:-1]).mean()) < 0.01


@pytest.mark.parametrize("n", [1, 2, 4, 256, 4096])
def test_a_permutation_names_every_place_once(n):
    order = permutation(n, key_of("order", n), CPU)
    assert sorted(order.tolist()) == list(range(n))
    if n >= 256:
        assert (order == torch.arange(n)).float().mean() < 0.05


@pytest.mark.parametrize("name", ["did", "said"])
def test_theta_is_theta_0_where_v_is_zero_and_theta_0_plus_lambda_p_v_elsewhere(name, gpt2):
    model = METHODS[name].prepare(gpt2, PLAN, context_for(name, d=40))
    block = "transformer.h.1.mlp.c_fc"
    base = gpt2.model.get_submodule(block).weight
    assert torch.equal(model.get_submodule(block).weight, base)
    coordinates = model.intrinsic
    with torch.no_grad():
        coordinates.v.normal_(generator=torch.Generator().manual_seed(0))
        step = (model.get_submodule(block).weight - base).clone()
        assert step.norm() == pytest.approx(coordinates.v.norm().item(), rel=0.1)
        if name == "did":
            assert coordinates.lambdas is None and len(coordinates.v) == 40
            return
        assert len(coordinates.v) == 38 and len(coordinates.lambdas) == 2
        other = model.get_submodule("transformer.h.3.mlp.c_fc").weight.clone()
        coordinates.lambdas[0] = 3.0
        torch.testing.assert_close(model.get_submodule(block).weight - base, 3 * step, atol=1e-5, rtol=1e-4)
        assert torch.equal(model.get_submodule("transformer.h.3.mlp.c_fc").weight, other)


def test_said_pays_for_one_lambda_per_block_and_one_each_for_embedding_and_head(gpt2, loaded):
    for base, groups in ((gpt2, 4 + 2), (loaded, 4 + 2)):
        model = METHODS["said"].prepare(base, full_plan("tiny", 4), context_for("said", d=100))
        assert len(model.intrinsic.lambdas) == groups
        assert sum(value.numel() for value in tuned_values(model).values()) == 100


@pytest.mark.parametrize(("name", "d", "least"), [("did", 10**6, 1), ("said", 10**6, 3), ("said", 2, 3)])
def test_d_above_the_number_of_planned_values_or_below_the_lambdas_is_refused(name, d, least, gpt2):
    total = METHODS["full"].count(gpt2, PLAN, None)
    sentence = rf"The method {name}: d is {d}; .* must lie between {least} and {total}, the number of planned values"
    with pytest.raises(BadInputError, match=sentence):
        METHODS[name].count(gpt2, PLAN, options_of(name, {"d": d}))


@pytest.mark.parametrize(("d", "n"), [(5, 20), (30, 12), (16, 16)])
def test_kept_draws_give_the_very_numbers_of_those_drawn_anew(d, n):
    anew, kept = Fastfood(d, n, "key"), KeptFastfood(d, n, "key")
    for dtype in (torch.float32, torch.float64, torch.float32):
        v, g = torch.arange(1, d + 1, dtype=dtype), torch.arange(1, n + 1, dtype=dtype)
        assert torch.equal(kept.apply(v), anew.apply(v)) and torch.equal(kept.adjoint(g), anew.adjoint(g))
    v = torch.ones(d, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: project(x, kept), v)


@pytest.mark.parametrize("name", ["did", "said"])
def test_every_seed_and_every_tensor_has_its_own_projection(name, gpt2):
    steps = []
    for seed in (0, 1):
        model = METHODS[name].prepare(gpt2, PLAN, context_for(name, seed=seed, d=40))
        with torch.no_grad():
            model.intrinsic.v.fill_(1.0)
            for block in (1, 3):
                place = f"transformer.h.{block}.mlp.c_fc"
                steps.append((model.get_submodule(place).weight - gpt2.model.get_submodule(place).weight).flatten())
    for i, one in enumerate(steps):
        for other in steps[:i]:
            assert abs(torch.nn.functional.cosine_similarity(one, other, dim=0)) < 0.1


def test_the_projection_kind_asked_for_is_the_one_used(gpt2):
    place, steps = "transformer.h.1.mlp.c_fc", []
    for kind in ("fastfood", "dense", "sparse"):
        model = METHODS["did"].prepare(gpt2, PLAN, context_for("did", d=40, projection=kind))
        with torch.no_grad():
            model.intrinsic.v.fill_(1.0)
            steps.append((model.get_submodule(place).weight - gpt2.model.get_submodule(place).weight).flatten())
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert abs(torch.nn.functional.cosine_similarity(steps[one], steps[other], dim=0)) < 0.1
