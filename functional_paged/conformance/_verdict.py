"""Was the right thing written? Bits, the whole buffer, and what else a store may not touch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from functional_paged import reference

from ._bits import as_bits
from ._problem import GuardedCache, Problem


@dataclass(frozen=True)
class Mismatch:
    """The first element that is wrong, and how many are.

    Attributes:
      what: `cache`, `guard`, `states`, `index_spec`, or the array that a backend returned.
      index: of the element; in a guard, its distance from the buffer's start.
      expected: bits, hexadecimal.
      actual: bits, hexadecimal.
      written: whether the element was to be written rather than left alone.
      count: wrong elements in all.
    """

    what: str
    index: tuple[int, ...]
    expected: str
    actual: str
    written: bool
    count: int

    def __str__(self) -> str:
        duty = "was to be written" if self.written else "was to be left alone"
        return (
            f"{self.what}[{', '.join(map(str, self.index))}] {duty}: expected bits "
            f"{self.expected}, got {self.actual} ({self.count} wrong in all)"
        )


def judge_store(
    problem: Problem, given: GuardedCache, before: np.ndarray, returned: np.ndarray
) -> Mismatch | None:
    """Compare what a store left behind with the reference, bit for bit.

    Args:
      problem: what was tried.
      given: the guarded cache that the backend was given, as it is now.
      before: its buffer as it was.
      returned: what the backend returned.
    """
    expected_buffer = before.copy()
    expected = given.view_in(expected_buffer)
    original = expected.copy()
    expected[...] = reference.store_single(original, problem.states, problem.index_spec)
    in_place = returned is given.cache or np.shares_memory(returned, given.buffer)
    wrong = _wrong_shape(returned, expected)
    if wrong is not None:
        return wrong
    returned = _choose_candidates(problem, returned, expected)
    wrong = compare("cache", returned, expected, original)
    if wrong is not None:
        return wrong
    left = given.buffer
    if in_place:
        expected[...] = given.cache  # judged above
    else:
        expected_buffer = before
    return compare("cache" if not in_place else "guard", left, expected_buffer, expected_buffer)


def compare(
    what: str, actual: np.ndarray, expected: np.ndarray, original: np.ndarray
) -> Mismatch | None:
    """The first element whose bits are not as expected."""
    wrong_shape = _wrong_shape(actual, expected)
    if wrong_shape is not None:
        return wrong_shape
    got, want, was = as_bits(actual), as_bits(expected), as_bits(original)
    wrong = got != want
    if not wrong.any():
        return None
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    digits = 2 * actual.dtype.itemsize
    return Mismatch(
        what=what,
        index=tuple(int(i) for i in index),
        expected=f"0x{int(want[index]):0{digits}x}",
        actual=f"0x{int(got[index]):0{digits}x}",
        written=bool(want[index] != was[index]),
        count=int(wrong.sum()),
    )


def _wrong_shape(actual: np.ndarray, expected: np.ndarray) -> Mismatch | None:
    if actual.shape == expected.shape and actual.dtype == expected.dtype:
        return None
    want, got = (f"{array.dtype}{list(array.shape)}" for array in (expected, actual))
    return Mismatch("result", (), want, got, written=True, count=1)


def _choose_candidates(problem: Problem, returned: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """C15: let the expected rows of contested slots be the candidates that the backend chose."""
    block_size = problem.cache_shape[2]
    for slot, tokens in problem.candidates().items():
        block, offset = divmod(slot, block_size)
        for head in range(problem.cache_shape[1]):
            got = as_bits(returned[block, head, offset])
            for token in tokens:
                if np.array_equal(got, as_bits(problem.states[token, head])):
                    expected[block, head, offset] = problem.states[token, head]
    return returned
