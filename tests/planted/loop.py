"""A right store in place as a backend of the check, made of parts that a planted bug replaces."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from functional_paged import IndexSpec, reference
from functional_paged.conformance.adapters.reference import ReferenceAdapter
from functional_paged.internal import REFERENCE, check_call

Shape = tuple[int, int, int, int]
Places = list[tuple[int, int, int]]


class Loop(ReferenceAdapter):
    """The reference's places, written row by row into the very cache."""

    name = "planted"

    def unsupported(self, case):
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> Any:
        self.refuse(cache, states, index_spec)
        places = self.places(self.read(index_spec, cache.shape), cache.shape, len(states))
        return self.write(cache, states, places)

    def refuse(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> None:
        """The static checks."""
        check_call(REFERENCE, cache, states, index_spec)

    def read(self, index_spec: IndexSpec, shape: Shape) -> IndexSpec:
        """The spec as this store understands it."""
        return index_spec

    def places(self, index_spec: IndexSpec, shape: Shape, num_tokens: int) -> Places:
        """Token, block and offset of what is stored."""
        return list(reference.stored_tokens(index_spec, shape, num_tokens))

    def write(self, cache: np.ndarray, states: np.ndarray, places: Places) -> Any:
        """Write the rows, and return what the caller gets."""
        for token, block, offset in places:
            cache[block, :, offset] = states[token]
        return cache


@dataclass(frozen=True)
class Bug:
    """A store that is wrong in one way.

    Attributes:
      loop: the store.
      clause: what a case that catches it must name.
      raises: whether to raise is what is wrong with it.
    """

    loop: Loop
    clause: str
    raises: bool = False

    def __str__(self) -> str:
        return type(self.loop).__name__


BUGS: list[Bug] = []


def planted(clause: str, *, raises: bool = False) -> Callable[[type[Loop]], type[Loop]]:
    """List a broken loop under the clause that it breaks."""

    def add(loop: type[Loop]) -> type[Loop]:
        BUGS.append(Bug(loop(), clause, raises))
        return loop

    return add


def memory_of(array: np.ndarray) -> tuple[np.ndarray, int]:
    """All elements of the buffer that an array is a view of, and where in it the array begins."""
    owner = array
    while isinstance(owner.base, np.ndarray):
        owner = owner.base
    start = array.__array_interface__["data"][0] - owner.__array_interface__["data"][0]
    return owner.reshape(-1).view(array.dtype), start // array.dtype.itemsize
