"""The compiled loops, bit for bit the definition: the slots of a plan, and rows of any layout."""

from __future__ import annotations

from typing import Any
from unittest import mock

import array_api_compat.numpy as xp
import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import bridges
from bridges import _host, numba_cpu
from bridges.conformance_adapters import tensor_over as tensor
from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, reference
from functional_paged.conformance import strategies
from functional_paged.conformance.bits import DTYPES, pattern
from functional_paged.conformance.strategies import Sizes
from functional_paged.internal import slots_in
from tests.helpers import i32

LAYOUTS = {
    "contiguous": np.ascontiguousarray,
    "columns first": np.asfortranarray,
    "every other": lambda array: np.repeat(array, 2, axis=-1)[..., ::2],
}


@st.composite
def sized_specs(draw: st.DrawFn) -> tuple[Sizes, IndexSpec]:
    size = draw(strategies.sizes())
    return size, draw(strategies.index_specs(size))


MOST = 2**31 - 1
HUGE = Sizes(2**30, 2**30, 3)


@given(sized_specs(), st.sampled_from(list(LAYOUTS)))
@example((HUGE, BlockTable(i32([MOST, 5]), i32(MOST), i32(0, 3))), "contiguous")
@example((HUGE, BlockTable(i32([2**30 - 1, 5]), i32(2**30 - 2), i32(0, 3))), "contiguous")
@example((HUGE, ChunkPlan(i32([0, 2**30 - 1, 2**30 - 2, 2], [1, 0, MOST, 2]))), "contiguous")
@example((HUGE, ChunkPlan(i32([MOST, 1, 0, MOST], [2, MOST, 0, 1]))), "every other")
@example((HUGE, SlotMapping(np.int64([2**60 - 1, 2**60, -(2**63)]))), "every other")
def test_c5_compiled_loops_are_the_definition_and_the_lowering(sized, layout):
    size, spec = sized
    shape = size.cache_shape()
    strided: Any = spec.map(LAYOUTS[layout]).map(torch.from_numpy)
    got = _host.slots_on_host(strided, shape, size.num_tokens)
    want = reference.slots_of(spec, shape, size.num_tokens)
    np.testing.assert_array_equal(got.numpy(), want)
    np.testing.assert_array_equal(slots_in(xp, spec, shape, size.num_tokens), want)
    with mock.patch.object(_host, "has_numba", return_value=False):
        np.testing.assert_array_equal(
            _host.slots_on_host(strided, shape, size.num_tokens).numpy(), want
        )


@st.composite
def laid_out(draw: st.DrawFn, shape: tuple[int, ...], itemsize: int, apart: bool = True) -> Any:
    """Memory full of a pattern, and a view in it: axes in any order, dense ones or not."""
    order, step = draw(st.permutations(range(len(shape)))), draw(st.integers(1, 2))
    strides = [0] * len(shape)
    for axis in order:
        strides[axis], step = step, step * shape[axis] + draw(st.integers(0, 2))
    if not apart and draw(st.booleans()):
        strides[draw(st.integers(0, len(shape) - 1))] = 0
    start = draw(st.integers(0, 9))
    memory = pattern((start + step + 9) * itemsize, DTYPES["u8"], salt=start + len(shape))
    strides = [stride * itemsize for stride in strides]
    kind = np.dtype(f"c{itemsize}" if itemsize == 16 else f"i{itemsize}")
    return memory, np.ndarray(shape, kind, memory, start * itemsize, strides)


def threads(number: int, bytes_each: int) -> Any:
    """A store is shared among so many threads, however little there is to copy."""
    return mock.patch.multiple(
        "bridges.numba_cpu.torch", get_num_threads=lambda: number
    ), mock.patch.object(numba_cpu, "BYTES_A_THREAD", bytes_each)


@given(
    data=st.data(),
    itemsize=st.sampled_from([1, 2, 4, 8, 16]),
    shape=st.tuples(*[st.integers(1, most) for most in (16, 3, 8, 3)]),
    number=st.sampled_from([1, 2, 5]),
)
def test_c16_c20_rows_of_any_layout_width_and_number_of_threads(data, itemsize, shape, number):
    num_blocks, heads, block_size, dim = shape
    slot = st.integers(-2, num_blocks * block_size + 1) | st.sampled_from([2**31, 2**62, -(2**63)])
    slots = np.int64(data.draw(st.lists(slot, max_size=8)))
    memory, cache = data.draw(laid_out(shape, itemsize))
    _, states = data.draw(laid_out((len(slots), heads, dim), itemsize, apart=False))
    narrow = data.draw(st.booleans())
    if narrow:
        slots = slots[np.abs(slots.astype(float)) < 2**31].astype(np.int32)
    expected = memory.copy()
    start = cache.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    view = np.ndarray(shape, cache.dtype, expected, start, cache.strides)
    for token, at in enumerate(slots.tolist()):  # the last of a slot stays, whole
        if 0 <= at < num_blocks * block_size:
            view[at // block_size, :, at % block_size] = states[token]
    workers, share = threads(number, 1)
    with workers, share:
        cache, states, slots = map(torch.from_numpy, (cache, states, slots))
        numba_cpu._store_op([cache], [states], slots)
    np.testing.assert_array_equal(memory, expected)


@pytest.mark.parametrize("number", [1, 2, 5])
@pytest.mark.parametrize("heads", [1, 2, 3])
def test_c15_the_later_token_stays_whole_in_any_number_of_threads(heads, number):
    num_tokens, shape = 3000, (4, heads, 8, 96)
    slots = torch.arange(num_tokens) * 7 % 29
    rows = pattern(num_tokens * heads * 96, DTYPES["bf16"], salt=2).reshape(num_tokens, heads, 96)
    cache = torch.zeros(shape, dtype=torch.bfloat16)
    workers, share = threads(number, 2**10)
    with workers, share:
        plan = bridges.plan(SlotMapping(slots), cache=cache, num_tokens=num_tokens, backend="numba")
        bridges.store_single_(cache, tensor(rows), plan)
    want = torch.zeros_like(cache)
    for slot in range(29):
        last = int((slots == slot).nonzero()[-1])
        want[slot // 8, :, slot % 8] = tensor(rows)[last]
    assert torch.equal(cache.view(torch.int16), want.view(torch.int16))


def test_no_more_threads_than_torch_has_and_than_there_is_work_for():
    cache, states = torch.zeros(2, 5, 2, 8, dtype=torch.int8), torch.ones(3, 5, 8).to(torch.int8)
    for number, bytes_each, want in ((4, 30, 4), (4, 50, 2), (4, 121, 0), (1, 1, 0)):
        seen = []
        workers, share = threads(number, bytes_each)
        with (
            workers,
            share,
            mock.patch.object(
                numba_cpu, "_in_parts", lambda copy, parts, seen=seen: seen.append(parts)
            ),
        ):
            numba_cpu._store_op([cache], [states], torch.tensor([0, PAD, 1]))
        assert seen == ([want] if want else [])
