"""Memory in which every element has bits of its own, with a cache somewhere inside."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..bits import pattern

Shape = tuple[int, int, int, int]
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
