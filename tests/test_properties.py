"""Laws of the lowerings and of the value check, for any spec, valid or not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    check_spec,
    plan_chunks,
    reference,
    to_slots,
)
from functional_paged.conformance import strategies
from functional_paged.conformance.strategies import Sizes


@st.composite
def sized_specs(draw: st.DrawFn) -> tuple[Sizes, IndexSpec]:
    size = draw(strategies.sizes())
    return size, draw(strategies.index_specs(size))


def reference_places(spec: IndexSpec, size: Sizes) -> list[tuple[int, int]]:
    places = reference.stored_tokens(spec, size.cache_shape(), size.num_tokens)
    return [(token, block * size.block_size + offset) for token, block, offset in places]


@given(sized_specs())
def test_slots_agree_with_the_reference(sized: tuple[Sizes, IndexSpec]) -> None:
    size, spec = sized
    slots = to_slots(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens).slots
    want = np.full(size.num_tokens, PAD)
    for token, slot in reference_places(spec, size):
        want[token] = slot
    np.testing.assert_array_equal(slots, want)


@given(sized_specs())
def test_chunks_store_what_the_spec_stores(sized: tuple[Sizes, IndexSpec]) -> None:
    size, spec = sized
    plan = plan_chunks(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
    assert sorted(reference_places(plan, size)) == sorted(reference_places(spec, size))
    starts = [start for start, *_, length in plan.chunks.tolist() if length]
    assert starts == sorted(starts)
    # The plan breaks no clause of its own.
    if len({slot for _, slot in reference_places(spec, size)}) == len(reference_places(spec, size)):
        check_spec(plan, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)


PLANS = {
    "decode": (
        BlockTable(np.int32([[0, 1], [3, 1], [2, 1]]), np.int32([0, PAD, 2])),
        [[0, 0, 0, 1], [2, 2, 2, 1], [0, 0, 0, 0]],
    ),
    "prefill": (
        BlockTable(np.int32([[1, 0, 2, 9]] * 3), np.int32([2, 0, 0]), np.int32([0, 5, 5, 5])),
        [[0, 1, 2, 1], [1, 0, 0, 3], [4, 2, 0, 1]] + [[0, 0, 0, 0]] * (15 // 3 + 2 * 3 - 3),
    ),
    "totals that begin late": (
        BlockTable(np.int32([[1, 0]]), np.int32([0]), np.int32([1, 3])),
        [[0, 0, 0, 0]] * (15 // 3 + 2 * 1),
    ),
    "totals that decrease": (
        BlockTable(np.int32([[1, 0], [2, 3]]), np.int32([0, 0]), np.int32([0, 3, 2])),
        [[0, 0, 0, 0]] * (15 // 3 + 2 * 2),
    ),
    "a chunk that cuts another": (
        ChunkPlan(np.int32([[0, 1, 0, 3], [1, 2, 0, 1], [3, 2, 0, 0]])),
        [[0, 1, 0, 1], [2, 1, 2, 1], [0, 0, 0, 0]],
    ),
    "slots": (
        SlotMapping(np.int32([0, 1, 2, 3, 5, PAD, 11])),
        [[0, 0, 0, 3], [3, 1, 0, 1], [4, 1, 2, 1], [6, 3, 2, 1]] + [[0, 0, 0, 0]] * (15 - 4),
    ),
}


@pytest.mark.parametrize("name", PLANS)
def test_a_plan_has_a_row_a_run_and_rows_of_zeros_up_to_its_bound(name: str) -> None:
    spec, want = PLANS[name]
    plan = plan_chunks(spec, cache_shape=(4, 1, 3, 1), num_tokens=15)
    assert plan.chunks.tolist() == want
    # The definition, apart from both lowerings.
    assert list(reference.stored_tokens(spec, (4, 1, 3, 1), 15)) == [
        (start + i, block, offset + i)
        for start, block, offset, length in want
        for i in range(length)
    ]


@pytest.mark.parametrize(
    "broken", [[-1, 1, 0, 2], [0, 2, -1, 2], [0, 1, 1, 3], [0, 1, 0, -1], [3, 1, 1, -1]], ids=str
)
def test_c13_a_broken_chunk_is_left_out_and_takes_no_other_with_it(broken: list[int]) -> None:
    spec = ChunkPlan(np.int32([[1, 3, 0, 3], broken]))
    slots = to_slots(spec, cache_shape=(4, 1, 3, 1), num_tokens=4).slots
    assert slots.tolist() == [PAD, 9, 10, 11]
    stored = list(reference.stored_tokens(spec, (4, 1, 3, 1), 4))
    assert stored == [(1, 3, 0), (2, 3, 1), (3, 3, 2)]


@given(sized_specs(), st.data())
def test_padding_a_spec_changes_nothing(sized: tuple[Sizes, IndexSpec], data: Any) -> None:
    size, spec = sized
    amount = data.draw(st.integers(1, 3))
    if isinstance(spec, BlockTable):
        rubbish = np.full(
            (amount, spec.block_table.shape[1]), data.draw(st.integers(-5, 9)), np.int32
        )
        cu_q_lens = spec.cu_q_lens
        if cu_q_lens is not None:
            cu_q_lens = np.append(cu_q_lens, np.repeat(cu_q_lens[-1], amount))
        padded: IndexSpec = BlockTable(
            np.concatenate([spec.block_table, rubbish]),
            np.append(spec.context_kv_lens, np.full(amount, PAD, np.int32)),
            cu_q_lens,
        )
    elif isinstance(spec, ChunkPlan):
        padded = ChunkPlan(np.concatenate([spec.chunks, np.int32([[7, 7, 7, 0]] * amount)]))
    else:
        padded = type(spec)(np.append(spec.slots, np.full(amount, PAD, spec.slots.dtype)))
    if (
        isinstance(padded, BlockTable)
        and padded.cu_q_lens is not None
        and (padded.cu_q_lens < 0).any()
    ):
        return  # a total that ends below 0 is broken either way, and the last is repeated
    assert reference_places(padded, size) == reference_places(spec, size)


def broken_clauses(spec: IndexSpec, size: Sizes) -> set[str]:
    """Which value clauses a spec breaks, told slowly and from the clauses' words alone."""
    broken = set()
    named: list[tuple[int, int, int]] = []  # token, block, offset
    if isinstance(spec, BlockTable):
        contexts, table = spec.context_kv_lens.tolist(), spec.block_table.tolist()
        cu = list(range(len(contexts) + 1)) if spec.cu_q_lens is None else spec.cu_q_lens.tolist()
        if cu[0] != 0 or any(cu[i] > cu[i + 1] for i in range(len(contexts))):
            return {"C21"}
        for row, context in enumerate(contexts):
            if context < 0:
                continue
            if cu[row + 1] > cu[row] and cu[row + 1] > size.num_tokens:
                broken.add("C11")
            for token in range(cu[row], min(cu[row + 1], size.num_tokens)):
                position = context + token - cu[row]
                if position // size.block_size < len(table[row]):
                    block = table[row][position // size.block_size]
                    named.append((token, block, position % size.block_size))
    elif isinstance(spec, ChunkPlan):
        tokens: list[int] = []
        for start, block, offset, length in spec.chunks.tolist():
            if length == 0:
                continue
            if length < 0 or start < 0 or offset < 0 or offset + length > size.block_size:
                broken.add("C13")
                continue
            if start + length > size.num_tokens:
                broken.add("C11")
            tokens += range(start, start + length)
            named += [(start + i, block, offset + i) for i in range(length)]
        if len(set(tokens)) < len(tokens):
            broken.add("C13")
            named = [place for place in named if tokens.count(place[0]) == 1]
    else:
        for token, slot in enumerate(spec.slots.tolist()):
            if slot >= 0 and token >= size.num_tokens:
                broken.add("C11")
            named.append((token, slot // size.block_size, slot % size.block_size))
    named = [place for place in named if place[0] < size.num_tokens]
    if any(block >= size.num_blocks for _, block, _ in named):
        broken.add("C12")
    stored = [(b, o) for _, b, o in named if 0 <= b < size.num_blocks]
    if len(set(stored)) < len(stored):
        broken.add("C15")
    return broken


@given(sized_specs())
def test_check_spec_names_a_clause_that_is_broken(sized: tuple[Sizes, IndexSpec]) -> None:
    size, spec = sized
    broken = broken_clauses(spec, size)
    if not broken:
        check_spec(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
        return
    with pytest.raises(SpecError) as caught:
        check_spec(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
    assert caught.value.clause in broken
