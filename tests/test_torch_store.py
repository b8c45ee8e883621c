"""The stores on the CPU: what it writes, in every dtype, and what it leaves alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import bridges
from functional_paged import PAD, BlockTable, ChunkPlan, SlotMapping, SpecError, reference
from functional_paged.conformance.bits import DTYPES, pattern
from functional_paged.conformance.cases.steps import table
from tests.helpers import specs_by_form

pytestmark = pytest.mark.usefixtures("cpu_backend")

SHAPE = (7, 3, 5, 4)
# A padded row first, whose tokens repeat a later write; runs that cross a block; a hole.
STEP = table([[3, 1, 1], [6, 0, 2], [4, PAD, 5]], [-1, 4, 3], [2, 7, 8])
FORMS = specs_by_form(STEP, SHAPE)
FORMS["decode"] = table([[PAD], [6], [2], [4]], [0, 4, -1, 3]).index_spec

INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
MOVED = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz),
    *(torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.uint8, torch.uint16, torch.uint32, torch.uint64),
    *(torch.bool, torch.complex32, torch.complex64),
]
# Patterns with NaN payloads where one is known for the dtype, or for its parts.
PATTERNS = {str(dtype): dtype for dtype in DTYPES.values()}
PATTERNS |= {"complex32": PATTERNS["float16"], "complex64": PATTERNS["float32"]}


def filled(shape: tuple[int, ...], dtype: torch.dtype, salt: int) -> torch.Tensor:
    """Bits that differ from cell to cell, with NaN payloads in a floating dtype."""
    numbers = PATTERNS.get(str(dtype).removeprefix("torch."), DTYPES["u8"])
    size = math.prod(shape) * dtype.itemsize // numbers.itemsize
    tensor = torch.from_numpy(pattern(size, numbers, salt, payloads=True).view(np.uint8)).view(
        dtype
    )
    if dtype == torch.float64:
        tensor.view(torch.int64)[::3] |= 0x7FF0000000000000
    return tensor.reshape(shape)


def bits(tensor: torch.Tensor) -> np.ndarray:
    return tensor.view(INTEGERS[tensor.dtype.itemsize]).numpy().copy()


def stored_by_reference(cache: torch.Tensor, states: torch.Tensor, spec: Any) -> np.ndarray:
    return reference.store_single(bits(cache), bits(states), spec)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", MOVED, ids=lambda dtype: str(dtype).removeprefix("torch."))
def test_c16_store_equals_the_reference(dtype, form):
    spec = FORMS[form]
    cache = filled(SHAPE, dtype, salt=1)
    states = filled((STEP.num_tokens, SHAPE[1], SHAPE[3]), dtype, salt=2)
    before = bits(cache)
    expected = stored_by_reference(cache, states, spec)

    bridges.store_single_(cache, states, spec.map(torch.from_numpy))

    np.testing.assert_array_equal(bits(cache), expected)
    assert (expected != before).any()


def test_the_bits_to_move_hold_nan_payloads():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64):
        tensor = filled(SHAPE, dtype, salt=1)
        nan_bits = bits(tensor)[tensor.isnan().numpy()]
        assert np.unique(nan_bits).size > nan_bits.size // 3, dtype


def test_complex128_is_refused_beside_complex64():
    spec = SlotMapping(np.int32([8])).map(torch.from_numpy)
    wide = torch.full(SHAPE, 3 + 4j, dtype=torch.complex128)
    states = torch.zeros((1, SHAPE[1], SHAPE[3]), dtype=torch.complex128)
    message = "the torch backend moves elements of 1, 2, 4 or 8 bytes, got torch.complex128"
    with pytest.raises(bridges.BackendUnsupported, match=f"^{message}$"):
        bridges.store_single_(wide, states, spec, backend="torch")
    assert (wide == 3 + 4j).all()

    narrow = wide.to(torch.complex64)
    bridges.store_single_(narrow, states.to(torch.complex64), spec, backend="torch")
    assert (narrow == 0).sum() == states.numel()


@pytest.mark.parametrize("form", FORMS)
def test_c17_returns_the_object_and_changes_nothing_else(form):
    spec = FORMS[form].map(torch.from_numpy)
    cache = filled(SHAPE, torch.bfloat16, salt=1)
    states = filled((STEP.num_tokens, SHAPE[1], SHAPE[3]), torch.bfloat16, salt=2)
    states_before = bits(states)
    spec_before = {name: bits(array) for name, array in spec.arrays().items()}

    assert bridges.store_single_(cache, states, spec) is cache

    np.testing.assert_array_equal(bits(states), states_before)
    for name, before in spec_before.items():
        np.testing.assert_array_equal(bits(getattr(spec, name)), before)


def test_c17_returns_the_object_that_is_a_view():
    cache = filled((2, *SHAPE), torch.float16, salt=1)[1]
    states = filled((2, SHAPE[1], SHAPE[3]), torch.float16, salt=2)
    assert (
        bridges.store_single_(cache, states, SlotMapping(np.int32([0, 9])).map(torch.from_numpy))
        is cache
    )


NOTHING = {
    "slots": SlotMapping(np.int32([PAD, -7, -(2**31)])),
    "slots past the cache": SlotMapping(np.int64([35, 2**32, 2**62])),
    "decode": table([[0], [1], [2]], [-1, -5, -(2**31)]).index_spec,
    "holes": table([[PAD, PAD]], [4], [3]).index_spec,
    "chunks": ChunkPlan(np.int32([[0, 0, 0, 0], [0, PAD, 0, 3]])),
    "cu_q_lens": BlockTable(np.int32([[0]]), np.int32([0]), np.int32([1, 3])),
}


@pytest.mark.parametrize("what", NOTHING)
def test_where_no_token_is_stored_every_bit_stays(what):
    # Slot 0 too: it is what a skipped write repeats.
    cache = filled(SHAPE, torch.bfloat16, salt=1)
    before = bits(cache)
    states = filled((3, SHAPE[1], SHAPE[3]), torch.bfloat16, salt=2)
    bridges.store_single_(cache, states, NOTHING[what].map(torch.from_numpy))
    np.testing.assert_array_equal(bits(cache), before)


EMPTY = {
    "no tokens": (SHAPE, 0, SlotMapping(np.int32([]))),
    "no tokens in a row": (SHAPE, 0, table([[0, 1]], [0], [0]).index_spec),
    "no blocks": ((0, *SHAPE[1:]), 2, SlotMapping(np.int32([0, 1]))),
    "no blocks in decode": ((0, *SHAPE[1:]), 2, table([[0], [0]], [0, 1]).index_spec),
    "no rows": (SHAPE, 2, table([], []).index_spec),
    "no columns": (SHAPE, 2, table([[], []], [0, 3]).index_spec),
    "no chunks": (SHAPE, 2, ChunkPlan(np.zeros((0, 4), np.int32))),
    "no slots": (SHAPE, 2, SlotMapping(np.int32([]))),
    "no heads": ((7, 0, 5, 4), 2, SlotMapping(np.int32([0, 1]))),
    "no head_dim": ((7, 3, 5, 0), 2, SlotMapping(np.int32([0, 1]))),
}


class Own(torch.Tensor):
    """Of a class that may have no values to read: stored as on a device."""


@pytest.mark.parametrize("kind", [torch.Tensor, Own])
@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("what", EMPTY)
def test_c18_empty_axes_store_nothing(what, planned, kind):
    shape, num_tokens, spec = EMPTY[what]
    cache = filled(shape, torch.bfloat16, salt=1)
    before = bits(cache)
    states = filled((num_tokens, shape[1], shape[3]), torch.bfloat16, salt=2)
    spec = spec.map(lambda array: torch.from_numpy(array).as_subclass(kind))
    if planned:
        spec = bridges.plan(spec, cache=cache, num_tokens=num_tokens)
    assert bridges.store_single_(cache, states, spec) is cache
    np.testing.assert_array_equal(bits(cache), before)


@pytest.mark.parametrize("planned", [False, True], ids=["spec", "plan"])
@pytest.mark.parametrize("form", FORMS)
def test_c10_more_states_than_tokens(form, planned):
    spec, more = FORMS[form], STEP.num_tokens + 4
    cache = filled(SHAPE, torch.float32, salt=1)
    states = filled((more, SHAPE[1], SHAPE[3]), torch.float32, salt=2)
    expected = stored_by_reference(cache, states[: STEP.num_tokens], spec)
    given = spec.map(torch.from_numpy)
    if planned:
        given = bridges.plan(given, cache=cache, num_tokens=STEP.num_tokens)
    bridges.store_single_(cache, states, given)
    np.testing.assert_array_equal(bits(cache), expected)


def test_c10_more_states_than_tokens_in_a_strided_cache():
    # Not contiguous, so the call is looked at twice.
    both = filled((*SHAPE[:3], 2 * SHAPE[3]), torch.float32, salt=1)
    states = filled((4, SHAPE[1], SHAPE[3]), torch.float32, salt=2)
    spec = SlotMapping(np.int32([PAD, 6]))
    expected = bits(both)
    keys = expected[..., : SHAPE[3]]
    keys[...] = reference.store_single(keys, bits(states[:2]), spec)
    step = bridges.plan(spec.map(torch.from_numpy), cache=both, num_tokens=2)
    bridges.store_single_(both[..., : SHAPE[3]], states, step)
    np.testing.assert_array_equal(bits(both), expected)


def test_c11_fewer_states_than_a_plan_is_an_error_and_writes_nothing():
    cache = filled(SHAPE, torch.float32, salt=1)
    before = bits(cache)
    states = filled((3, SHAPE[1], SHAPE[3]), torch.float32, salt=2)
    step = bridges.plan(SlotMapping(torch.tensor([5, 6, 7])), cache=cache, num_tokens=3)
    message = r"states.shape\[0\] = 2 must be >= num_tokens = 3, which the plan was made for"
    with pytest.raises(SpecError, match=f"^C11: {message}$"):
        bridges.store_single_(cache, states[:2], step)
    np.testing.assert_array_equal(bits(cache), before)
    bridges.store_single_(cache, states, step)
    assert (bits(cache) != before).any()


def test_c11_tokens_past_the_states_are_not_stored():
    cache = filled(SHAPE, torch.float32, salt=1)
    states = filled((2, SHAPE[1], SHAPE[3]), torch.float32, salt=2)
    spec = SlotMapping(np.int32([5, 6, 7]))
    expected = stored_by_reference(cache, states, spec)
    bridges.store_single_(cache, states, spec.map(torch.from_numpy))
    np.testing.assert_array_equal(bits(cache), expected)
