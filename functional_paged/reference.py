"""The definition: a store and a load as NumPy loops that anyone can review against `docs/spec.md`.

Nothing here uses `to_slots`; its integers have 64 bits or more, so that nothing wraps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex, TypeAlias

import numpy as np

from . import _static_checks as static_checks
from ._sizes import CacheShape, as_size
from ._spec import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._types import Integer, Shaped

Cache: TypeAlias = Shaped[np.ndarray, "num_blocks kv_heads block_size head_dim"]
States: TypeAlias = Shaped[np.ndarray, "num_tokens kv_heads head_dim"]
Slots: TypeAlias = Integer[np.ndarray, " num_tokens"]
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
    states = np.zeros((as_size("num_tokens", num_tokens), *cache.shape[1::2]), cache.dtype)
    for token, block, offset in stored_tokens(index_spec, cache.shape, len(states)):
        states[token] = cache[block, :, offset]
    return states


def stored_tokens(spec: IndexSpec, shape: CacheShape, num_tokens: int) -> Iterator[Place]:
    """Yield `(token, block, offset)` of each token that is stored, in order."""
    for token, slot in enumerate(slots_of(spec, shape, num_tokens).tolist()):
        if slot >= 0:
            yield token, slot // shape[2], slot % shape[2]


def slots_of(spec: IndexSpec, shape: CacheShape, num_tokens: int, loops: Any = None) -> Slots:
    """Return the slot of each token, `PAD` where it is not stored; `loops` may be compiled ones."""
    slots = np.full(num_tokens, PAD, np.int64)
    (loops or LOOPS)[type(spec)](slots, shape[2], *vars(spec).values())
    return np.where((slots >= 0) & (slots < shape[0] * shape[2]), slots, PAD)  # C8, C12, C14


def _of_a_table(slots, block_size, block_table, context_kv_lens, cu_q_lens):
    cu = np.arange(len(context_kv_lens) + 1, dtype=np.int32) if cu_q_lens is None else cu_q_lens
    ascending = cu[0] == 0 and (cu[1:] >= cu[:-1]).all()  # C21
    for row in range(len(context_kv_lens) if ascending else 0):
        context, start = int(context_kv_lens[row]), int(cu[row])
        for token in range(start, min(int(cu[row + 1]), len(slots))):  # C7, C10, C11
            column, offset = divmod(context + token - start, block_size)  # C5
            if context >= 0 and column < block_table.shape[1]:  # C6, C9
                slots[token] = int(block_table[row, column]) * block_size + offset


def _of_a_plan(slots, block_size, chunks):
    times_named, chunks = np.zeros(len(slots), np.int64), chunks.astype(np.int64)
    for i in range(len(chunks)):
        start, block, offset, length = chunks[i, 0], chunks[i, 1], chunks[i, 2], chunks[i, 3]
        if start >= 0 and offset >= 0 and offset + length <= block_size:  # C13
            for token in range(start, min(start + length, len(slots))):  # C10, C11
                times_named[token] += 1
                alone = times_named[token] == 1  # C13
                slots[token] = block * block_size + offset + token - start if alone else PAD


def _of_slots(slots, block_size, given):
    slots[: len(given)] = given[: len(slots)]  # C10, C11


LOOPS: dict[type, Callable[..., None]] = {
    BlockTable: _of_a_table,
    ChunkPlan: _of_a_plan,
    SlotMapping: _of_slots,
}
"""`loop(slots, block_size, *arrays)` of each form: puts into `slots` where the spec names a token,
in the cache or not. Numba can compile them as they are."""
