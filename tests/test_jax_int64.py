"""64-bit slots and dtypes, where JAX has 64-bit types and where it would narrow them."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    BlockTable,
    ChunkPlan,
    SlotMapping,
    SpecError,
    store_single,
    store_single_donated,
)
from tests.helpers import (
    FORMS,
    SHAPE,
    SPEC,
    difference,
    inputs,
    jax_stores,
    on_device,
)

WAYS = jax_stores()


def with_x64() -> contextlib.AbstractContextManager[Any]:
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # where older versions have it

    return enable_x64()


# 2**32 + 1 and 2**32 are 1 and 0 in 32 bits, -(2**32) + 3 is 3, -(2**31) - 1 is a large slot.
LONG_SLOTS = SlotMapping(np.int64([2**32 + 1, 4, 2**32, -(2**32) + 3, 14, -(2**31) - 1, 2**63 - 1]))


def closed_over(cache, states, spec):
    return jax.jit(lambda cache, states: store_single(cache, states, spec))(cache, states)


@pytest.mark.parametrize(
    "store",
    [store_single, store_single_donated, closed_over],
    ids=["eager", "donated", "closed over"],
)
def test_c5_numpy_int64_slots_do_not_wrap(store):
    cache, states = inputs(num_tokens=7)
    got = store(*on_device((cache, states)), LONG_SLOTS)
    assert difference(got, cache, states, LONG_SLOTS) is None


def scan_over_specs(cache, states, spec):
    # Under the options, so that the scan itself keeps the bits.
    def step(cache, spec):
        return store_single(cache, states, spec), None

    scan = functional_paged.jit(lambda cache, specs: jax.lax.scan(step, cache, specs)[0])
    return scan(cache, SlotMapping(spec.slots[None]))


# Callers whose own call takes the spec apart, so that JAX would wrap its slots.
OWN_CALLS = {
    "jax.jit": WAYS["jax.jit"],
    "functional_paged.jit": WAYS["functional_paged.jit"],
    "vmap": lambda c, s, spec: jax.vmap(store_single, (0, 0, None))(c[None], s[None], spec)[0],
    "vmap over specs": lambda c, s, spec: jax.vmap(store_single, (None, None, 0))(
        c, s, SlotMapping(spec.slots[None])
    )[0],
    "scan": scan_over_specs,
}


@pytest.mark.parametrize("call", OWN_CALLS)
def test_c5_numpy_int64_slots_that_jax_would_wrap_are_refused(call):
    cache, states = inputs(num_tokens=7)
    given = on_device((cache, states))
    with pytest.raises(SpecError, match=r"^C5: slots\[.*0\] = 4294967297 must fit int32 in a JAX"):
        OWN_CALLS[call](*given, LONG_SLOTS)
    assert not any(array.is_deleted() for array in given)


@pytest.mark.parametrize("call", OWN_CALLS)
def test_c5_numpy_int64_slots_that_fit_are_stored(call):
    cache, states = inputs(num_tokens=7)
    spec = SlotMapping(np.int64([2**31 - 1, 4, 0, -(2**31), 14, -1, 15]))
    got = OWN_CALLS[call](*on_device((cache, states)), spec)
    assert difference(got, cache, states, spec) is None


@pytest.mark.parametrize("way", WAYS)
def test_c5_int64_slots_with_x64(way):
    cache, states = inputs(num_tokens=7)
    with with_x64():
        args = on_device((cache, states, LONG_SLOTS))
        assert args[2].slots.dtype == jnp.int64
        assert difference(WAYS[way](*args), cache, states, LONG_SLOTS) is None


def test_c5_numpy_int64_slots_are_not_cut_with_x64():
    spec = SlotMapping(np.int64([2**31, 0]))
    with with_x64():
        program = jax.make_jaxpr(lambda c, s: store_single(c, s, spec))(*outline(2**16, 2**16))
    (slots,) = map(np.asarray, program.consts)
    assert slots.dtype == np.int64
    assert slots.tolist() == [2**31, 0]


@pytest.mark.parametrize("form", FORMS)
def test_c16_int32_specs_with_x64(form):
    cache, states = inputs()
    with with_x64():
        got = store_single(*on_device((cache, states, FORMS[form])))
        assert difference(got, cache, states, FORMS[form]) is None


LARGE = {
    "BlockTable": BlockTable(np.zeros((2, 3), np.int32), np.zeros(2, np.int32)),
    "ChunkPlan": ChunkPlan(np.zeros((2, 4), np.int32)),
    "int64 SlotMapping": SlotMapping(np.zeros(2, np.int64)),
    "int32 SlotMapping": SlotMapping(np.zeros(2, np.int32)),
}


def outline(num_blocks: int, block_size: int) -> tuple[Any, Any]:
    """Cache and states without memory."""
    cache = jax.ShapeDtypeStruct((num_blocks, 1, block_size, 1), jnp.int8)
    return cache, jax.ShapeDtypeStruct((2, 1, 1), jnp.int8)


@pytest.mark.parametrize("store", [store_single, store_single_donated], ids=["pure", "donated"])
@pytest.mark.parametrize("form", LARGE)
def test_c5_slots_past_31_bits_need_x64(form, store):
    def shape_of(num_blocks, block_size):
        cache, states = outline(num_blocks, block_size)
        return jax.eval_shape(lambda c, s: store_single(c, s, LARGE[form]), cache, states).shape

    with pytest.raises(SpecError) as error:
        shape_of(2**16, 2**15)
    assert error.value.clause == "C5"
    assert str(error.value) == (
        "C5: num_blocks * block_size must be < 2**31 where 64-bit integers are off "
        "(JAX: enable jax_enable_x64), got 2147483648"
    )
    assert shape_of(2**16 - 1, 2**15) == (2**16 - 1, 1, 2**15, 1)
    assert shape_of(2**31 - 1, 1) == (2**31 - 1, 1, 1, 1)
    with with_x64():
        assert shape_of(2**16, 2**15) == (2**16, 1, 2**15, 1)


@pytest.mark.parametrize("dtype", [np.float64, np.int64])
def test_c2_a_dtype_that_jax_narrows_needs_x64(dtype):
    cache = np.arange(1, 1 + math.prod(SHAPE)).astype(dtype).reshape(SHAPE) + 2**40
    states = -np.arange(1, 1 + 12 * 14).astype(dtype).reshape(12, 2, 7)
    name = np.dtype(dtype).name
    for store in (store_single, store_single_donated):
        with pytest.raises(SpecError) as error:
            store(cache, states, SPEC)
        assert error.value.clause == "C2"
        assert str(error.value) == (
            f"C2: cache.dtype = {name} must be kept, but JAX narrows it; enable jax_enable_x64"
        )
        with with_x64():
            got = store(*on_device((cache, states, SPEC)))
            assert got.dtype == dtype
            assert difference(got, cache, states, SPEC) is None
