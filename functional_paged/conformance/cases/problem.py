"""The input of one store, in memory of which it may change only the slots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from functional_paged import PAD, IndexSpec, reference

from ..bits import overwrite, pattern

Shape: TypeAlias = tuple[int, int, int, int]
MARGIN = 256
"""Guard elements before and after a cache."""

LAYOUTS = ("contiguous", "packed_kv", "kv_pair", "token_major")
"""Layouts of a cache in memory: as it is; in the first half of the last axis of a `K|V` cache; as
the second of two caches that alternate by block; with its heads inside its tokens."""


@dataclass(eq=False)
class GuardedCache:
    """A cache inside a larger buffer of which no other element may change.

    Attributes:
      shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      dtype: one of `bits.DTYPES`.
      strides: of the cache, in elements.
      start: of the cache, in elements behind the first guard.
      buffer: all memory, filled with a pattern. dtype[elements]
      cache: the view that a store is given. dtype[num_blocks, kv_heads, block_size, head_dim]
    """

    shape: Shape
    dtype: np.dtype
    strides: Shape
    start: int = 0
    buffer: np.ndarray = field(init=False)
    cache: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        steps = zip(self.shape, self.strides, strict=True)
        span = sum((size - 1) * stride for size, stride in steps) + 1 if 0 not in self.shape else 0
        self.buffer = pattern(self.start + span + 2 * MARGIN, self.dtype, salt=1)
        self.cache = self.view_in(self.buffer)

    @classmethod
    def laid_out(cls, shape: Shape, dtype: np.dtype, layout: str) -> GuardedCache:
        """A cache in one of `LAYOUTS`."""
        _, kv_heads, block_size, head_dim = shape
        row = 2 * head_dim if layout == "packed_kv" else head_dim
        block = kv_heads * block_size * row
        if layout == "token_major":
            return cls(shape, dtype, (block, row, kv_heads * row, 1))
        if layout == "kv_pair":
            return cls(shape, dtype, (2 * block, block_size * row, row, 1), start=block)
        assert layout in LAYOUTS
        return cls(shape, dtype, (block, block_size * row, row, 1))

    def view_in(self, buffer: np.ndarray) -> np.ndarray:
        """The cache in a buffer of this size: this one's, or a copy of it."""
        size = self.dtype.itemsize
        start, strides = (MARGIN + self.start) * size, [stride * size for stride in self.strides]
        return np.ndarray(self.shape, self.dtype, buffer, start, strides)


@dataclass(frozen=True, eq=False)
class Problem:
    """The input of one store.

    Attributes:
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      dtype: of cache and states.
      states: `(num_tokens, kv_heads, head_dim)`; of another dtype or shape where that is the test.
      index_spec: of NumPy arrays.
      layout: one of `LAYOUTS`.
      others: index specs of the same shapes, each for a store of its own.
    """

    cache_shape: Shape
    dtype: np.dtype
    states: np.ndarray
    index_spec: IndexSpec
    layout: str = "contiguous"
    others: Sequence[IndexSpec] = ()

    def guarded_cache(self) -> GuardedCache:
        """A fresh cache, filled with its pattern."""
        return GuardedCache.laid_out(self.cache_shape, self.dtype, self.layout)

    def copy(self) -> Problem:
        """The problem in memory of its own, what lies around strided states included."""
        memory = _memory_of(self.states)
        start = self.states.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        shape, strides = self.states.shape, self.states.strides
        states = np.ndarray(shape, self.states.dtype, memory.copy(), start, strides)
        return replace(self, states=states, index_spec=self.index_spec.map(np.copy))

    def bits(self) -> list[bytes]:
        """All that a store is given and may not change, but for the cache."""
        arrays = (_memory_of(self.states), *self.index_spec.arrays().values())
        return [array.tobytes() for array in arrays]

    def overwrite(self) -> None:
        """Spoil what `bits` tells: other bits in the states, an index spec that stores nothing."""
        overwrite(_memory_of(self.states))
        for array in self.index_spec.arrays().values():
            array.fill(PAD)

    def candidates(self) -> dict[int, list[int]]:
        """The tokens of each slot that more than one token is stored to (C15)."""
        tokens: dict[int, list[int]] = {}
        block_size = self.cache_shape[2]
        places = reference.stored_tokens(self.index_spec, self.cache_shape, self.states.shape[0])
        for token, block, offset in places:
            tokens.setdefault(block * block_size + offset, []).append(token)
        return {slot: named for slot, named in tokens.items() if len(named) > 1}


def _memory_of(array: np.ndarray) -> np.ndarray:
    """The array that owns an array's memory."""
    return array if array.base is None else array.base
