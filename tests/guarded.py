"""The kit's guarded cache and steps for torch, and a store by a backend that is checked."""

from __future__ import annotations

import functools

import numpy as np
import torch

import bridges
from bridges import BackendUnsupported
from functional_paged import SpecError, check_spec, reference
from functional_paged.conformance import GuardedCache, Step, example_steps
from functional_paged.conformance.adapters.torch_memory import tensor_over
from functional_paged.conformance.bits import DTYPES, as_bits, short_name
from tests.helpers import filled

NUMPY = {getattr(torch, dtype.name): dtype for dtype in DTYPES.values()}
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}
Shape = tuple[int, int, int, int]

PLAIN = ((9, 2, 16, 16), torch.bfloat16)
ODD = ((10, 3, 3, 5), torch.bfloat16)


@functools.cache
def kit_steps(shape: Shape, valid: bool = True) -> dict[str, Step]:
    """The kit's scenarios for a cache that `check_spec` accepts, or those that it does not.

    Without those of C15, whose outcome is open.
    """

    def accepted(step: Step) -> bool:
        try:
            check_spec(step.index_spec, cache_shape=shape, num_tokens=step.num_tokens)
        except SpecError:
            return False
        return True

    steps = example_steps(shape[0], shape[2])
    return {
        name: step
        for name, step in steps.items()
        if accepted(step) == valid and not name.startswith("c15")
    }


class Guarded:
    """A cache with any strides at a multiple of 64 bytes, inside memory that must not change.

    Attributes:
      tensor: the cache.
      memory: where it lies.
      before: that memory before the store.
    """

    def __init__(self, shape, dtype, strides=None, shift=0):
        dense = tuple(np.cumprod([1, *shape[:0:-1]])[::-1].tolist())
        self.memory = GuardedCache(shape, NUMPY[dtype], strides or dense, start=64 + shift)
        address = self.memory.cache.ctypes.data // dtype.itemsize
        self.memory.start -= (address - shift) % (64 // dtype.itemsize)
        cache = self.memory.view_in(self.memory.buffer)
        cache[...] = pattern_of(shape, dtype, salt=3)  # the same, wherever it lies
        self.before = self.memory.buffer.copy()
        self.tensor = tensor_over(cache)
        self.shape = shape

    def unchanged(self):
        return np.array_equal(as_bits(self.memory.buffer), as_bits(self.before))

    def check(self, states, *specs):
        """The memory is as the reference leaves it, for one of the specs."""
        rows = states.view(BITS[states.dtype.itemsize]).numpy().view(self.memory.dtype)
        for spec in specs:
            expected = self.before.copy()
            here = self.memory.view_in(expected)
            here[...] = reference.store_single(here.copy(), rows, spec)
            if np.array_equal(as_bits(expected), as_bits(self.memory.buffer)):
                return
        raise AssertionError("the cache, or what is around it, is not as the reference has it")


def pattern_of(shape, dtype, salt):
    return filled(shape, short_name(NUMPY[dtype]), salt)


def a_states(num_tokens, shape, dtype):
    return tensor_over(pattern_of((num_tokens, shape[1], shape[3]), dtype, salt=2))


def store(backend, cache, states, spec, alternatives=(), check=False):
    """Store and compare; returns the route, or `None` where the store was refused."""
    given = spec.map(torch.from_numpy)
    try:
        plan = bridges.plan(
            given, cache=cache.tensor, num_tokens=len(states), backend=backend, check=check
        )
        out = bridges.store_single_(cache.tensor, states, plan)
    except BackendUnsupported as error:
        refusal = str(error)
    else:
        refusal = None
    if refusal is not None:
        assert len(refusal) > 80, "a refusal says what was found and what to do"
        assert cache.unchanged()
        return None
    assert out is cache.tensor  # C17
    cache.check(states, spec, *alternatives)
    return plan.route
