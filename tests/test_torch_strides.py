"""C20: any strided cache and states, and no write between the strides."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bridges
from bridges.conformance_adapters import tensor_over as tensor
from functional_paged import PAD, IndexSpec, SlotMapping, SpecError, reference
from functional_paged.conformance import LAYOUTS, GuardedCache
from functional_paged.conformance.bits import DTYPES, as_bits, pattern
from functional_paged.conformance.cases.steps import table

pytestmark = pytest.mark.usefixtures("cpu_backend")

SHAPE = (7, 3, 5, 4)
STEP = table([[6, 0, 2], [3, 1, PAD]], [4, 0], [7, 3])
DTYPE = DTYPES["bf16"]


def rows(*shape: int, dtype: np.dtype = DTYPE) -> np.ndarray:
    return pattern(int(np.prod(shape)), dtype, salt=2, payloads=True).reshape(shape)


def check_store(
    buffer: np.ndarray, cache: np.ndarray, states: np.ndarray, spec: IndexSpec = STEP.index_spec
) -> None:
    """Store into `cache`, a view of `buffer`, all of which must be as the reference leaves it."""
    view = tensor(cache)
    expected = buffer.copy()
    offset = cache.__array_interface__["data"][0] - buffer.__array_interface__["data"][0]
    memory = expected.view(np.uint8)
    in_expected = np.ndarray(cache.shape, cache.dtype, memory, offset, cache.strides)
    in_expected[...] = reference.store_single(cache, states.copy(), spec)

    assert bridges.store_single_(view, tensor(states), spec.map(torch.from_numpy)) is view

    np.testing.assert_array_equal(as_bits(buffer), as_bits(expected))


@pytest.mark.parametrize("dtype", ["f8e5m2", "bf16", "f32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_c20_cache_layouts(layout, dtype):
    guarded = GuardedCache.laid_out(SHAPE, DTYPES[dtype], layout)
    check_store(guarded.buffer, guarded.cache, rows(STEP.num_tokens, 3, 4, dtype=DTYPES[dtype]))


def fused_qkv(tokens: int, heads: int, dim: int) -> np.ndarray:
    # 4 query heads, then keys, then values, in one row a token.
    fused = rows(tokens, (4 + 2 * heads) * dim)
    return fused[:, (4 + heads) * dim :].reshape(tokens, heads, dim)


STATES = {
    "fused qkv": fused_qkv,
    "head major": lambda t, h, d: rows(h, t, d).transpose(1, 0, 2),
    "dim major": lambda t, h, d: rows(d, h, t).transpose(2, 1, 0),
    "every other token": lambda t, h, d: rows(2 * t, h, d)[::2],
    "every third element": lambda t, h, d: rows(t, h, 3 * d)[..., 1::3],
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", STATES)
def test_c20_states_layouts(name, layout):
    guarded = GuardedCache.laid_out(SHAPE, DTYPE, layout)
    states = STATES[name](STEP.num_tokens, SHAPE[1], SHAPE[3])
    assert states.base is not None
    assert not states.flags.c_contiguous
    check_store(guarded.buffer, guarded.cache, states)


@pytest.mark.parametrize("shape", [(1, 3, 4), (10, 1, 4), (10, 3, 1), (1, 1, 1)])
def test_c20_expanded_states(shape):
    cache = torch.from_numpy(
        pattern(7 * 3 * 5 * 4, DTYPES["f32"], salt=1, payloads=True).reshape(SHAPE)
    )
    states = torch.from_numpy(rows(*shape, dtype=DTYPES["f32"])).expand(10, 3, 4)
    assert 0 in states.stride()
    expected = reference.store_single(cache.numpy(), states.numpy().copy(), STEP.index_spec)
    bridges.store_single_(cache, states, STEP.index_spec.map(torch.from_numpy))
    np.testing.assert_array_equal(as_bits(cache.numpy()), as_bits(expected))


@st.composite
def strided_views(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, tuple[slice, ...], tuple]:
    """A view of `shape` in a bigger base: its axes permuted, each sliced with a step."""
    order = draw(st.permutations(range(len(shape))))
    steps = [draw(st.integers(1, 3)) for _ in shape]
    before = [draw(st.integers(0, 2)) for _ in shape]
    after = [draw(st.integers(0, 2)) for _ in shape]
    ends = [b + (shape[axis] - 1) * k + 1 for axis, k, b in zip(order, steps, before, strict=True)]
    base = tuple(np.add(ends, after))
    return base, tuple(map(slice, before, ends, steps)), tuple(np.argsort(order))


@settings(deadline=None, max_examples=150)
@given(data=st.data(), dtype=st.sampled_from(["u8", "f8e4m3fn", "f16", "bf16", "f32"]))
def test_c20_any_permutation_and_steps(data, dtype):
    num_blocks, heads, block_size, dim = data.draw(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 4), st.integers(1, 3))
    )
    num_slots = num_blocks * block_size
    slots = data.draw(
        st.lists(st.integers(0, num_slots - 1), unique=True, max_size=num_slots).map(
            lambda stored: [*stored, PAD]
        )
    )
    base, slices, back = data.draw(strided_views((num_blocks, heads, block_size, dim)))
    buffer = pattern(int(np.prod(base)), DTYPES[dtype], salt=1, payloads=True).reshape(base)
    states_base, states_slices, states_back = data.draw(strided_views((len(slots), heads, dim)))
    states = rows(*states_base, dtype=DTYPES[dtype])[states_slices].transpose(states_back)
    cache = buffer[slices].transpose(back)
    assert cache.shape == (num_blocks, heads, block_size, dim)
    check_store(buffer, cache, states, SlotMapping(np.int32(slots)))


def windows(shape: tuple[int, ...], strides: tuple[int, ...]) -> tuple[np.ndarray, torch.Tensor]:
    buffer = pattern(200, DTYPES["f32"], salt=1, payloads=True)
    return buffer, torch.from_numpy(buffer).as_strided(shape, strides, 17)


OVERLAPPING = {
    # name: shape, strides that overlap, strides one change away that do not
    "blocks of one memory": ((4, 1, 3, 2), (0, 6, 2, 1), (6, 6, 2, 1)),
    "heads of one memory": ((2, 3, 2, 2), (4, 0, 2, 1), (12, 4, 2, 1)),
    "dims of one memory": ((2, 1, 3, 2), (6, 1, 2, 0), (6, 1, 2, 1)),
    "sliding windows": ((4, 1, 3, 2), (4, 1, 2, 1), (6, 1, 2, 1)),
    "last token is the next first": ((2, 1, 3, 1), (4, 9, 2, 9), (6, 9, 2, 9)),
    "sliding tokens": ((2, 1, 3, 3), (9, 1, 2, 1), (9, 1, 3, 1)),
    "two axes of one stride": ((2, 2, 3, 1), (6, 2, 2, 1), (6, 1, 2, 1)),
    "interleaved that meet": ((3, 1, 4, 1), (3, 1, 2, 1), (9, 1, 2, 1)),
}


@pytest.mark.parametrize("name", OVERLAPPING)
@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
def test_c20_cache_that_overlaps_itself_is_an_error(name, planned):
    shape, overlapping, apart = OVERLAPPING[name]
    spec = SlotMapping(np.int32([1, PAD])).map(torch.from_numpy)
    states = torch.ones(2, shape[1], shape[3])
    buffer, cache = windows(shape, overlapping)
    before = as_bits(buffer).copy()
    given = spec
    if planned:
        given = bridges.plan(spec, cache=cache, num_tokens=2)
    with pytest.raises(SpecError) as error:
        bridges.store_single_(cache, states, given)
    assert str(error.value) == (
        f"C20: cache must not overlap itself, got shape {shape} with strides {overlapping}"
    )
    np.testing.assert_array_equal(as_bits(buffer), before)

    buffer, cache = windows(shape, apart)
    bridges.store_single_(cache, states, spec)
    assert (as_bits(buffer) != before).sum() == shape[1] * shape[3]


def test_c20_overlap_of_a_huge_expanded_cache_is_told_without_counting():
    cache = torch.zeros(1, 1, 1, 1).expand(2**20, 8, 128, 128)
    with pytest.raises(SpecError, match=r"^C20: cache must not overlap itself"):
        bridges.store_single_(cache, torch.ones(1, 8, 128), SlotMapping(torch.tensor([0])))


@pytest.mark.parametrize(
    ("shape", "strides"),
    [((3, 1, 3, 1), (3, 99, 2, 99)), ((2, 2, 3, 1), (3, 12, 2, 1)), ((2, 3, 2, 2), (1, 4, 2, 12))],
)
def test_c20_interleaved_cache_that_misses_itself_works(shape, strides):
    buffer, _ = windows(shape, strides)
    itemsize = buffer.itemsize
    cache = np.ndarray(
        shape, buffer.dtype, buffer.data, 17 * itemsize, tuple(s * itemsize for s in strides)
    )
    spec = SlotMapping(np.int32([shape[2], PAD, 0, 1]))
    check_store(buffer, cache, rows(4, shape[1], shape[3], dtype=buffer.dtype), spec)


ALIASES = {
    # name: tokens as a view of the cache in (blocks, tokens, heads, head_dim), their slots
    "tokens of another block": (lambda by_token: by_token[6], [20, 21, 10, 11, 2]),
    "one token of each block": (lambda by_token: by_token[:, 2], [6, 5, 4, 3, 2, 1, 0]),
    "tokens that move up by one": (lambda by_token: by_token[0, :4], [1, 2, 3, 4]),
    "tokens that move down by one": (lambda by_token: by_token[0, 1:], [0, 1, 2, 3]),
    "tokens that change places": (lambda by_token: by_token[0], [4, 3, 2, 1, 0]),
    "tokens that stay": (lambda by_token: by_token[0], [0, 1, 2, 3, 4]),
}


@pytest.mark.parametrize("name", ALIASES)
def test_c20_states_that_are_a_view_of_the_cache(name):
    # What is stored are the rows as they were before the store.
    choose, slots = ALIASES[name]
    buffer = pattern(7 * 3 * 5 * 4, DTYPE, salt=1, payloads=True)
    cache = buffer.reshape(SHAPE)
    states = choose(cache.transpose(0, 2, 1, 3))
    assert np.shares_memory(states, buffer)
    check_store(buffer, cache, states, SlotMapping(np.int32(slots)))
