"""C22 in torch: a store in place has no derivative, and says so instead of losing a gradient."""

from __future__ import annotations

import contextlib
import re

import numpy as np
import pytest
import torch

import bridges
from functional_paged import SlotMapping, SpecError

pytestmark = pytest.mark.usefixtures("cpu_backend")

SHAPE = (4, 2, 3, 5)


def spec() -> SlotMapping:
    return SlotMapping(torch.tensor([7, 2]))


def tensors(needs_grad: str = "") -> dict[str, torch.Tensor]:
    made = {"cache": torch.zeros(SHAPE), "states": torch.ones(2, 2, 5)}
    if needs_grad:
        made[needs_grad].requires_grad_()
    return made


def message(name: str) -> str:
    return (
        f"C22: {name} must not require grad, since a store in place has no derivative; call it "
        f"under torch.no_grad() or with {name}.detach(), or differentiate "
        "functional_paged.store_single"
    )


def stored(cache: torch.Tensor) -> int:
    return int(cache.detach().count_nonzero())


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_what_requires_grad_is_refused(name, planned):
    made = tensors(name)
    given = bridges.plan(spec(), cache=made["cache"], num_tokens=2) if planned else spec()
    with pytest.raises(SpecError) as error:
        bridges.store_single_(made["cache"], made["states"], given)
    assert str(error.value) == message(name)
    assert error.value.clause == "C22"
    assert stored(made["cache"]) == 0


@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_a_result_of_autograd_is_refused_like_a_leaf(name):
    made = tensors(name)
    made[name] = made[name] * 1.0
    assert not made[name].is_leaf
    with pytest.raises(SpecError, match=re.escape(message(name))):
        bridges.store_single_(made["cache"], made["states"], spec())


@pytest.mark.parametrize("name", ["cache", "states"])
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_c22_fine_where_grad_mode_is_off(mode, name):
    made = tensors(name)
    with mode():
        assert bridges.store_single_(**made, index_spec_or_plan=spec()) is made["cache"]
    assert stored(made["cache"]) == 20
    assert made["cache"].grad_fn is None


@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_fine_where_grad_mode_is_off_in_a_strided_cache(name):
    # Not contiguous, so the call is looked at twice.
    made = tensors()
    made["cache"] = torch.zeros(4, 3, 2, 5).transpose(1, 2)
    made[name].requires_grad_()
    with torch.no_grad():
        bridges.store_single_(**made, index_spec_or_plan=spec())
    assert stored(made["cache"]) == 20


@pytest.mark.parametrize("name", ["cache", "states"])
def test_c22_fine_with_detach(name):
    made = tensors(name)
    view = made["cache"].detach()
    bridges.store_single_(view, made["states"].detach(), spec())
    assert stored(made["cache"]) == 20


def test_c22_grad_mode_alone_is_no_reason():
    assert torch.is_grad_enabled()
    made = tensors()
    bridges.store_single_(**made, index_spec_or_plan=spec())
    assert stored(made["cache"]) == 20


@pytest.mark.parametrize("store_mode", [contextlib.nullcontext, torch.inference_mode])
@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
def test_caches_made_in_inference_mode(store_mode, planned):
    # Serving engines make their caches, and often all else, under inference mode.
    with torch.inference_mode():
        made, given = tensors(), spec()
        if planned:
            given = bridges.plan(given, cache=made["cache"], num_tokens=2)
    with store_mode():
        bridges.store_single_(**made, index_spec_or_plan=given)
    assert stored(made["cache"]) == 20


def test_autograd_notices_that_a_saved_cache_has_changed():
    # A store that hid its write from autograd would make this gradient silently wrong.
    made, weight = tensors(), torch.ones(SHAPE, requires_grad=True)
    product = (made["cache"] * weight).sum()
    bridges.store_single_(**made, index_spec_or_plan=spec())
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


def test_autograd_reads_what_was_stored_before():
    made, weight = tensors(), torch.ones(SHAPE, requires_grad=True)
    bridges.store_single_(**made, index_spec_or_plan=spec())
    (made["cache"] * weight).sum().backward()
    assert weight.grad is not None
    np.testing.assert_array_equal(weight.grad.numpy(), made["cache"].numpy())
    assert stored(made["cache"]) == 20
