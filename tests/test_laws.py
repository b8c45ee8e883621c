"""Laws of a store, for whole problems: any form, size, dtype, layout, valid or hostile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    plan_chunks,
    reference,
    to_slots,
)
from functional_paged.conformance import Problem, find_adapter, strategies
from functional_paged.conformance.bits import as_bits
from functional_paged.conformance.run.compare import judge_store

# JAX compiles anew for each problem, so its laws are tried on stacks of specs elsewhere.
BACKENDS = pytest.mark.parametrize("name", ["reference", "torch"])


def store(name: str, problem: Problem, spec: IndexSpec | None = None) -> np.ndarray:
    given_cache = problem.guarded_cache()
    chosen = problem.index_spec if spec is None else spec
    return find_adapter(name).store(given_cache.cache, problem.states, chosen)


def slots_of(problem: Problem) -> np.ndarray:
    num_tokens = problem.states.shape[0]
    spec, shape = problem.index_spec, problem.cache_shape
    return to_slots(spec, cache_shape=shape, num_tokens=num_tokens).slots


def assert_same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(as_bits(actual), as_bits(expected))


@BACKENDS
@given(problem=strategies.problems())
def test_a_store_equals_the_reference_and_touches_nothing_else(name: str, problem: Problem) -> None:
    cache = problem.guarded_cache()
    before = cache.buffer.copy()
    returned = find_adapter(name).store(cache.cache, problem.states, problem.index_spec)
    assert judge_store(problem, cache, before, returned) is None


@BACKENDS
@given(problem=strategies.problems())
def test_a_store_twice_is_a_store_once(name: str, problem: Problem) -> None:
    assume(not problem.candidates())
    once = store(name, problem)
    twice = find_adapter(name).store(once.copy(), problem.states, problem.index_spec)
    assert_same_bits(twice, once)


@BACKENDS
@given(problem=strategies.problems(), data=st.data())
def test_stores_to_disjoint_slots_commute(name: str, problem: Problem, data: Any) -> None:
    assume(not problem.candidates())
    slots = slots_of(problem)
    mine = np.array(data.draw(st.lists(st.booleans(), min_size=slots.size, max_size=slots.size)))
    first = SlotMapping(np.where(mine.astype(bool), slots, PAD).astype(slots.dtype))
    second = SlotMapping(np.where(mine.astype(bool), PAD, slots).astype(slots.dtype))
    adapter, states = find_adapter(name), problem.states
    one = adapter.store(store(name, problem, first).copy(), states, second)
    other = adapter.store(store(name, problem, second).copy(), states, first)
    assert_same_bits(one, other)
    assert_same_bits(one, store(name, problem))


@BACKENDS
@given(problem=strategies.problems())
def test_the_three_forms_agree(name: str, problem: Problem) -> None:
    assume(not problem.candidates())
    num_tokens, shape = problem.states.shape[0], problem.cache_shape
    want = store(name, problem)
    assert_same_bits(store(name, problem, SlotMapping(slots_of(problem))), want)
    plan = plan_chunks(problem.index_spec, cache_shape=shape, num_tokens=num_tokens)
    assert_same_bits(store(name, problem, plan), want)


@BACKENDS
@given(problem=strategies.problems())
def test_a_load_gives_back_what_was_stored(name: str, problem: Problem) -> None:
    assume(not problem.candidates())
    num_tokens = problem.states.shape[0]
    loaded = reference.load_single(store(name, problem).copy(), problem.index_spec, num_tokens)
    stored = slots_of(problem) >= 0
    assert_same_bits(loaded[stored], problem.states[stored])
    assert not as_bits(loaded[~stored]).any()


@BACKENDS
@given(problem=strategies.problems(), data=st.data())
def test_permuting_block_ids_permutes_the_cache(name: str, problem: Problem, data: Any) -> None:
    assume(not problem.candidates())
    num_blocks, _, block_size, _ = problem.cache_shape
    order = np.array(data.draw(st.permutations(range(num_blocks))), np.int64)

    def moved(block: np.ndarray) -> np.ndarray:
        inside = (block >= 0) & (block < num_blocks)
        new = order[np.where(inside, block, 0)] if num_blocks else block
        return np.where(inside, new, block).astype(block.dtype)

    spec = problem.index_spec
    if isinstance(spec, BlockTable):
        spec = BlockTable(moved(spec.block_table), spec.context_kv_lens, spec.cu_q_lens)
    elif isinstance(spec, ChunkPlan):
        chunks = spec.chunks.copy()
        chunks[:, 1] = moved(chunks[:, 1])
        spec = ChunkPlan(chunks)
    else:
        block = moved(spec.slots // block_size)
        spec = SlotMapping((block * block_size + spec.slots % block_size).astype(spec.slots.dtype))
    cache = problem.guarded_cache().cache
    shuffled = np.empty(cache.shape, cache.dtype)
    shuffled[order] = cache
    after = find_adapter(name).store(shuffled, problem.states, spec)
    assert_same_bits(after[order], store(name, problem))
