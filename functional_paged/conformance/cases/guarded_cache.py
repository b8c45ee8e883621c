"""A cache in memory of which a store may change only the slots."""

from __future__ import annotations

import functools
import mmap
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from ..bits import pattern
from .walls import walled

Shape: TypeAlias = tuple[int, int, int, int]
Order: TypeAlias = Literal["HND", "NHD"]
GUARD_BLOCKS = 2
"""Blocks that a guard has room for on either side of a cache, at the least."""

LAYOUTS = ("contiguous", "packed_kv", "kv_pair", "token_major", "padded_blocks", "lone_head")
"""Layouts of a cache in memory: as it is; in the first half of the last axis of a `K|V` cache; as
the second of two caches that alternate by block, of K and V or of two layers; with its heads inside
its tokens; with room after each block; with a stride between heads that means nothing, where there
is one head."""


@dataclass(eq=False)
class GuardedCache:
    """A cache between guards, of which no element may change, between walls.

    Attributes:
      shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      dtype: one of `bits.DTYPES`.
      strides: of the cache, in elements.
      start: of the cache, in elements behind the first guard.
      salt: of the pattern.
      buffer: all memory, filled with a pattern. dtype[elements]
      cache: the view that a store is given. dtype[num_blocks, kv_heads, block_size, head_dim]
    """

    shape: Shape
    dtype: np.dtype
    strides: Shape
    start: int = 0
    salt: int = 1
    buffer: np.ndarray = field(init=False)
    cache: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        steps = zip(self.shape, self.strides, strict=True)
        span = sum((size - 1) * stride for size, stride in steps) + 1 if 0 not in self.shape else 0
        end = self._guard + (self.start + span) * self.dtype.itemsize
        self.buffer = walled(end + self._guard).view(self.dtype)
        self.buffer[...] = _pattern(self.buffer.size, self.dtype, self.salt)
        self.cache = self.view_in(self.buffer)

    @classmethod
    def laid_out(
        cls, shape: Shape, dtype: np.dtype, layout: str, *, order: Order = "HND", salt: int = 1
    ) -> GuardedCache:
        """A cache in one of `LAYOUTS`; with order "NHD", tokens lie outside of heads."""
        assert layout in LAYOUTS
        _, kv_heads, block_size, head_dim = shape
        row = 2 * head_dim if layout == "packed_kv" else head_dim
        block = kv_heads * block_size * row
        is_token_major = (layout == "token_major") != (order == "NHD")
        heads, tokens = (row, kv_heads * row) if is_token_major else (block_size * row, row)
        if layout == "lone_head" and kv_heads == 1:
            heads = 3
        if layout == "padded_blocks":
            block += 16 // dtype.itemsize
        if layout == "kv_pair":
            return cls(shape, dtype, (2 * block, heads, tokens, 1), block, salt)
        return cls(shape, dtype, (block, heads, tokens, 1), salt=salt)

    @property
    def _guard(self) -> int:
        """Bytes of a guard: whole pages, so that a cache without a start has any alignment."""
        size = GUARD_BLOCKS * max(self.strides) * self.dtype.itemsize
        return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE

    def view_in(self, buffer: np.ndarray) -> np.ndarray:
        """The cache in a buffer of this size: this one's, or a copy of it."""
        size = self.dtype.itemsize
        start, strides = self._guard + self.start * size, [stride * size for stride in self.strides]
        return np.ndarray(self.shape, self.dtype, buffer, start, strides)


@functools.lru_cache(maxsize=8)
def _pattern(size: int, dtype: np.dtype, salt: int) -> np.ndarray:
    return pattern(size, dtype, salt)  # neighbouring cases have the same sizes
