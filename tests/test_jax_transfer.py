"""The transfer of tokens between caches and inside of one: a load, then a store."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

jax = pytest.importorskip("jax")

import jax.numpy as jnp

import functional_paged
from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    reference,
    to_slots,
    transfer,
)
from functional_paged.conformance.bits import DTYPES
from functional_paged.conformance.run.compare import compare
from functional_paged.conformance.strategies import Sizes, index_specs
from tests.helpers import filled, i32, on_device

MIB = 2**20
NUM_TOKENS = 9
DST, SRC = Sizes(5, 3, NUM_TOKENS), Sizes(4, 7, NUM_TOKENS)
JITS = {"eager": lambda f: f, "jax.jit": jax.jit, "functional_paged.jit": functional_paged.jit}


def cache_of(size: Sizes, dtype: str, salt: int) -> np.ndarray:
    return filled(size.cache_shape(2, 5), dtype, salt)


def wanted(
    dst: np.ndarray, dst_spec: IndexSpec, src: np.ndarray, src_spec: IndexSpec, num_tokens: int
) -> np.ndarray:
    """The definition."""
    return reference.store_single(dst, reference.load_single(src, src_spec, num_tokens), dst_spec)


def assert_same(got: Any, want: np.ndarray, before: np.ndarray) -> None:
    assert compare("cache", np.asarray(got), want, before) is None


@st.composite
def specs_of(draw: st.DrawFn, size: Sizes) -> IndexSpec:
    """A valid spec, its arrays of one size a form so that JAX compiles once: C6, C8, C13, C14."""
    spec = draw(index_specs(size, hostile=False))
    if isinstance(spec, ChunkPlan):
        chunks = np.zeros((4, 4), np.int32)
        chunks[: len(spec.chunks)] = spec.chunks
        return ChunkPlan(chunks)
    if isinstance(spec, SlotMapping):
        slots = np.full(14, PAD, np.int32)
        slots[: len(spec.slots)] = np.maximum(spec.slots, -7)
        return SlotMapping(slots)
    table, contexts = np.full((4, 4), PAD, np.int32), np.full(4, PAD, np.int32)
    rows, width = spec.block_table.shape
    table[:rows, :width], contexts[:rows] = spec.block_table, spec.context_kv_lens
    given_cu = spec.cu_q_lens
    cu = np.minimum(np.arange(rows + 1), NUM_TOKENS) if given_cu is None else given_cu
    return BlockTable(table, contexts, np.pad(cu, (0, 4 - rows), mode="edge").astype(np.int32))


def slots_of(spec: IndexSpec, size: Sizes) -> SlotMapping:
    """What the spec stores, by slots: JAX compiles less where one of two specs is of one form."""
    return to_slots(spec, cache_shape=size.cache_shape(), num_tokens=NUM_TOKENS)


@jax.jit
def everywhere(dst: Any, dst_spec: Any, src: Any, src_spec: Any) -> Any:
    """To another cache in each pair of layouts, and inside of one."""
    swapped, src_swapped = dst.swapaxes(1, 2), src.swapaxes(1, 2)
    return (
        transfer(dst, dst_spec, src, src_spec, NUM_TOKENS),
        transfer(swapped, dst_spec, src_swapped, src_spec, NUM_TOKENS, layout="NHD"),
        transfer(swapped, dst_spec, src, src_spec, NUM_TOKENS, layout="NHD", src_layout="HND"),
        transfer(dst, dst_spec, src_swapped, src_spec, NUM_TOKENS, src_layout="NHD"),
    )


@given(dst_spec=specs_of(DST), src_spec=specs_of(SRC))
@settings(max_examples=60)
def test_c16_a_transfer_is_a_load_and_then_a_store(dst_spec, src_spec):
    dst, src = cache_of(DST, "f32", 1), cache_of(SRC, "f32", 2)
    want = wanted(dst, dst_spec, src, src_spec, NUM_TOKENS)
    moved = everywhere(dst, dst_spec, src, slots_of(src_spec, SRC))
    hnd, nhd, from_hnd, from_nhd = map(np.asarray, moved)
    for got in (hnd, nhd.swapaxes(1, 2), from_hnd.swapaxes(1, 2), from_nhd):
        assert_same(got, want, dst)


@partial(functional_paged.jit, donate_argnums=0)
def inside(cache: Any, dst_spec: Any, src_spec: Any) -> Any:
    return transfer(cache, dst_spec, cache, src_spec, NUM_TOKENS)


@given(dst_spec=specs_of(DST), src_spec=specs_of(DST))
@settings(max_examples=60)
def test_c17_inside_of_one_cache_all_is_read_before_anything_is_written(dst_spec, src_spec):
    cache = cache_of(DST, "bf16", 1)
    want = wanted(cache, dst_spec, cache, src_spec, NUM_TOKENS)
    got = inside(*on_device((cache, slots_of(dst_spec, DST), src_spec)))
    assert_same(got, want, cache)


@pytest.mark.parametrize("jit", JITS)
@pytest.mark.parametrize("dtype", ["bf16", "f8e5m2", "i8"])
def test_c17_blocks_swap_and_slots_shift(dtype, jit):
    cache = cache_of(DST, dtype, 1)
    swap = ChunkPlan(i32([0, 1, 0, 3], [3, 4, 0, 3])), ChunkPlan(i32([0, 4, 0, 3], [3, 1, 0, 3]))
    shift = SlotMapping(i32(*range(4, 13))), SlotMapping(i32(*range(3, 12)))
    for to, at in (swap, shift, shift[::-1]):
        move = JITS[jit](lambda cache, to, at: transfer(cache, to, cache, at, NUM_TOKENS))
        given_cache = jnp.array(cache, copy=True)
        got = move(given_cache, to, at)
        assert_same(got, wanted(cache, to, cache, at, NUM_TOKENS), cache)
        assert_same(given_cache, cache, cache)


def test_c16_tokens_that_src_does_not_store_arrive_as_zeros():
    dst, src = cache_of(DST, "bf16", 1), cache_of(SRC, "bf16", 2)
    got = transfer(dst, SlotMapping(i32(14, 7, PAD, 0)), src, SlotMapping(i32(3, PAD, 5)), 4)
    rows = np.asarray(got).swapaxes(1, 2).reshape(15, 2, 5)
    assert not rows[[7, 0]].view(np.uint16).any()
    assert_same(rows[14], src[0, :, 3], src[0, :, 3])


@pytest.mark.skipif(
    not hasattr(jax, "make_user_context"), reason="this JAX copies what it scatters to, on CPU"
)
@pytest.mark.parametrize("dtype", ["f32", "bf16"])
def test_a_transfer_inside_of_a_donated_cache_copies_none(dtype):
    shape = (64 * MIB // (2 * 16 * 64 * DTYPES[dtype].itemsize), 2, 16, 64)
    cache = jax.ShapeDtypeStruct(shape, DTYPES[dtype])
    spec = SlotMapping(i32(*range(NUM_TOKENS)))
    used = inside.lower(cache, spec, spec).compile().memory_analysis()
    assert used.alias_size_in_bytes == 64 * MIB
    assert used.temp_size_in_bytes < MIB


def test_c16_each_leaf_of_a_tree_is_moved_as_alone():
    shapes = {"k": ("i8", 2, 7), "v": [("f32", 1, 4), ("bf16", 3, 2)]}
    is_leaf = lambda leaf: isinstance(leaf, tuple)  # noqa: E731

    def tree(size: Sizes, salt: int) -> Any:
        def one(leaf: Any) -> np.ndarray:
            return filled(size.cache_shape(*leaf[1:]), leaf[0], salt)

        return jax.tree.map(one, shapes, is_leaf=is_leaf)

    dst, src = tree(DST, 1), tree(SRC, 2)
    to = BlockTable(i32([4, 2, 0], [1, 3, PAD]), i32(2, 0), i32(0, 6, 9))
    at = ChunkPlan(i32([0, 3, 2, 4], [5, 0, 0, 4]))
    got = transfer(dst, to, src, at, NUM_TOKENS)
    for one, *caches in zip(*map(jax.tree.leaves, (got, dst, src)), strict=True):
        assert_same(one, wanted(caches[0], to, caches[1], at, NUM_TOKENS), caches[0])


def test_c22_a_transfer_is_linear_in_both_caches():
    dst, src = np.ones(DST.cache_shape(), np.float32), np.ones(SRC.cache_shape(), np.float32)
    to, at = SlotMapping(i32(14, 7, PAD, 0)), SlotMapping(i32(3, PAD, 5, 6))
    cotangent = np.arange(1, 16, dtype=np.float32).reshape(dst.shape)
    _, pull = jax.vjp(lambda dst, src: transfer(dst, to, src, at, 4), dst, src)
    d_dst, d_src = map(np.ravel, pull(cotangent))
    kept = np.arange(1, 16, dtype=np.float32)
    kept[[14, 7, 0]] = 0
    np.testing.assert_array_equal(d_dst, kept)
    assert d_src.nonzero()[0].tolist() == [3, 6]
    assert d_src[[3, 6]].tolist() == [15, 1]


def test_c1_what_is_refused_is_of_src_or_of_dst():
    dst, src = cache_of(DST, "f32", 1), cache_of(SRC, "f32", 2)
    spec = SlotMapping(i32(0, 1))
    for change, text in (
        ({"src": src[0]}, "C1: src: cache must have 4 axes (num_blocks, kv_heads, block_size"),
        ({"src_spec": SlotMapping(np.uint8([0]))}, "C4: src: slots must be int32 or int64"),
        ({"num_tokens": -1}, "C1: src: num_tokens must be >= 0, got -1"),
        ({"src_layout": "DHN"}, "C1: src: layout must be 'HND'"),
        ({"src": src[:, :1]}, "C1: states.shape[1] = 1 must equal kv_heads = 2 of cache"),
        ({"src": src.view(np.int32)}, "C2: states.dtype must equal cache.dtype = float32"),
        ({"dst": dst[0]}, "C1: cache must have 4 axes (num_blocks, kv_heads, block_size"),
        ({"dst_spec": (0, 1)}, "C1: index_spec must be a BlockTable"),
        ({"layout": "DHN", "src_layout": "HND"}, "C1: layout must be 'HND'"),
    ):
        good = {"dst": dst, "dst_spec": spec, "src": src, "src_spec": spec, "num_tokens": 2}
        with pytest.raises(SpecError) as error:
            transfer(**{**good, **change})
        assert str(error.value).startswith(text)
        assert_same(transfer(**good), wanted(dst, spec, src, spec, 2), dst)
