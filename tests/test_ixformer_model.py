"""The software model does what its semantics say, and only ever harms its own memory."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

import bridges
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import BlockTable, reference
from tests.guarded import ODD, PLAIN, Guarded, a_states, kit_steps
from tests.helpers import i32
from tests.plausible import PLAUSIBLE


def run(spec, shape=(4, 1, 2, 1), num_tokens=None, **semantics):
    """Store rows 1, 2, ... as a pair into zeros; returns both caches as blocks of positions."""
    functions = ModelFunctions(KernelSemantics(**semantics))
    cu = spec.cu_q_lens
    num_tokens = num_tokens or (len(spec.context_kv_lens) if cu is None else int(cu[-1]))
    states = torch.arange(1.0, num_tokens + 1)[:, None, None]
    caches = torch.zeros(shape), torch.zeros(shape)
    given = spec.map(torch.from_numpy)
    functions.paged_store_kv_cache_with_block_table(
        states, -states, *caches, given.block_table, given.cu_q_lens, given.context_kv_lens
    )
    assert torch.equal(caches[0], -caches[1])
    return caches[0].reshape(shape[0], shape[2]).tolist()


PREFILL = BlockTable(i32([2, -1, 0]), i32(1), i32(0, 4))


@pytest.mark.parametrize(
    ("hole", "cache"),
    [
        ("skip", [[4, 0], [0, 0], [0, 1], [0, 0]]),
        ("stop", [[0, 0], [0, 0], [0, 1], [0, 0]]),
        ("last", [[4, 0], [0, 0], [0, 1], [2, 3]]),
        ("before", [[4, 0], [0, 0], [0, 1], [2, 3]]),  # wraps around this small memory
    ],
)
def test_c8_what_a_hole_may_do(hole, cache):
    assert run(PREFILL, hole=hole) == cache


def test_c9_a_short_table_may_be_read_past_its_row():
    spec = BlockTable(i32([1, 2], [3, 0]), i32(3, -1), i32(0, 2, 2))
    assert run(spec) == [[0, 0], [0, 0], [0, 1], [0, 0]]
    assert run(spec, short_table="next") == [[0, 0], [0, 0], [0, 1], [2, 0]]


@pytest.mark.parametrize(
    ("value", "cache"),
    [
        ("skip", [[0, 0], [0, 0], [0, 0], [0, 0]]),
        ("zero", [[0, 0], [1, 0], [0, 0], [0, 0]]),
        ("before", [[0, 1], [0, 0], [0, 0], [0, 0]]),
    ],
)
def test_c6_what_a_negative_context_may_do(value, cache):
    decode = BlockTable(i32([1]), i32(-1))
    assert run(decode, negative_decode=value) == cache
    prefill = BlockTable(i32([1]), i32(-1), i32(0, 1))
    assert run(prefill, negative_prefill=value) == cache


def test_c7_an_empty_row_may_store_a_token():
    spec = BlockTable(i32([1], [3]), i32(0, 0), i32(0, 0, 1))
    assert run(spec) == [[0, 0], [0, 0], [0, 0], [1, 0]]
    assert run(spec, empty_row="one") == [[0, 0], [1, 0], [0, 0], [1, 0]]


def test_c10_spare_states_may_be_appended_or_refused():
    spec = BlockTable(i32([1]), i32(0), i32(0, 1))
    assert run(spec, num_tokens=2) == [[0, 0], [1, 0], [0, 0], [0, 0]]
    assert run(spec, num_tokens=2, spare_states="append") == [[0, 0], [1, 2], [0, 0], [0, 0]]
    with pytest.raises(RuntimeError, match="number of states"):
        run(spec, num_tokens=2, spare_states="raises")


def test_other_block_sizes_may_be_shifted():
    spec = BlockTable(i32([0, 1]), i32(2))
    assert run(spec, (2, 1, 3, 1)) == [[0, 0, 1], [0, 0, 0]]
    assert run(spec, (2, 1, 3, 1), block_sizes=frozenset({16}), other_block_sizes="shifted") == [
        [0, 0, 0],
        [1, 0, 0],
    ]


@pytest.mark.parametrize("side", ["key", "value", "both", "neither"])
def test_store_mode_writes_the_sides_that_it_says(side):
    caches = torch.zeros(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    states, table = torch.ones(1, 1, 1), torch.zeros(1, 1, dtype=torch.int32)
    ModelFunctions(KernelSemantics(store_mode=side)).paged_store_kv_cache_with_block_table(
        states, states, *caches, table, None, table[0], store_mode=1
    )
    written = {"key": [1, 0], "value": [0, 1], "both": [1, 1], "neither": [0, 0]}[side]
    assert [cache.item() for cache in caches] == written


def test_a_wheel_without_store_mode_raises_type_error():
    store = ModelFunctions(KernelSemantics(store_mode="missing"))
    with pytest.raises(TypeError, match="store_mode"):
        store.paged_store_kv_cache_with_block_table(*[None] * 7, store_mode=1)


@pytest.mark.parametrize(
    ("aliased", "row"), [("safe", [1, 1]), ("stale", [0, 0]), ("torn", [1, 0])]
)
def test_what_one_tensor_for_both_sides_may_do(aliased, row):
    cache, states = torch.zeros(1, 1, 1, 2), torch.ones(1, 1, 2)
    table = torch.zeros(1, 1, dtype=torch.int32)
    store = ModelFunctions(KernelSemantics(aliased=aliased)).paged_store_kv_cache_with_block_table
    store(states, states, cache, cache, table, None, table[0])
    assert cache.flatten().tolist() == row


@pytest.mark.parametrize("shape_and_dtype", [PLAIN, ODD], ids=["plain", "odd"])
@pytest.mark.parametrize(
    "name",
    [n for n, s in kit_steps(ODD[0]).items() if isinstance(s.index_spec, BlockTable)],
)
def test_the_default_wheel_is_the_reference(name, shape_and_dtype):
    shape, dtype = shape_and_dtype
    step = kit_steps(shape)[name]
    spec, num_tokens = step.index_spec, step.num_tokens
    functions = ModelFunctions()
    cache, states = Guarded(shape, dtype), a_states(num_tokens, shape, dtype)
    given = spec.map(torch.from_numpy)
    pair = (states, states, cache.tensor, cache.tensor)
    functions.paged_store_kv_cache_with_block_table(
        *pair, given.block_table, given.cu_q_lens, given.context_kv_lens
    )
    cache.check(states, spec)


def test_c16_bits_may_be_lost_where_the_semantics_say_so():
    spec = BlockTable(i32([0]), i32(0))
    states = np.array([[[0x7F81, 3]]], np.int16)
    expected = reference.store_single(np.zeros((1, 1, 1, 2), np.int16), states, spec).ravel()
    for semantics, lost in (
        ({}, expected.tolist()),
        ({"nan": "quieted"}, [0x7FC0, 3]),
        ({"dtypes": frozenset({torch.float32}), "other_dtypes": "rounded"}, [0x7F80, 2]),
        ({"head_dims": frozenset({128}), "other_head_dims": "cut"}, [0, 0]),
    ):
        bits = torch.zeros(1, 1, 1, 2, dtype=torch.int16)
        cache, rows = bits.view(torch.bfloat16), torch.from_numpy(states).view(torch.bfloat16)
        table = torch.zeros(1, 1, dtype=torch.int32)
        store = ModelFunctions(KernelSemantics(**semantics)).paged_store_kv_cache_with_block_table
        store(rows, rows, cache, cache, table, None, table[0])
        assert bits.flatten().tolist() == lost


def test_every_unknown_has_a_plausible_alternative():
    varied = {name for values in PLAUSIBLE.values() for value in values for name in value}
    assert varied == {field.name for field in fields(KernelSemantics)}


def test_the_model_is_never_chosen_by_itself():
    plan = bridges.plan(
        BlockTable(i32([0]), i32(0)).map(torch.from_numpy),
        cache=torch.zeros(1, 1, 1, 1),
        num_tokens=1,
    )
    assert plan.backend != "ixformer-model"
