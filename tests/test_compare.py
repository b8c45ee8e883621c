"""The judge of a store by itself: which bits it accepts, and what it says of others."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from functional_paged import SlotMapping, reference
from functional_paged.conformance.cases.guarded_cache import GuardedCache
from functional_paged.conformance.cases.suite import find_case
from functional_paged.conformance.run.compare import judge_large, judge_store
from tests.helpers import i32

TWICE = find_case("c15_one_slot_twice/slots/bf16/n5_h7_s33_d64")


def stored() -> tuple[Any, GuardedCache, np.ndarray]:
    """A problem with a contested slot, a cache that it was stored into, and its memory before."""
    problem = TWICE.build()
    given = GuardedCache.laid_out(problem.cache_shape, problem.states.dtype, "contiguous")
    before = given.buffer.copy()
    given.cache[...] = reference.store_single(given.cache, problem.states, problem.index_spec)
    return problem, given, before


@pytest.mark.parametrize("winner", [0, 1])
def test_c15_either_candidate_is_accepted_in_every_head_and_a_torn_row_is_not(winner: int) -> None:
    problem, given, before = stored()
    _, kv_heads, block_size, _ = problem.cache_shape
    for slot, tokens in problem.candidates().items():
        block, offset = divmod(slot, block_size)
        rows = problem.states[list(tokens)]
        for head in range(kv_heads):
            given.cache[block, head, offset] = rows[(head + winner) % 2, head]
    assert judge_store(problem, given, before, given.cache) is None
    given.cache[block, -1, offset, :3] = rows[0, -1, :3]
    given.cache[block, -1, offset, 3:] = rows[1, -1, 3:]
    wrong = judge_store(problem, given, before, given.cache)
    assert wrong is not None
    assert wrong.index[:3] == (block, kv_heads - 1, offset)


def test_c17_a_result_of_another_type_is_one_mismatch() -> None:
    problem, given, before = stored()
    wrong = judge_store(problem, given, before, given.cache.astype(np.float32))
    assert wrong is not None
    assert replace(wrong, expected="", actual="") == replace(
        wrong, what="result", index=(), expected="", actual="", count=1, clause="C17"
    )


def test_a_large_cache_is_judged_by_its_rows_and_by_what_else_is_not_zero() -> None:
    cache, states = np.zeros((2, 2, 2, 3), np.int8), np.ones((2, 2, 3), np.int8)
    problem: Any = SimpleNamespace(
        cache_shape=cache.shape, states=states, index_spec=SlotMapping(i32(3, 0))
    )
    right = reference.store_single(cache, states, problem.index_spec)
    assert judge_large(problem, right) is None
    right[1, 0, 0, 0] = 1
    stray = judge_large(problem, right)
    assert stray is not None
    assert (stray.written, stray.count) == (False, 1)
    right[1, 0, 1, 0] = 0
    missing = judge_large(problem, right)
    assert missing is not None
    assert missing.what == "row of token 0"
    assert (missing.expected, missing.actual) == ("0x01", "0x00")
