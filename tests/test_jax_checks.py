"""Stores of one kind are checked once, and what passed lets nothing else pass."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from functional_paged import BlockTable, SlotMapping, SpecError, store_single, store_single_donated
from functional_paged._jax import trees
from tests.helpers import difference, filled, i32, on_device

CACHE, STATES = filled((5, 2, 3, 7), "f32", 1), filled((3, 2, 7), "f32", 2)
TABLE, CONTEXT = i32([4], [0], [2]), i32(1, -1, 2)
SPEC = BlockTable(TABLE, CONTEXT)
STORES = {"pure": store_single, "donated": store_single_donated}


@pytest.fixture(params=STORES)
def store(request, monkeypatch) -> Any:
    """A store that has not passed anything."""
    monkeypatch.setattr(trees, "_passed", set())
    return STORES[request.param]


@pytest.mark.parametrize("cache", [CACHE, (CACHE, CACHE[..., :1])], ids=["array", "tree"])
def test_a_kind_of_store_is_checked_once(cache, store, monkeypatch):
    states = jax.tree.map(lambda leaf: STATES[..., : leaf.shape[3]], cache)
    store(*on_device((cache, states, SPEC)))
    monkeypatch.setattr(trees, "_check_leaves", None)
    got = store(*on_device((cache, states, SPEC)))
    leaves = map(jax.tree.leaves, (got, cache, states))
    for leaf, before, new in zip(*leaves, strict=True):
        assert difference(leaf, before, new, SPEC) is None
    with pytest.raises(TypeError):
        store(*on_device((cache, states, SlotMapping(i32(0, 1, 2)))))


# Arguments one change away from those of the store that passed.
BAD = {
    "C1 axes of cache": (CACHE[0], STATES, SPEC),
    "C1 heads": (CACHE, STATES[:, :1], SPEC),
    "C1 head_dim": (CACHE, STATES[..., :3], SPEC),
    "C1 tree": ((CACHE,), STATES, SPEC),
    "C1 batch": (CACHE, STATES, BlockTable(TABLE[:2], CONTEXT)),
    "C1 no spec": (CACHE, STATES, (TABLE, CONTEXT)),
    "C2 cache": (CACHE.view(np.int32), STATES, SPEC),
    "C2 states": (CACHE, STATES.view(np.int32), SPEC),
    "C4 dtype": (CACHE, STATES, BlockTable(TABLE, CONTEXT.astype(np.int16))),
    # The same arrays in other fields.
    "C4 no table": (CACHE, STATES, BlockTable(None, TABLE, CONTEXT)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("bad", BAD)
def test_what_passed_lets_nothing_else_pass(bad, store):
    good = on_device((CACHE, STATES, SPEC))
    assert difference(store(*good), CACHE, STATES, SPEC) is None
    given = on_device(BAD[bad])
    for _ in range(2):  # a refusal is not remembered as something that passed
        with pytest.raises(SpecError) as error:
            store(*given)
        assert error.value.clause == bad.split()[0]
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(given[0]))


@pytest.mark.skipif(len(jax.devices()) < 2, reason="needs two devices")
def test_c3_what_passed_on_one_device_does_not_pass_on_two(store):
    here, there = jax.devices()[0], jax.devices()[-1]
    _, states, spec = on_device((CACHE, STATES, SPEC))
    store(jax.device_put(CACHE.copy(), here), states, spec)
    store(jax.device_put(CACHE.copy(), here), jax.device_put(states, here), spec)
    with pytest.raises(SpecError, match="C3: states must be on the device of cache"):
        store(jax.device_put(CACHE.copy(), here), jax.device_put(states, there), spec)


def test_c17_what_passed_is_refused_once_it_is_gone():
    cache, states, spec = on_device((CACHE, STATES, SPEC))
    store_single_donated(cache, states, spec)
    with pytest.raises(SpecError, match="C17: leaf 0 of cache must be alive"):
        store_single_donated(cache, states, spec)


def test_c2_what_passed_with_64_bits_does_not_pass_without(store):
    enable: Any = getattr(jax, "enable_x64", contextlib.nullcontext)
    with enable(True):
        given = on_device((np.zeros((5, 2, 3, 7)), np.ones((3, 2, 7)), SPEC))
        if given[0].dtype != np.float64:
            pytest.skip("this JAX has no such context")
        store(jnp.array(given[0], copy=True), *given[1:])
    with pytest.raises(SpecError, match=r"C2: cache\.dtype = float64 must be kept"):
        store(*given)


def test_no_more_is_remembered_than_1024_kinds(store, monkeypatch):
    monkeypatch.setattr(trees, "_passed", set(range(1024)))
    given = on_device((CACHE, STATES, SPEC))
    store(*given)
    assert len(trees._passed) == 1
