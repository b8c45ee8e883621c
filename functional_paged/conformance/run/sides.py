"""The sides of a store, one tensor and its cache each: one, or a key's and a value's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np

from ..adapter import Adapter, traits_of
from ..cases.guarded_cache import GuardedCache, Order
from ..cases.problem import Given, Problem
from .compare import Mismatch, compare, judge_store

View: TypeAlias = tuple[int, tuple[int, ...], np.dtype, tuple[int, ...]]
"""Where a view begins in its buffer, in bytes, its shape, dtype and strides."""


@dataclass(frozen=True, eq=False)
class Side:
    """One tensor to store, as the adapter is given it, and the cache that it is stored into.

    The memory is the cache with its guards, and `before` its buffer as it was. The name stands
    before what is reported of a side; it is empty where there is one.
    """

    problem: Problem
    given: Given
    memory: GuardedCache
    before: np.ndarray
    name: str = ""

    @classmethod
    def of(cls, problem: Problem, order: Order, salt: int, name: str = "") -> Side:
        """A side with a fresh cache."""
        memory = problem.guarded_cache(order, salt)
        return cls(problem, Given(problem), memory, memory.buffer.copy(), name)

    def touched(self, what: str = "buffer") -> Mismatch | None:
        """The first element of cache and guards that was written."""
        return compare(self.name + what, self.memory.buffer, self.before, self.before)

    def judge(self, returned: np.ndarray) -> Mismatch | None:
        """What is wrong with the memory that a store left behind, and with what it returned."""
        wrong = judge_store(self.problem, self.memory, self.before, returned)
        return wrong and replace(wrong, what=self.name + wrong.what)

    def outline(self, returned: Any) -> View | str | None:
        """A view of this side's memory, what else came in words, or `None` for another array."""
        if isinstance(returned, np.ndarray) and np.shares_memory(returned, self.memory.buffer):
            start = returned.ctypes.data - self.memory.buffer.ctypes.data
            return start, returned.shape, returned.dtype, returned.strides
        if not hasattr(returned, "__array__"):
            return f"must return a NumPy array, got {type(returned).__qualname__}"
        return None

    def rebuilt(self, view: View) -> np.ndarray:
        """The view of this side's memory with an outline."""
        start, shape, dtype, strides = view
        return np.ndarray(shape, dtype, self.memory.buffer, start, strides)

    def read(self, returned: Any) -> np.ndarray | None:
        """An array that is not of this side's memory."""
        return np.asarray(returned) if self.outline(returned) is None else None


def sides_of(problem: Problem, adapter: Adapter) -> Iterator[list[Side]]:
    """The sides of each store to be made.

    A key and a value differ in every element and in the bits of their caches. Where a case is about
    strides, or about states that do not fit, one side at a time has them.
    """
    order = traits_of(adapter).order
    if not hasattr(adapter, "store_pair"):
        yield [Side.of(problem, order, 1)]
        return
    states, (_, kv_heads, _, head_dim) = problem.states, problem.cache_shape
    fits = states.dtype == problem.dtype and states.shape[1:] == (kv_heads, head_dim)
    fitting = states.copy() if fits else np.ones((len(states), kv_heads, head_dim), problem.dtype)
    plain = replace(problem, states=fitting, layout="contiguous")
    is_plain = fits and problem.layout == "contiguous" and states.flags.c_contiguous
    for key, value in [(problem, plain)] if is_plain else [(problem, plain), (plain, problem)]:
        yield [Side.of(key, order, 1, "key "), Side.of(_other_bits(value), order, 3, "value ")]


def _other_bits(problem: Problem) -> Problem:
    """The problem with each element of the states where another one was."""
    states = problem.states
    memory = states if not isinstance(states.base, np.ndarray) else states.base
    start = states.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    rolled = np.roll(memory.reshape(-1), 1)
    moved = np.ndarray(states.shape, states.dtype, rolled, start, states.strides)
    return replace(problem, states=moved)
