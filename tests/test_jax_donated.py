"""A donated cache is written in place: no copy of it anywhere, in any dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    PAD,
    SlotMapping,
    SpecError,
    load_single,
    reference,
    store_single,
    store_single_donated,
)
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.cases.steps import table
from functional_paged.conformance.run.compare import compare
from tests.helpers import filled, on_cpu, on_device, specs_by_form

MIB = 2**20
KV_HEADS, BLOCK_SIZE, HEAD_DIM = 2, 16, 64
STEP = table([[4, PAD, 2], [0, 1, 3], [3, 0, 1]], [1, -1, 39], [20, 2, 11])
SPEC = STEP.index_spec
FORMS = specs_by_form(STEP, (5, KV_HEADS, BLOCK_SIZE, HEAD_DIM))
WIDENED = ["bf16", "f8e4m3fn", "f8e5m2"]

# Older ones copy a cache of any dtype, and can't tell a trace of its jit's options.
writes_in_place = pytest.mark.skipif(
    not hasattr(jax, "make_user_context"), reason="this JAX copies what it scatters to, on CPU"
)


def cache_and_states(dtype: str, salt: int = 0) -> tuple[np.ndarray, np.ndarray]:
    cache = filled((5, KV_HEADS, BLOCK_SIZE, HEAD_DIM), dtype, 2 * salt + 1)
    return cache, filled((STEP.num_tokens, KV_HEADS, HEAD_DIM), dtype, 2 * salt + 2)


def outline(dtype: str, mib: int = 64) -> tuple[Any, Any]:
    """A cache of so many MiB and the states of a step, without memory."""
    block_bytes = KV_HEADS * BLOCK_SIZE * HEAD_DIM * DTYPES[dtype].itemsize
    shape = (mib * MIB // block_bytes, KV_HEADS, BLOCK_SIZE, HEAD_DIM)
    states = (STEP.num_tokens, KV_HEADS, HEAD_DIM)
    return jax.ShapeDtypeStruct(shape, DTYPES[dtype]), jax.ShapeDtypeStruct(states, DTYPES[dtype])


def memory(jitted: Any, *args: Any) -> Any:
    return jitted.lower(*args).compile().memory_analysis()


@writes_in_place
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_store_takes_the_memory_of_its_cache_and_no_more(dtype):
    used = memory(store_single_donated, *outline(dtype), SPEC)
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB


@writes_in_place
@pytest.mark.parametrize("form", ["chunks", "slots"])
def test_a_store_by_the_other_forms_takes_no_more(form):
    used = memory(store_single_donated, *outline("bf16"), FORMS[form])
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB


@on_cpu
@pytest.mark.parametrize("dtype", WIDENED)
def test_a_plain_jit_with_donation_copies_the_cache(dtype):
    # The bound of the tests above is one that a store can miss: this is the obvious way.
    used = memory(jax.jit(store_single, donate_argnums=0), *outline(dtype), SPEC)
    assert used.temp_size_in_bytes >= 64 * MIB


@writes_in_place
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype not in WIDENED])
def test_a_plain_jit_with_donation_copies_no_cache_of_another_dtype(dtype):
    used = memory(jax.jit(store_single, donate_argnums=0), *outline(dtype), SPEC)
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB


@on_cpu
def test_the_options_alone_do_not_spare_the_copy():
    # Why `functional_paged.jit` is more than `compiler_options`.
    options = functional_paged.jit.compiler_options()
    plain = jax.jit(store_single, donate_argnums=0, compiler_options=options)
    assert memory(plain, *outline("bf16"), SPEC).temp_size_in_bytes >= 64 * MIB


@writes_in_place
def test_an_inner_jit_that_was_traced_elsewhere_first_copies_nothing():
    # JAX caches the inner trace, and the scatter that keeps bits elsewhere copies here.
    inner = jax.jit(lambda cache, states: store_single(cache, states, SPEC))
    args = outline("bf16")
    memory(inner, *args)
    memory(jax.jit(lambda *args: inner(*args)), *args)
    step = functional_paged.jit(lambda *args: inner(*args), donate_argnums=0)
    used = memory(step, *args)
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_result_lies_in_the_buffer_of_the_cache(dtype):
    cache, states = cache_and_states(dtype)
    given, given_states, spec = on_device((cache, states, SPEC))
    pointer = given.unsafe_buffer_pointer()
    got = store_single_donated(given, given_states, spec)
    assert got.unsafe_buffer_pointer() == pointer
    assert given.is_deleted()
    want = reference.store_single(cache, states, SPEC)
    assert compare("cache", np.asarray(got), want, cache) is None
    # C17 but for the donation.
    assert compare("states", np.asarray(given_states), states, states) is None
    assert not any(array.is_deleted() for array in jax.tree.leaves(spec))


def test_c17_the_pure_store_does_not_take_the_buffer():
    cache, states = on_device(cache_and_states("f32"))
    for store in (store_single, functional_paged.jit(store_single)):
        got = store(cache, states, SPEC)
        assert not cache.is_deleted()
        assert got.unsafe_buffer_pointer() != cache.unsafe_buffer_pointer()


def test_every_cache_of_a_tree_is_donated():
    pairs = [cache_and_states("bf16", salt=0), cache_and_states("i8", salt=1)]
    caches, states = on_device(tuple(zip(*pairs, strict=True)))
    pointers = [cache.unsafe_buffer_pointer() for cache in caches]
    got = store_single_donated(caches, states, SPEC)
    assert [cache.unsafe_buffer_pointer() for cache in got] == pointers
    assert all(cache.is_deleted() for cache in caches)


@pytest.mark.parametrize(
    ("states", "spec", "clause"),
    [
        (np.zeros((3, 1, HEAD_DIM), np.float32), SlotMapping(np.int32([0, 1, 2])), "C1"),
        (np.zeros((3, KV_HEADS, HEAD_DIM), np.float16), SlotMapping(np.int32([0, 1, 2])), "C2"),
        (np.zeros((3, KV_HEADS, HEAD_DIM), np.float32), SlotMapping(np.int16([0, 1, 2])), "C4"),
    ],
    ids=["C1", "C2", "C4"],
)
def test_an_error_donates_nothing(states, spec, clause):
    cache, _ = cache_and_states("f32")
    given = on_device(cache)
    with pytest.raises(SpecError) as error:
        store_single_donated(given, states, spec)
    assert error.value.clause == clause
    assert not given.is_deleted()
    assert compare("cache", np.asarray(given), cache, cache) is None
    twin = np.zeros((3, KV_HEADS, HEAD_DIM), np.float32)
    store_single_donated(given, twin, SlotMapping(np.int32([0, 1, 2])))
    assert given.is_deleted()


def decode_step(caches: Any, states: Any, spec: Any) -> tuple[Any, Any]:
    """Two layers, each of which stores K and V and reads them back, as attention would."""
    stored, read = [], []
    for layer, new in zip(caches, states, strict=True):
        stored.append(store_single(layer, new, spec))
        read.append(load_single(stored[-1], spec, STEP.num_tokens))
    return stored, read


def two_layers(dtype: str) -> tuple[Any, Any]:
    """Caches and states of K and V in two layers; no two have the same bits."""
    layers = [
        [cache_and_states(dtype, salt=2 * layer + kv) for kv in range(2)] for layer in range(2)
    ]
    caches = [tuple(cache for cache, _ in layer) for layer in layers]
    return caches, [tuple(states for _, states in layer) for layer in layers]


step_in_place = functional_paged.jit(decode_step, donate_argnums=0)


@writes_in_place
@pytest.mark.parametrize("dtype", ["f32", "i8", *WIDENED])
def test_a_decode_step_of_two_layers_copies_no_cache(dtype):
    cache, states = outline(dtype, mib=16)
    args = ([(cache, cache)] * 2, [(states, states)] * 2, SPEC)
    used = memory(step_in_place, *args)
    assert used.alias_size_in_bytes == 4 * 16 * MIB
    assert used.temp_size_in_bytes < MIB


@on_cpu
def test_a_decode_step_in_a_plain_jit_copies():
    cache, states = outline("bf16", mib=16)
    args = ([(cache, cache)] * 2, [(states, states)] * 2, SPEC)
    used = memory(jax.jit(decode_step, donate_argnums=0), *args)
    assert used.temp_size_in_bytes >= 16 * MIB


@pytest.mark.parametrize("dtype", ["f32", *WIDENED])
def test_c16_a_decode_step_of_two_layers_keeps_every_bit(dtype):
    caches, states = two_layers(dtype)
    given = on_device(caches)
    stored, read = step_in_place(given, on_device(states), SPEC)
    assert all(cache.is_deleted() for cache in jax.tree.leaves(given))
    leaves = [jax.tree.leaves(tree) for tree in (stored, read, caches, states)]
    for got, got_read, cache, new in zip(*leaves, strict=True):
        want = reference.store_single(cache, new, SPEC)
        want_read = reference.load_single(want, SPEC, STEP.num_tokens)
        assert compare("cache", np.asarray(got), want, cache) is None
        assert compare("states", np.asarray(got_read), want_read, want_read) is None


@writes_in_place
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_scan_over_decode_steps_copies_no_cache(dtype):
    def run(cache, states, slots):
        def step(cache, new):
            return store_single(cache, new[0], SlotMapping(new[1])), None

        return jax.lax.scan(step, cache, (states, slots))[0]

    cache, states = outline(dtype)
    states = jax.ShapeDtypeStruct((4, *states.shape), states.dtype)
    slots = jax.ShapeDtypeStruct((4, STEP.num_tokens), jnp.int32)
    used = memory(functional_paged.jit(run, donate_argnums=0), cache, states, slots)
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB
