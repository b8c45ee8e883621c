"""One lowering, three frameworks: NumPy, JAX and torch agree on every spec, valid or hostile."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    plan_chunks,
    reference,
    to_slots,
)

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

LOWERINGS = {"to_slots": to_slots, "plan_chunks": plan_chunks}

# Few shapes, since JAX compiles for each; the values vary. Sizes pairwise different.
# (num_blocks, kv_heads, block_size, head_dim), num_tokens, rows, columns
SIZES = [
    ((7, 3, 5, 4), 11, 4, 2),
    ((2, 1, 1, 3), 6, 3, 5),
    ((5, 2, 16, 1), 3, 6, 1),
    ((3, 1, 8, 2), 1, 1, 4),
]
FORMS = ("prefill", "decode", "chunks", "slots", "long slots")

extremes = st.sampled_from([INT32_MIN, INT32_MIN + 1, INT32_MAX - 1, INT32_MAX])
small = st.integers(-2, 12)
hostile = st.one_of(small, small, small, st.integers(-40, 200), extremes)


def int32s(*shape: int, elements: st.SearchStrategy[int] = hostile) -> st.SearchStrategy:
    size = int(np.prod(shape))
    return st.lists(elements, min_size=size, max_size=size).map(
        lambda numbers: np.array(numbers, np.int32).reshape(shape)
    )


def running_totals(rows: int) -> st.SearchStrategy:
    valid = int32s(rows, elements=st.integers(0, 6)).map(
        lambda lengths: np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    )
    return st.one_of(valid, valid, int32s(rows + 1))


def specs(form: str, rows: int, columns: int) -> st.SearchStrategy[IndexSpec]:
    if form == "chunks":
        return st.builds(ChunkPlan, int32s(rows, 4))
    if form == "slots":
        return st.builds(SlotMapping, int32s(rows * 2))
    if form == "long slots":
        wide = st.one_of(hostile, st.sampled_from([2**32 + 1, -(2**32) + 1, 2**62, -(2**63)]))
        size = rows * 2
        return st.lists(wide, min_size=size, max_size=size).map(
            lambda slots: SlotMapping(np.array(slots, np.int64))
        )
    totals = running_totals(rows) if form == "prefill" else st.none()
    return st.builds(BlockTable, int32s(rows, columns), int32s(rows), totals)


@functools.cache
def jitted(name: str, cache_shape: tuple[int, int, int, int], num_tokens: int) -> Any:
    lower = LOWERINGS[name]
    return jax.jit(lambda spec: lower(spec, cache_shape=cache_shape, num_tokens=num_tokens))


def only_array(spec: IndexSpec) -> np.ndarray:
    (array,) = spec.arrays().values()
    return np.asarray(array)


def reference_slots(spec: IndexSpec, cache_shape: Any, num_tokens: int) -> np.ndarray:
    slots = np.full(num_tokens, PAD, np.int64)
    for token, block, offset in reference.stored_tokens(spec, cache_shape, num_tokens):
        slots[token] = block * cache_shape[2] + offset
    return slots


def check_frameworks(spec: IndexSpec, cache_shape: Any, num_tokens: int) -> None:
    in_torch = spec.map(torch.tensor)
    # int64 slots are JAX's own business: it has them only with jax_enable_x64.
    has_jax = getattr(spec, "slots", np.empty(0)).dtype != np.int64
    in_jax = spec.map(jnp.asarray) if has_jax else None
    size: Any = {"cache_shape": cache_shape, "num_tokens": num_tokens}
    # The three share their lines, so what all get wrong shows only beside the reference.
    np.testing.assert_array_equal(to_slots(spec, **size).slots, reference_slots(spec, **size))
    for name, lower in LOWERINGS.items():
        want = only_array(lower(spec, **size))
        results = {"torch": lower(in_torch, **size)}
        if in_jax is not None:
            results["jax"] = lower(in_jax, **size)
            results["jax.jit"] = jitted(name, cache_shape, num_tokens)(in_jax)
        for framework, result in results.items():
            got = only_array(result)
            assert got.dtype == want.dtype, (name, framework)
            np.testing.assert_array_equal(got, want, err_msg=f"{name} in {framework}")


@pytest.mark.parametrize("form", FORMS)
@settings(deadline=None, max_examples=80)
@given(data=st.data())
def test_frameworks_agree(form, data):
    cache_shape, num_tokens, rows, columns = data.draw(st.sampled_from(SIZES))
    check_frameworks(data.draw(specs(form, rows, columns)), cache_shape, num_tokens)


WRAPS = {
    # What wraps in 32 bits lands on a slot that exists: found only where the frameworks differ.
    "context": BlockTable(np.int32([[1, 2]] * 2), np.int32([INT32_MAX, INT32_MAX - 2])),
    "context of many": BlockTable(np.int32([[1, 2]]), np.int32([INT32_MAX]), np.int32([0, 9])),
    "context below": BlockTable(np.int32([[1]]), np.int32([INT32_MIN]), np.int32([0, 9])),
    "huge totals": BlockTable(
        np.int32([[1], [2]]), np.int32([0, 0]), np.int32([0, INT32_MAX, INT32_MAX])
    ),
    "falling totals": BlockTable(
        np.int32([[1], [2]]), np.int32([0, 0]), np.int32([0, INT32_MAX, INT32_MIN])
    ),
    "block": BlockTable(np.int32([[INT32_MAX], [INT32_MIN]]), np.int32([3, 3])),
    "chunk": ChunkPlan(
        np.int32(
            [
                [INT32_MAX, 1, 0, INT32_MAX],
                [0, 1, INT32_MAX, INT32_MAX],
                [INT32_MIN, 1, INT32_MIN, INT32_MIN],
                [1, INT32_MAX, 4, 1],
                [2, 1, 4, 1],
            ]
        )
    ),
    # An end that wraps would end the chunk beside it, too.
    "chunk start": ChunkPlan(np.int32([[INT32_MAX, 1, 0, 4], [0, 2, 0, 2], [9, 3, 0, 5]])),
    "slot": SlotMapping(np.int32([INT32_MAX, INT32_MIN, 34, 35])),
    "long slot": SlotMapping(np.int64([2**32 + 1, -(2**32) + 1, 2**63 - 1, -(2**63)])),
}


@pytest.mark.parametrize("name", WRAPS)
def test_c5_frameworks_agree_at_the_ends_of_int32(name):
    check_frameworks(WRAPS[name], (7, 3, 5, 4), 11)


@pytest.mark.parametrize("bits", [30, 31, 32, 40])
@pytest.mark.parametrize("lower", LOWERINGS)
def test_c5_slots_are_as_wide_as_the_cache_needs(lower, bits):
    # One block more makes num_blocks * block_size pass 2**31 - 1 at 31 bits.
    block_size = 2**10
    num_blocks = 2 ** (bits - 10)
    cache_shape = (num_blocks, 1, block_size, 1)
    last = np.int32([[num_blocks - 1, 0]])
    spec = BlockTable(last, np.int32([block_size - 1]), np.int32([0, 2]))
    wide = bits >= 31
    for array in (np.asarray, torch.tensor):
        given_spec = spec.map(array)
        lowered = only_array(LOWERINGS[lower](given_spec, cache_shape=cache_shape, num_tokens=2))
        if lower == "to_slots":
            assert lowered.dtype == (np.int64 if wide else np.int32)
            assert lowered.tolist() == [2**bits - 1, 0]
        else:
            assert lowered.dtype == np.int32
            assert lowered[:2].tolist() == [[0, num_blocks - 1, block_size - 1, 1], [1, 0, 0, 1]]


def test_c5_the_last_size_that_fits_32_bits():
    spec = BlockTable(np.int32([[2**31 - 2]]), np.int32([0]))
    for num_blocks, dtype in ((2**31 - 1, np.int32), (2**31, np.int64)):
        slots = to_slots(spec, cache_shape=(num_blocks, 1, 1, 1), num_tokens=1).slots
        assert slots.dtype == dtype
        assert slots.tolist() == [2**31 - 2]


@pytest.mark.parametrize("lower", LOWERINGS)
def test_c5_jax_without_64_bits_says_so(lower):
    spec = BlockTable(np.int32([[1]]), np.int32([0])).map(jnp.asarray)
    too_many, enough = (2**31, 1, 1, 1), (2**31 - 1, 1, 1, 1)
    message = (
        r"^C5: num_blocks \* block_size must be < 2\*\*31 where 64-bit integers are off "
        r"\(JAX: enable jax_enable_x64\), got 2147483648$"
    )
    with pytest.raises(SpecError, match=message):
        LOWERINGS[lower](spec, cache_shape=too_many, num_tokens=1)
    LOWERINGS[lower](spec, cache_shape=enough, num_tokens=1)

    jax.config.update("jax_enable_x64", True)
    try:
        wide = only_array(LOWERINGS[lower](spec, cache_shape=too_many, num_tokens=1))
    finally:
        jax.config.update("jax_enable_x64", False)
    assert wide.dtype == (np.int64 if lower == "to_slots" else np.int32)


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_slot_mapping_keeps_its_dtype(dtype):
    spec = SlotMapping(np.array([3, -5, 99], dtype))
    for array in (np.asarray, torch.tensor):
        slots = only_array(to_slots(spec.map(array), cache_shape=(2, 1, 4, 1), num_tokens=4))
        assert slots.dtype == dtype
        assert slots.tolist() == [3, -1, -1, -1]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), form=st.sampled_from(FORMS), lower=st.sampled_from(list(LOWERINGS)))
def test_shapes_depend_on_shapes_alone(data, form, lower):
    cache_shape, num_tokens, rows, columns = data.draw(st.sampled_from(SIZES))
    one, other = (data.draw(specs(form, rows, columns)) for _ in range(2))
    first, second = (
        only_array(LOWERINGS[lower](spec, cache_shape=cache_shape, num_tokens=num_tokens))
        for spec in (one, other)
    )
    assert first.shape == second.shape
    if lower == "to_slots":
        assert first.shape == (num_tokens,)
    else:
        assert first.shape[1] == 4
        assert first.shape[0] <= num_tokens


EMPTY = {
    "no tokens": (BlockTable(np.int32([[1]]), np.int32([0]), np.int32([0, 0])), 0),
    "no rows": (BlockTable(np.zeros((0, 2), np.int32), np.int32([]), np.int32([0])), 2),
    "no rows in decode": (BlockTable(np.zeros((0, 2), np.int32), np.int32([])), 2),
    "no columns": (BlockTable(np.zeros((2, 0), np.int32), np.int32([0, 1])), 2),
    "no chunks": (ChunkPlan(np.zeros((0, 4), np.int32)), 2),
    "no slots": (SlotMapping(np.int32([])), 2),
    "no tokens of slots": (SlotMapping(np.int32([1])), 0),
    "no tokens of chunks": (ChunkPlan(np.int32([[0, 1, 0, 1]])), 0),
}


@pytest.mark.parametrize("name", EMPTY)
def test_c18_frameworks_agree_on_empty_axes(name):
    spec, num_tokens = EMPTY[name]
    for num_blocks in (3, 0):
        check_frameworks(spec, (num_blocks, 1, 4, 1), num_tokens)
