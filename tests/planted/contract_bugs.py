"""Stores, loads, checks and derivatives that break what they owe their caller."""

from __future__ import annotations

import numpy as np

from functional_paged import SpecError

from .loop import Loop, planted


@planted("C1")
class ChecksNoShapes(Loop):
    def refuse(self, cache, states, index_spec):
        if states.ndim == 3 and states.size == len(states) * cache.shape[1] * cache.shape[3]:
            states = states.reshape(len(states), cache.shape[1], cache.shape[3])
        super().refuse(cache, states, index_spec)

    def write(self, cache, states, places):
        rows = states.reshape(len(states), cache.shape[1], cache.shape[3])
        return super().write(cache, rows, places)


@planted("C17", raises=True)
class ChecksShapesTooLate(Loop):
    def refuse(self, cache, states, index_spec):
        try:
            super().refuse(cache, states, index_spec)
        except SpecError:
            cache[0, 0, 0] = 1
            raise


@planted("C2")
class Casts(Loop):
    def store(self, cache, states, index_spec):
        return super().store(cache, states.astype(cache.dtype), index_spec)


@planted("C2")
class RefusesWithoutNamingTheClause(Loop):
    def refuse(self, cache, states, index_spec):
        if states.dtype != cache.dtype:
            raise TypeError("wrong dtype")
        super().refuse(cache, states, index_spec)


@planted("C3")
class FetchesStatesFromAnotherDevice(Loop):
    def store_apart(self, cache, states, index_spec):
        self.store(cache, states, index_spec)


@planted("C4")
class TakesAnyIndices(Loop):
    def store(self, cache, states, index_spec):
        if "slots" not in index_spec.arrays() or index_spec.slots.dtype != np.int64:
            index_spec = index_spec.map(lambda array: array.astype(np.int32))
        return super().store(cache, states, index_spec)


@planted("C4", raises=True)
class TakesNoLongSlots(Loop):
    def refuse(self, cache, states, index_spec):
        super().refuse(cache, states, index_spec)
        if any(array.dtype == np.int64 for array in index_spec.arrays().values()):
            raise TypeError("slots must be int32")


@planted("C16")
class LoadsZerosAsOnes(Loop):
    def load(self, cache, index_spec, num_tokens):
        rows = super().load(cache, index_spec, num_tokens)
        stored = [token for token, _, _ in self.places(index_spec, cache.shape, num_tokens)]
        rows[np.setdiff1d(np.arange(num_tokens), stored)] = 1
        return rows


@planted("C17")
class ChangesItsStates(Loop):
    def write(self, cache, states, places):
        super().write(cache, states, places)
        states[:1] = 0
        return cache


@planted("C17")
class WritesBesideStridedStates(Loop):
    def write(self, cache, states, places):
        super().write(cache, states, places)
        if not states.flags.c_contiguous and 0 not in states.strides:
            states.base.reshape(-1)[-1] = 0
        return cache


@planted("C17")
class ChangesItsIndexSpec(Loop):
    def read(self, index_spec, shape):
        for array in index_spec.arrays().values():
            array[array < 0] = 0
        return index_spec


@planted("C17")
class ReturnsAnotherDtype(Loop):
    def write(self, cache, states, places):
        return super().write(cache, states, places).astype(np.float64)


@planted("C17")
class ReturnsAnotherShape(Loop):
    def write(self, cache, states, places):
        return super().write(cache, states, places).reshape(cache.shape[0], -1)


@planted("C17")
class ReturnsNothing(Loop):
    def write(self, cache, states, places):
        super().write(cache, states, places)


@planted("C5", raises=True)
class Raises(Loop):
    def write(self, cache, states, places):
        raise RuntimeError("no kernel image is available")


@planted("C5")
class ReturnsTheInputAndKeepsTheResult(Loop):
    """Which cannot be told from a store in place that writes nothing."""

    def write(self, cache, states, places):
        super().write(cache.copy(), states, places)
        return cache


@planted("C17")
class ReturnsACopyAndChangesTheInput(Loop):
    def write(self, cache, states, places):
        return super().write(cache, states, places).copy()


@planted("C22")
class CotangentOfTheCacheIsNotCleared(Loop):
    def vjp(self, cache, states, index_spec, cotangent):
        _, d_states = super().vjp(cache, states, index_spec, cotangent)
        return cotangent, d_states


@planted("C22")
class TokenThatIsNotStoredHasACotangent(Loop):
    def vjp(self, cache, states, index_spec, cotangent):
        d_cache, d_states = super().vjp(cache, states, index_spec, cotangent)
        return d_cache, np.where(d_states == 0, np.ones_like(d_states), d_states)


class Checks(Loop):
    """A value check that misses a clause."""

    missed = ""

    def check(self, index_spec, cache_shape, num_tokens):
        try:
            super().check(index_spec, cache_shape, num_tokens)
        except SpecError as error:
            if error.clause != self.missed:
                raise


for _clause in ("C11", "C12", "C13", "C15", "C21"):
    planted(_clause)(type(f"CheckMisses{_clause}", (Checks,), {"missed": _clause}))


@planted("C5", raises=True)
class CheckRefusesWhatIsValid(Loop):
    def check(self, index_spec, cache_shape, num_tokens):
        super().check(index_spec, cache_shape, num_tokens - 1)
