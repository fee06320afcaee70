"""Every rule of the pretend accelerator can fail: broken on purpose, in backward passes and worker threads too."""

import threading

import pytest
import torch

from lsf.lens.semantics import semantic_bases
from lsf.models.batches import TokenScores
from lsf.models.devices import FLOAT64, exact, fetched, has_float64
from tests.accelerator import (
    NAME,
    DeviceError,
    Float64Error,
    LogitsError,
    MixedDevicesError,
    PageableError,
    StateError,
    WaitError,
)
from tests.tiny import tiny_model


def scores() -> TokenScores:
    """Three tensors on the device, which LSF itself knows how to bring over."""
    ones = torch.ones(2, 3, device=NAME)
    return TokenScores(ones, ones > 0, ones > 0)


def test_a_tensor_of_the_device_is_not_on_the_cpu_and_numpy_refuses_it(accelerator):
    value = torch.ones(3, device=NAME)
    assert value.device == torch.device(f"{NAME}:0")
    with pytest.raises(TypeError, match="convert pretend"):
        value.numpy()


@pytest.mark.parametrize(
    "make",
    [
        lambda value: value.double(),
        lambda value: value.to("cpu", torch.float64),
        lambda value: value.cpu().double().to(NAME, torch.float32),
        lambda value: torch.zeros(2, dtype=torch.float64, device=NAME),
        lambda value: torch.arange(2.0, dtype=torch.float64, device=NAME),
        lambda value: value.sum(dtype=torch.float64),
    ],
    ids=["double", "on the way to the host", "on the way from it", "zeros", "arange", "a sum in it"],
)
def test_float64_is_an_error_however_it_is_made(accelerator, make):
    with pytest.raises(Float64Error):
        make(torch.ones(3, device=NAME))


def test_float64_is_allowed_in_named_files_of_a_device_that_has_it(accelerator, monkeypatch):
    head = torch.randn(60, 8, generator=torch.Generator().manual_seed(0)).to(NAME)
    monkeypatch.setattr("lsf.models.devices.FLOAT64", FLOAT64 | {NAME})
    assert has_float64(head.device)
    with pytest.raises(Float64Error, match=r"lsf/lens/semantics\.py"):
        semantic_bases(head)
    with accelerator.watched(float64=frozenset({"lsf/lens/semantics.py"})):
        bases = semantic_bases(head)
        assert bases.factor.device == head.device
        found = bases.of(torch.arange(60)).cpu()
        with pytest.raises(Float64Error, match="test_rules"):
            head.double()
    torch.testing.assert_close(found, semantic_bases(head.cpu()).of(torch.arange(60)), rtol=1e-5, atol=1e-6)


def test_waiting_more_often_than_allowed_is_an_error(accelerator):
    with accelerator.watched(waits=2) as seen:
        scores().on_host()
        scores().on_host()
        with pytest.raises(WaitError, match="the 3th wait where 2 are allowed"):
            scores().on_host()
    assert seen.waits.total() == 3


@pytest.mark.parametrize(
    "ask",
    [
        lambda value: value.sum().item(),
        lambda value: bool(value.any()),
        lambda value: value.nonzero(),
        lambda value: value[value > 0],
        lambda value: value.cpu(),
        lambda value: value.to("cpu"),
        lambda value: value.tolist(),
        lambda value: torch.equal(value, value),
        lambda value: value.unique(),
        lambda value: value.long().bincount(),
        lambda value: torch.ones(4).copy_(value.to("cpu")),
    ],
    ids="item bool nonzero mask cpu to tolist equal unique bincount copy".split(),
)
def test_every_way_of_waiting_is_seen(accelerator, monkeypatch, ask):
    monkeypatch.setattr("tests.accelerator._site", lambda: ("lsf", "lsf/somewhere.py:1"))
    with accelerator.watched(waits=0), pytest.raises(WaitError):
        ask(torch.ones(4, device=NAME))


def test_a_library_that_waits_and_is_not_listed_is_an_error(accelerator, monkeypatch):
    monkeypatch.setattr("tests.accelerator._site", lambda: ("library", "unknown/file.py:1"))
    with accelerator.watched(waits=5), pytest.raises(WaitError, match="not among LIBRARIES"):
        torch.ones(4, device=NAME).sum().item()


def test_too_many_logits_at_once_are_an_error(accelerator):
    model = tiny_model("llama").to(NAME)
    ids = torch.ones(3, 7, dtype=torch.long).to(NAME)
    with accelerator.watched(vocabulary=28, most_logits=3 * 7 * 28), torch.no_grad():
        model(input_ids=ids)
    with accelerator.watched(vocabulary=28, most_logits=3 * 7 * 28 - 1), pytest.raises(LogitsError, match="588 logits"):
        model(input_ids=ids)


def test_states_that_come_to_the_host_are_an_error_also_packed_into_bytes(accelerator):
    states = torch.ones(5, 32, device=NAME)
    with accelerator.watched(width=32, states=5) as seen:
        fetched(states, torch.arange(3, device=NAME))
        assert seen.states == 5
        with pytest.raises(StateError, match=r"10 states of width 32 came to the host, lsf/models/devices\.py"):
            fetched(torch.arange(3, device=NAME), states)


def test_an_operation_on_tensors_of_two_devices_is_an_error(accelerator):
    here, there = torch.ones(3), torch.ones(3, device=NAME)
    for mix in (
        lambda: there + here,
        lambda: there[torch.tensor([0, 1])],
        lambda: there.copy_(here),
        lambda: here.copy_(there),
    ):
        with pytest.raises((MixedDevicesError, RuntimeError), match=r"is given a|by itself|Expected all tensors"):
            mix()
    assert (there + torch.tensor(1.0)).sum().item() == 6.0  # a single number goes along, as on real ones


def test_a_copy_from_main_memory_that_is_not_waited_for_is_an_error(accelerator):
    with pytest.raises(PageableError, match="not waited for, tests/devices/test_rules"):
        torch.ones(3).to(NAME, non_blocking=True)
    assert torch.ones(3).to(NAME).sum().item() == 3


def test_a_rule_broken_in_a_backward_pass_is_an_error_of_the_pass(accelerator):
    weight = torch.ones(3, device=NAME).requires_grad_()
    doubled = weight * 2
    doubled.register_hook(lambda gradient: gradient.double().float())
    with pytest.raises(Float64Error, match="in a backward pass"), accelerator.watched() as seen:
        doubled.sum().backward()
    assert any(name.startswith("Dummy") for name in seen.threads)  # the device's own autograd thread


def test_a_rule_broken_in_a_worker_thread_is_an_error_there(accelerator):
    caught: list[DeviceError] = []

    def work() -> None:
        try:
            exact(torch.ones(3, device=NAME)).double()
        except DeviceError as error:
            caught.append(error)

    worker = threading.Thread(target=work, name="lsf-worker")
    worker.start()
    worker.join()
    assert [type(error) for error in caught] == [Float64Error]


def test_a_model_has_the_cpus_gradients_on_the_device(accelerator):
    ids = torch.arange(14).reshape(2, 7)
    here, there = tiny_model("llama"), tiny_model("llama").to(NAME)
    here(input_ids=ids, labels=ids).loss.backward()
    there(input_ids=ids.to(NAME), labels=ids.to(NAME)).loss.backward()
    for one, other in zip(here.parameters(), there.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad.cpu(), rtol=1e-4, atol=1e-5)
