"""A result depends on the values at the time of the call, though JAX runs it later."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

from functional_paged import (
    BlockTable,
    ChunkPlan,
    SlotMapping,
    load_single,
    reference,
    store_single,
    store_single_donated,
)
from functional_paged.conformance.run.compare import compare

SHAPE = (5, 2, 3, 7)
NUM_TOKENS = 3
SPECS = {
    "block_table": BlockTable(np.int32([[4, 2], [1, 0]]), np.int32([2, 5]), np.int32([0, 2, 3])),
    "decode": BlockTable(np.int32([[4], [1], [3]]), np.int32([2, 0, 1])),
    "chunks": ChunkPlan(np.int32([[0, 4, 1, 2], [2, 0, 0, 1]])),
    "slots": SlotMapping(np.int32([14, 6, 0])),
    "int64 slots": SlotMapping(np.int64([14, 6, 0])),
}


def buffer(array: np.ndarray) -> np.ndarray:
    """A copy at an address that JAX on CPU takes over without a copy of its own."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    start = -memory.ctypes.data % 64
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def buffers(tree: Any) -> Any:
    return jax.tree.map(buffer, tree) if isinstance(tree, tuple) else tree.map(buffer)


def numbers(*shape: int) -> np.ndarray:
    return np.arange(1, 1 + np.prod(shape), dtype=np.float32).reshape(shape)


CACHE, STATES = numbers(*SHAPE), -numbers(NUM_TOKENS, 2, 7)


@jax.jit
def _after_work(array: Any, work: Any) -> Any:
    work = jax.lax.fori_loop(0, 200, lambda _, x: jnp.cos(x), work)
    # The sum is there since JAX on CPU waits for a program that looks cheap; loops do not count.
    return array + (work[0] > 2).astype(array.dtype), work + 1


def late(array: Any) -> Any:
    """The array, some milliseconds after it was asked for: what waits for it runs later."""
    return _after_work(array, jnp.ones(20_000))[0]


def overwritten(call: Callable[..., Any], *args: Any, given: Any) -> Any:
    """What a compiled call gives whose arrays `given` hold ones as soon as it has returned."""
    jax.block_until_ready(call(*args))
    restore = [(array, array.copy()) for array in given]
    result = call(*args)
    for array in given:
        array[...] = 1
    jax.block_until_ready(result)
    for array, before in restore:
        array[...] = before
    return result


def assert_stored(got: Any, spec: Any) -> None:
    want = reference.store_single(CACHE, STATES, spec)
    assert compare("cache", np.asarray(got), want, CACHE) is None


def assert_loaded(got: Any, spec: Any) -> None:
    want = reference.load_single(CACHE, spec, NUM_TOKENS)
    assert compare("states", np.asarray(got), want, want) is None


in_a_jit = jax.jit(lambda *args: store_single(*args))
CALLS: dict[str, Callable[..., Any]] = {
    "store": lambda cache, states, spec: store_single(cache, late(states), spec),
    "donated": lambda cache, states, spec: store_single_donated(cache, late(states), spec),
    "jax.jit": lambda cache, states, spec: in_a_jit(cache, late(states), spec),
}


@pytest.mark.parametrize("form", SPECS)
@pytest.mark.parametrize("call", CALLS)
def test_index_arrays_may_be_overwritten_after_a_store(call, form):
    spec = buffers(SPECS[form])

    def store(states: np.ndarray) -> Any:
        return CALLS[call](jnp.array(CACHE), states, spec)

    assert_stored(overwritten(store, STATES, given=spec.arrays().values()), SPECS[form])


@pytest.mark.parametrize("form", SPECS)
def test_index_arrays_may_be_overwritten_after_a_load(form):
    spec = buffers(SPECS[form])

    def load(cache: np.ndarray) -> Any:
        return load_single(late(cache), spec, NUM_TOKENS)

    assert_loaded(overwritten(load, CACHE, given=spec.arrays().values()), SPECS[form])


@pytest.mark.parametrize("call", ["store", "donated"])
def test_a_cache_may_be_overwritten_after_a_store(call):
    spec, cache = SPECS["slots"], buffer(CACHE)
    assert_stored(overwritten(CALLS[call], cache, STATES, spec, given=[cache]), spec)


@pytest.mark.parametrize("store", [store_single, store_single_donated], ids=["store", "donated"])
def test_states_may_be_overwritten_after_a_store(store):
    spec, states = SPECS["slots"], buffer(STATES)

    def call(cache: np.ndarray) -> Any:
        return store(late(cache), states, spec)

    assert_stored(overwritten(call, CACHE, given=[states]), spec)


def test_a_cache_may_be_overwritten_after_a_load():
    cache, slots = buffer(CACHE), np.int32([14, 6, 0])

    def call(cache: np.ndarray) -> Any:
        return load_single(cache, SlotMapping(late(slots)), NUM_TOKENS)

    assert_loaded(overwritten(call, cache, given=[cache]), SPECS["slots"])


def test_c17_a_donated_numpy_cache_is_left_alone():
    cache = buffer(CACHE)
    assert_stored(store_single_donated(cache, STATES, SPECS["slots"]), SPECS["slots"])
    assert compare("cache", cache, CACHE, CACHE) is None


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="only CPU shares memory with NumPy")
def test_jax_reads_what_is_written_after_a_call():
    # That the tests above can fail. Several times, since the machine may be busy elsewhere.
    states, add = buffer(STATES), jax.jit(lambda zeros, states: zeros + states)
    zeros = np.zeros_like(STATES)

    def is_read_late() -> bool:
        got = overwritten(lambda states: add(late(zeros), states), states, given=[states])
        return bool((np.asarray(got) == 1).all())

    assert any(is_read_late() for _ in range(10))
