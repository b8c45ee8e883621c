"""C1 for the numbers beside the arrays: integers of any type, checked wherever they are taken."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import pytest

import functional_paged
from functional_paged import (
    BlockTable,
    ChunkPlan,
    SlotMapping,
    SpecError,
    check_spec,
    explain,
    plan_chunks,
    reference,
    to_slots,
)
from tests.helpers import i32

SHAPE = (6, 1, 2, 3)
SPECS = {
    "block_table": BlockTable(i32([4, 2]), i32(1), i32(0, 2)),
    "decode": BlockTable(i32([4, 2], [5, 0]), i32(1, 2)),
    "chunks": ChunkPlan(i32([0, 4, 1, 1])),
    "slots": SlotMapping(i32(9, 4)),
}
CALLS = {
    "check_spec": check_spec,
    "to_slots": to_slots,
    "plan_chunks": plan_chunks,
    "explain": explain,
}


class Three(enum.IntEnum):
    THREE = 3


class Indexed:
    def __index__(self) -> int:
        return 3


INTEGERS = {
    "int": 3,
    "numpy": np.int64(3),
    "unsigned": np.uint8(3),
    "0-d array": np.array(3),
    "enum": Three.THREE,
    "__index__": Indexed(),
}
NO_INTEGERS = {
    "float": (2.0, "2.0"),
    "numpy float": (np.float32(2), repr(np.float32(2))),
    "bool": (True, "True"),
    "numpy bool": (np.True_, repr(np.True_)),
    "None": (None, "None"),
    "str": ("2", "'2'"),
    "array": (i32(2, 3), repr(i32(2, 3))),
}


def result(call: Any, spec: Any, **sizes: Any) -> Any:
    got = CALLS[call](spec, **sizes)
    if isinstance(got, SlotMapping | ChunkPlan):
        return [array.tolist() for array in got.arrays().values()]
    return got


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("value", INTEGERS.values(), ids=INTEGERS)
def test_c1_integers_of_any_type_are_taken(call, name, value):
    want = result(call, SPECS[name], cache_shape=SHAPE, num_tokens=3)
    assert result(call, SPECS[name], cache_shape=SHAPE, num_tokens=value) == want
    as_three = (6, 1, value, value)
    want = result(call, SlotMapping(i32(9, 4)), cache_shape=(6, 1, 3, 3), num_tokens=2)
    assert result(call, SlotMapping(i32(9, 4)), cache_shape=as_three, num_tokens=2) == want


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("wrong", NO_INTEGERS)
def test_c1_what_is_no_integer_is_refused(call, name, wrong):
    value, shown = NO_INTEGERS[wrong]
    refused(call, SPECS[name], SHAPE, value, f"C1: num_tokens must be an integer, got {shown}")
    for axis, axis_name in enumerate(("num_blocks", "kv_heads", "block_size", "head_dim")):
        shape = (*SHAPE[:axis], value, *SHAPE[axis + 1 :])
        text = f"C1: {axis_name} = cache.shape[{axis}] must be an integer, got {shown}"
        refused(call, SPECS[name], shape, 2, text)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", SPECS)
def test_c1_negative_sizes_are_refused(call, name):
    refused(call, SPECS[name], SHAPE, -1, "C1: num_tokens must be >= 0, got -1")
    for axis, axis_name in enumerate(("num_blocks", "kv_heads", "block_size", "head_dim")):
        shape = (*SHAPE[:axis], np.int64(-4), *SHAPE[axis + 1 :])
        text = f"C1: {axis_name} = cache.shape[{axis}] must be >= 0, got -4"
        refused(call, SPECS[name], shape, 2, text)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("shape", [6, None, (6, 1, 2), (6, 1, 2, 3, 1)])
def test_c1_a_cache_shape_is_four_sizes(call, shape):
    refused(call, SPECS["slots"], shape, 2, "C1: cache")


@pytest.mark.parametrize("call", CALLS)
def test_c1_a_block_has_1_to_2_30_positions(call):
    for good in (1, 2**30):
        CALLS[call](SlotMapping(i32(0)), cache_shape=(1, 1, good, 1), num_tokens=1)
    for bad in (0, 2**30 + 1):
        with pytest.raises(
            SpecError, match=rf"^C1: block_size .* must be in 1..2\*\*30, got {bad}"
        ):
            CALLS[call](SlotMapping(i32(0)), cache_shape=(1, 1, bad, 1), num_tokens=1)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("dtype", [np.uint8, np.int16])
def test_c5_sizes_of_a_narrow_type_do_not_wrap(call, dtype):
    shape = (200, 1, 100, 3)
    spec = BlockTable(i32([199]), i32(99))
    want = result(call, spec, cache_shape=shape, num_tokens=1)
    assert result(call, spec, cache_shape=tuple(map(dtype, shape)), num_tokens=dtype(1)) == want


@pytest.mark.parametrize("wrong", [*NO_INTEGERS, "negative"])
def test_c1_load_of_the_reference_checks_num_tokens(wrong):
    value = -1 if wrong == "negative" else NO_INTEGERS[wrong][0]
    cache = np.arange(36, dtype=np.float32).reshape(SHAPE)
    with pytest.raises(SpecError, match=r"^C1: num_tokens must be"):
        reference.load_single(cache, SPECS["slots"], value)
    for integer in INTEGERS.values():
        assert reference.load_single(cache, SPECS["slots"], integer).shape == (3, 1, 3)


def refused(call: str, spec: Any, cache_shape: Any, num_tokens: Any, text: str) -> None:
    with pytest.raises(SpecError) as error:
        CALLS[call](spec, cache_shape=cache_shape, num_tokens=num_tokens)
    assert str(error.value).startswith(text)
    assert error.value.clause == "C1"


def test_sizes_that_torch_traces_stay_symbolic():
    torch = pytest.importorskip("torch")
    seen = []

    def lowered(slots, cache):
        seen.append(cache.shape[0])
        count = slots.shape[0]
        return functional_paged.to_slots(
            SlotMapping(slots), cache_shape=cache.shape, num_tokens=count
        ).slots

    from torch.fx.experimental.proxy_tensor import make_fx

    graph = make_fx(lowered, tracing_mode="symbolic")(torch.tensor([9, 4]), torch.zeros(SHAPE))
    assert type(seen[0]) is torch.SymInt
    slots = torch.tensor([9, 15, 4, -1, 11])
    assert graph(slots, torch.zeros(7, 1, 2, 3)).tolist() == [9, -1, 4, -1, 11]
