"""The drop-in for mojo_opset's store of one tensor, and for its planner."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bridges.ixformer import model
from bridges.ixformer.model import ModelFunctions
from bridges.mojo import MojoStorePagedSingleCache, build_paged_kv_chunk_metadata
from functional_paged import ChunkPlan, SpecError
from tests.guarded import PLAIN, Guarded, a_states, kit_steps
from tests.helpers import i32

SHAPE, DTYPE = PLAIN
TABLE = torch.tensor([[3, 1]], dtype=torch.int32)
CU = torch.tensor([0, 2], dtype=torch.int32)
CONTEXTS = torch.tensor([15], dtype=torch.int32)


@pytest.mark.parametrize("backend", ["torch", model.backend()])
@pytest.mark.parametrize("name", ["c5_decode", "c5_prefill", "c8_hole", "c9_past_the_table"])
def test_it_agrees_with_the_key_side_of_a_whole_store(name, backend):
    step = kit_steps(SHAPE)[name]
    spec, num_tokens = step.index_spec, step.num_tokens
    given_spec = spec.map(torch.from_numpy)
    arrays = (given_spec.block_table, given_spec.cu_q_lens, given_spec.context_kv_lens)
    states = a_states(num_tokens, SHAPE, DTYPE)
    whole, single, by_chunks = (Guarded(SHAPE, DTYPE) for _ in range(3))
    value = torch.zeros_like(whole.tensor)
    ModelFunctions().paged_store_kv_cache_with_block_table(
        states, states * 2, whole.tensor, value, *arrays
    )
    store = MojoStorePagedSingleCache(backend=backend)
    assert store(states, single.tensor, *arrays) is single.tensor  # C17
    chunks = build_paged_kv_chunk_metadata(*arrays, SHAPE[2])
    store(states, by_chunks.tensor, chunk_metadata=chunks)
    for cache in (single, by_chunks):
        assert torch.equal(cache.tensor.view(torch.int16), whole.tensor.view(torch.int16))
        cache.check(states, spec)


NOT_WHOLE = "C1: either chunk_metadata or both block_table and context_kv_lens must be given, got "


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, f"{NOT_WHOLE}none of them"),
        ({"block_table": TABLE}, f"{NOT_WHOLE}block_table"),
        (
            {"context_kv_lens": CONTEXTS, "cu_q_lens": CU},
            f"{NOT_WHOLE}cu_q_lens and context_kv_lens",
        ),
        (
            {"chunk_metadata": TABLE, "cu_q_lens": CU},
            "C1: chunk_metadata must come without cu_q_lens, got both",
        ),
        (
            {"chunk_metadata": TABLE, "block_table": TABLE, "context_kv_lens": CONTEXTS},
            "C1: chunk_metadata must come without block_table and context_kv_lens, got both",
        ),
        ({"chunk_metadata": TABLE}, "C1: chunks must have 4 columns"),
        (
            {"block_table": TABLE.long(), "context_kv_lens": CONTEXTS},
            "C4: block_table must be int32, got int64",
        ),
    ],
)
def test_c1_mixed_or_missing_arguments_are_an_error(arguments, text):
    cache, states = torch.zeros(4, 1, 16, 1), torch.zeros(2, 1, 1)
    with pytest.raises(SpecError) as error:
        MojoStorePagedSingleCache("torch")(states, cache, **arguments)
    assert text in str(error.value)
    # The valid twin, one change away.
    MojoStorePagedSingleCache("torch")(states, cache, TABLE, CU, CONTEXTS)


def chunks_by_loops(table, cu, contexts, block_size):
    """One chunk a row and block, in the order in which upstream's planner has them."""
    chunks = []
    for row, context in enumerate(contexts.tolist()):
        first, end = (row, row + 1) if cu is None else cu[row : row + 2].tolist()
        for column, block in enumerate(table[row].tolist()):
            low = max(context, column * block_size)
            high = min(context + end - first, (column + 1) * block_size)
            if context >= 0 and block >= 0 and low < high:
                chunks.append([first + low - context, block, low % block_size, high - low])
    return np.array(chunks, np.int32).reshape(-1, 4)


@st.composite
def tables(draw):
    batch, width, size = draw(st.integers(0, 4)), draw(st.integers(0, 4)), draw(st.integers(1, 5))
    blocks = st.lists(st.integers(-1, 3), min_size=width, max_size=width)
    table = draw(st.lists(blocks, min_size=batch, max_size=batch))
    contexts = draw(st.lists(st.integers(-2, 22), min_size=batch, max_size=batch))
    lengths = draw(st.lists(st.integers(0, 9), min_size=batch, max_size=batch))
    cu = np.cumsum([0, *lengths]).astype(np.int32) if draw(st.booleans()) else None
    return np.array(table, np.int32).reshape(batch, width), cu, np.array(contexts, np.int32), size


@settings(max_examples=200, deadline=None)
@given(tables())
def test_chunks_come_in_upstreams_order(case):
    table, cu, contexts, size = case
    arrays = [None if x is None else torch.from_numpy(x) for x in (table, cu, contexts)]
    chunks = build_paged_kv_chunk_metadata(*arrays, size)
    assert chunks.dtype == torch.int32
    np.testing.assert_array_equal(chunks.numpy(), chunks_by_loops(*case))


def test_c6_a_padded_row_may_name_any_tokens():
    arrays = torch.tensor([[0], [1]]).int(), torch.tensor([0, 1, 2**31 - 1]).int()
    chunks = build_paged_kv_chunk_metadata(*arrays, torch.tensor([3, -1]).int(), 4)
    assert chunks.tolist() == [[0, 0, 3, 1]]


def test_c21_an_invalid_cu_q_lens_gives_no_chunks():
    cu_q_lens = torch.tensor([0, 2, 1]).int()
    table, contexts = torch.tensor([[0], [1]]).int(), torch.tensor([0, 0]).int()
    assert build_paged_kv_chunk_metadata(table, cu_q_lens, contexts, 4).shape == (0, 4)


@pytest.mark.parametrize("block_size", [0, -1])
def test_c1_the_planner_checks_its_arguments(block_size):
    with pytest.raises(SpecError, match="C1: block_size"):
        build_paged_kv_chunk_metadata(TABLE, CU, CONTEXTS, block_size)
    with pytest.raises(SpecError, match="C4: block_table must be int32"):
        build_paged_kv_chunk_metadata(TABLE.long(), CU, CONTEXTS, 16)


def test_chunk_metadata_of_another_planner_is_taken():
    cache, states = Guarded(SHAPE, DTYPE), a_states(3, SHAPE, DTYPE)
    chunks = i32([0, 4, 15, 1], [1, 2, 0, 2])
    MojoStorePagedSingleCache("torch")(
        states, cache.tensor, chunk_metadata=torch.from_numpy(chunks)
    )
    cache.check(states, ChunkPlan(chunks))
