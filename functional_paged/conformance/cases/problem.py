"""The input of one store, and what a backend is given of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from functional_paged import PAD, IndexSpec, SpecError, check_spec, reference

from ..bits import overwrite, pattern
from .guarded_cache import GuardedCache, Order, Shape
from .walls import before_a_wall

STATES_ALIGNMENT = 16
"""Bytes; kernels that move vectors ask for it, and a model's tensors have it."""


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
      payloads: whether the cache has any bits, NaN payloads among them (C16).
      source: for a transfer, where the rows are that stand in for the states, and the shape of the
        cache that holds them; `None` for the cache that is written.
      codec: name of the codec that is tried, if one is.
      scale: of a codec that is given one.
    """

    cache_shape: Shape
    dtype: np.dtype
    states: np.ndarray
    index_spec: IndexSpec
    layout: str = "contiguous"
    others: Sequence[IndexSpec] = ()
    payloads: bool = False
    source: tuple[IndexSpec, Shape | None] | None = None
    codec: str = ""
    scale: np.ndarray | None = None

    def guarded_cache(self, order: Order = "HND", salt: int = 1) -> GuardedCache:
        """A fresh cache, filled with its pattern."""
        made = GuardedCache.laid_out(
            self.cache_shape, self.dtype, self.layout, order=order, salt=salt
        )
        if self.payloads:
            made.buffer[...] = pattern(made.buffer.size, self.dtype, salt, payloads=True)
        return made

    def candidates(self) -> dict[int, list[int]]:
        """The tokens of each slot that more than one token is stored to (C15)."""
        tokens: dict[int, list[int]] = {}
        block_size = self.cache_shape[2]
        places = reference.stored_tokens(self.index_spec, self.cache_shape, self.states.shape[0])
        for token, block, offset in places:
            tokens.setdefault(block * block_size + offset, []).append(token)
        return {slot: named for slot, named in tokens.items() if len(named) > 1}

    def invalid_by_value(self) -> SpecError | None:
        """What `check_spec` says of the index spec, if it is not valid."""
        num_tokens = self.states.shape[0]
        try:
            check_spec(self.index_spec, cache_shape=self.cache_shape, num_tokens=num_tokens)
        except SpecError as error:
            return error
        return None


class Given:
    """The states and the index spec that a backend is given, in memory that ends where they do.

    Attributes:
      states: the problem's, what lies around strided ones included.
      index_spec: the problem's; each array ends at a wall.
    """

    def __init__(self, problem: Problem):
        states = problem.states
        memory = _memory_of(states)
        start = states.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
        copy = before_a_wall(memory, STATES_ALIGNMENT)
        self.states = np.ndarray(states.shape, states.dtype, copy, start, states.strides)
        self.index_spec = problem.index_spec.map(lambda array: before_a_wall(array, 1))
        self._memory = [copy, *self.index_spec.arrays().values()]
        self._before = self._bits()

    def changed(self) -> bool:
        """Whether it, or the memory between it and the walls, has other bits than before."""
        return self._bits() != self._before

    def overwrite(self) -> None:
        """Spoil it: other bits in the states, an index spec that stores nothing."""
        overwrite(self._memory[0])
        for array in self.index_spec.arrays().values():
            array.fill(PAD)

    def _bits(self) -> list[bytes]:
        return [_memory_of(array).tobytes() for array in self._memory]


def _memory_of(array: np.ndarray) -> np.ndarray:
    """The array that owns an array's memory."""
    return array if not isinstance(array.base, np.ndarray) else array.base
