"""Hypothesis strategies for index specs and whole problems, valid and hostile.

Hypothesis is not a dependency; whoever imports this has it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping

from .bits import DTYPES
from .cases.crossing import pattern_of
from .cases.guarded_cache import LAYOUTS
from .cases.problem import Problem
from .cases.scenarios import INT32_MAX, INT32_MIN


@dataclass(frozen=True)
class Sizes:
    """Everything that a spec is relative to: the cache's blocks, and the rows of states."""

    num_blocks: int
    block_size: int
    num_tokens: int

    def cache_shape(self, kv_heads: int = 1, head_dim: int = 1) -> tuple[int, int, int, int]:
        """The shape of a cache of these sizes."""
        return (self.num_blocks, kv_heads, self.block_size, head_dim)


def sizes() -> st.SearchStrategy[Sizes]:
    """Small sizes, with empty ones and odd ones."""
    return st.builds(
        Sizes,
        num_blocks=st.integers(0, 6),
        block_size=st.sampled_from([1, 2, 3, 4, 7]),
        num_tokens=st.integers(0, 12),
    )


@st.composite
def block_tables(draw: st.DrawFn, size: Sizes, *, hostile: bool = True) -> BlockTable:
    """A block table in prefill or decode.

    Hostile ones break any clause that values decide. Others are valid: no block stands in two
    places, tokens fit the states, and there are holes, padded rows and tables that end early.
    """
    batch, width = draw(st.integers(0, 4)), draw(st.integers(0, 4))
    past = width * size.block_size + 1
    contexts = draw(_lists(_near(-1, past) if hostile else st.integers(-1, past), batch))
    is_decode = draw(st.booleans())
    lengths = [1] * batch if is_decode else draw(_lists(st.integers(0, 5), batch))
    cu_q_lens = np.cumsum([0, *lengths], dtype=np.int32)
    if hostile:
        entries = draw(_lists(_near(PAD, size.num_blocks), batch * width))
        if draw(st.integers(0, 3)) == 0:
            cu_q_lens[draw(st.integers(0, batch))] = draw(_near(-2, 8))
    else:
        entries = draw(_distinct(size.num_blocks, batch * width))
        cu_q_lens = np.minimum(cu_q_lens, size.num_tokens)
        contexts = [PAD if row >= size.num_tokens else c for row, c in enumerate(contexts)]
    table = np.array(entries, np.int32).reshape(batch, width)
    return BlockTable(table, np.array(contexts, np.int32), None if is_decode else cu_q_lens)


@st.composite
def chunk_plans(draw: st.DrawFn, size: Sizes, *, hostile: bool = True) -> ChunkPlan:
    """A chunk plan.

    Hostile ones leave their block, overlap and hold rubbish. Others are valid: each token and each
    block is in one chunk at most, some chunks have no block, and padding rows hold rubbish.
    """
    if hostile:
        past = (size.num_tokens + 1, size.num_blocks, size.block_size, size.block_size + 1)
        rows = draw(st.lists(st.tuples(*(_near(-1, last) for last in past)), max_size=5))
    else:
        rows, token = [], 0
        for block in draw(_distinct(size.num_blocks, draw(st.integers(0, 4)))):
            start = draw(st.integers(token, size.num_tokens))
            offset = draw(st.integers(0, size.block_size - 1))
            length = draw(st.integers(0, min(size.block_size - offset, size.num_tokens - start)))
            rubbish = draw(st.tuples(*[_near(-9, 9)] * 3))
            rows.append((start, block, offset, length) if length else (*rubbish, 0))
            token = start + length
        rows = draw(st.permutations(rows))
    return ChunkPlan(np.array(rows, np.int32).reshape(-1, 4))


@st.composite
def slot_mappings(draw: st.DrawFn, size: Sizes, *, hostile: bool = True) -> SlotMapping:
    """A slot mapping of either dtype, shorter or longer than the states.

    Hostile ones name slots past the cache, and slots twice. Others are valid: slots are distinct or
    negative, and negative past the states.
    """
    dtype = draw(st.sampled_from([np.int32, np.int64]))
    num_slots = size.num_blocks * size.block_size
    if hostile:
        slot = _near(-2, num_slots)
        if dtype is np.int64:
            slot |= st.sampled_from([2**32, 2**32 + 1, -(2**32) + 1, 2**63 - 1, -(2**63)])
        return SlotMapping(np.array(draw(st.lists(slot, max_size=14)), dtype))
    slots = draw(_distinct(num_slots, draw(st.integers(0, 14))))
    slots = [PAD if token >= size.num_tokens else slot for token, slot in enumerate(slots)]
    return SlotMapping(np.array(slots, dtype))


def index_specs(size: Sizes, *, hostile: bool = True) -> st.SearchStrategy[IndexSpec]:
    """A spec of any form, valid unless `hostile`, when it may be either."""
    forms = (block_tables, chunk_plans, slot_mappings)
    return st.one_of([form(size, hostile=hostile) for form in forms])


@st.composite
def problems(draw: st.DrawFn, *, hostile: bool = True) -> Problem:
    """A whole store: sizes, dtype, memory layout, strided states and a spec as `index_specs`."""
    size = draw(sizes())
    shape = size.cache_shape(draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 5, 8])))
    dtype = draw(st.sampled_from(list(DTYPES.values())))
    spec = draw(index_specs(size, hostile=hostile))
    # Rows of a larger tensor: every other token, a slice of its heads.
    step, more = draw(st.sampled_from([1, 2])), draw(st.integers(0, 2))
    whole = (step * size.num_tokens, shape[1] + more, shape[3])
    states = pattern_of(whole, dtype)[::step, more:]
    return Problem(shape, dtype, states, spec, draw(st.sampled_from(LAYOUTS)))


def _near(low: int, high: int) -> st.SearchStrategy[int]:
    return st.integers(low, high) | st.sampled_from([INT32_MIN, INT32_MAX, INT32_MAX - 1, -7])


def _lists(element: st.SearchStrategy[int], length: int) -> st.SearchStrategy[list[int]]:
    return st.lists(element, min_size=length, max_size=length)


@st.composite
def _distinct(draw: st.DrawFn, bound: int, length: int) -> list[int]:
    """Different numbers from 0 to below a bound, and a few negative ones, more where they end."""
    numbers = draw(st.permutations(range(bound)))
    holes = max(length - bound, draw(st.integers(0, min(length, 2))))
    negative = draw(_lists(st.sampled_from([PAD, PAD - 1, INT32_MIN]), holes))
    return draw(st.permutations([*negative, *numbers[: length - holes]]))
