"""The input of one store, in memory that it may not change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from functional_paged import PAD, IndexSpec, reference

from ..bits import overwrite
from .guarded import GuardedCache


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

    cache_shape: tuple[int, int, int, int]
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
