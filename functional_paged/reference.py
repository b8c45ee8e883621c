"""The definition: a store and a load as NumPy loops that anyone can review against `docs/spec.md`.

Nothing here uses `to_slots`; Python integers do not wrap.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import SupportsIndex, TypeAlias

import numpy as np

from . import _static_checks as static_checks
from ._sizes import CacheShape, as_size
from ._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._types import Shaped

Cache: TypeAlias = Shaped[np.ndarray, "num_blocks kv_heads block_size head_dim"]
States: TypeAlias = Shaped[np.ndarray, "num_tokens kv_heads head_dim"]
Place: TypeAlias = tuple[int, int, int]
"""A token, its block, its offset in the block."""


def store_single(cache: Cache, states: States, index_spec: IndexSpec) -> Cache:
    """Return a copy of `cache` with each stored token's row at its slot.

    Args:
      cache: the cache; left alone.
      states: one row a token, of the cache's dtype.
      index_spec: any of the three forms.

    Returns:
      A new cache: stored rows are the states' rows bit for bit, all else keeps its bits (C16).

    Raises:
      SpecError: C1-C4. What is invalid by value is not stored; `check_spec` reports it.

    Unspecified: which row a slot gets that two tokens store to (C15).

    Example:
      >>> cache = np.zeros((2, 1, 2, 1), np.int8)
      >>> states = np.int8([[[5]], [[6]]])
      >>> store_single(cache, states, BlockTable(np.int32([[1]]), np.int32([1]))).ravel()
      array([0, 0, 0, 5], dtype=int8)
    """
    static_checks.check_call(static_checks.REFERENCE, cache, states, index_spec)
    cache = cache.copy()
    for token, block, offset in stored_tokens(index_spec, cache.shape, states.shape[0]):
        cache[block, :, offset] = states[token]  # C16
    return cache


def load_single(cache: Cache, index_spec: IndexSpec, num_tokens: SupportsIndex) -> States:
    """Return the row at each token's slot; zeros for a token that is not stored."""
    static_checks.check_load(static_checks.REFERENCE, cache, index_spec)
    num_tokens = as_size("num_tokens", num_tokens)
    states = np.zeros((num_tokens, cache.shape[1], cache.shape[3]), cache.dtype)
    for token, block, offset in stored_tokens(index_spec, cache.shape, num_tokens):
        states[token] = cache[block, :, offset]
    return states


def stored_tokens(spec: IndexSpec, shape: CacheShape, num_tokens: int) -> Iterator[Place]:
    """Yield `(token, block, offset)` of each token that is stored, in the order of the spec."""
    num_blocks, _, block_size, _ = shape
    named = list(_NAMED[type(spec)](block_size, num_tokens, **vars(spec)))
    times_named = Counter(token for token, _, _ in named)
    for token, block, offset in named:
        alone = times_named[token] == 1  # C13
        if alone and token < num_tokens and 0 <= block < num_blocks:  # C8, C10, C11, C12, C14
            yield token, block, offset


def _of_a_table(block_size, num_tokens, block_table, context_kv_lens, cu_q_lens):
    decode = np.arange(len(context_kv_lens) + 1, dtype=np.int32)
    cu = decode if cu_q_lens is None else cu_q_lens
    if cu[0] != 0 or (cu[1:] < cu[:-1]).any():  # C21
        return
    for row in range(len(context_kv_lens)):
        context, start = int(context_kv_lens[row]), int(cu[row])
        for token in range(start, min(int(cu[row + 1]), num_tokens)):  # C7, C11
            column, offset = divmod(context + token - start, block_size)  # C5
            if context >= 0 and column < block_table.shape[1]:  # C6, C9
                yield token, int(block_table[row, column]), offset


def _of_a_plan(block_size, num_tokens, chunks):
    for start, block, offset, length in chunks.tolist():
        if start >= 0 and offset >= 0 and offset + length <= block_size:  # C13
            for i in range(length):
                yield start + i, block, offset + i


def _of_slots(block_size, num_tokens, slots):
    for token in range(len(slots)):
        yield token, int(slots[token]) // block_size, int(slots[token]) % block_size


_NAMED = {BlockTable: _of_a_table, ChunkPlan: _of_a_plan, SlotMapping: _of_slots}
