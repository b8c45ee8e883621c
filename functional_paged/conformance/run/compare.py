"""The judge of a store: bits, the whole buffer, and what else a store may not touch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from functional_paged import reference

from ..bits import as_bits
from ..cases.guarded_cache import GuardedCache
from ..cases.problem import Problem

Outcome: TypeAlias = Literal["written", "wrong", "missing", "stray"]
MOST_CELLS = 4096
"""More cells than this are not drawn."""


@dataclass(frozen=True)
class Cell:
    """One position of the cache that was written or should have been, and its outcome.

    `written`: as it should be. `wrong`: to be written, and other bits were. `missing`: to be
    written, and nothing was. `stray`: to be left alone, and was not.
    """

    block: int
    offset: int
    outcome: Outcome


@dataclass(frozen=True)
class Mismatch:
    """The first element that is wrong, and how many are.

    Attributes:
      what: `cache`, `guard` (around the cache), `buffer` (all of that, where nothing was to be
        written), or the name of the result that is wrong.
      index: of the element; in a guard or buffer, its distance from the start.
      expected: bits, hexadecimal; dtype and shape where those are wrong.
      actual: likewise.
      written: whether the element was to be written rather than left alone.
      count: wrong elements in all.
      cells: what to draw, if it is the cache that is wrong.
      clause: what the kind of error tells of, if it tells: C17 where an input or the type of the
        result is wrong; C16 where each row came to its place for the most part, and yet some bits
        are wrong or were to be left alone.
    """

    what: str
    index: tuple[int, ...]
    expected: str
    actual: str
    written: bool
    count: int
    cells: tuple[Cell, ...] = ()
    clause: str = ""

    def __str__(self) -> str:
        where = f"{self.what}[{', '.join(map(str, self.index))}]" if self.index else self.what
        duty = "was to be written" if self.written else "was to be left alone"
        return (
            f"{where} {duty}: expected {self.expected}, got {self.actual} "
            f"({self.count} wrong in all)"
        )


def judge_store(
    problem: Problem, given: GuardedCache, before: np.ndarray, returned: np.ndarray
) -> Mismatch | None:
    """Compare what a store left behind with the reference, bit for bit.

    The cache is given as it is now, and its buffer as it was before.
    """
    original = given.view_in(before)
    expected = reference.store_single(original, problem.states, problem.index_spec)
    wrong = _wrong_type(returned, expected)
    if wrong is not None:
        return wrong
    _accept_candidates(problem, returned, expected)
    wrong = compare("cache", returned, expected, original)
    if wrong is not None:
        return wrong
    left = before.copy()
    if np.shares_memory(returned, given.buffer):
        given.view_in(left)[...] = returned  # judged above; what is around it is not yet
        return compare("guard", given.buffer, left, left, clause="C16")
    return compare("given cache", given.buffer, left, left, clause="C17")


def judge_large(problem: Problem, returned: np.ndarray) -> Mismatch | None:
    """Judge a store into a cache of zeros without a second cache of its size."""
    num_tokens = problem.states.shape[0]
    expected = 0
    for token, block, offset in reference.stored_tokens(
        problem.index_spec, problem.cache_shape, num_tokens
    ):
        row = returned[block, :, offset]
        wrong = compare(f"row of token {token}", row, problem.states[token], np.zeros_like(row))
        if wrong is not None:
            return wrong
        expected += int(np.count_nonzero(row))
    stray = int(np.count_nonzero(returned)) - expected
    if stray == 0:
        return None
    return Mismatch("cache", (), "zeros around the rows", "other bits", False, stray)


def compare(
    what: str,
    actual: np.ndarray,
    expected: np.ndarray,
    original: np.ndarray,
    *,
    clause: str = "",
) -> Mismatch | None:
    """The first element whose bits are not as expected.

    The original tells what was to be written. The clause is what an error tells of; that of a
    cache, its bits decide.
    """
    wrong_type = _wrong_type(actual, expected, what)
    if wrong_type is not None:
        return wrong_type
    got, want, was = as_bits(actual), as_bits(expected), as_bits(original)
    wrong = got != want
    if not wrong.any():
        return None
    index = np.unravel_index(int(np.argmax(wrong)), wrong.shape)
    digits = 2 * actual.dtype.itemsize
    return Mismatch(
        what=what,
        index=tuple(map(int, index)),
        expected=f"0x{int(want[index]):0{digits}x}",
        actual=f"0x{int(got[index]):0{digits}x}",
        written=bool(want[index] != was[index]),
        count=int(wrong.sum()),
        cells=_cells(got, want, was) if what == "cache" else (),
        clause="C16" if what == "cache" and _rows_came(got, want, was) else clause,
    )


def _rows_came(got: np.ndarray, want: np.ndarray, was: np.ndarray) -> bool:
    """Whether at least half the elements of each position to be written are right."""
    axes = (1, 3)
    to_write = (want != was).any(axis=axes)
    return bool(((got == want).mean(axis=axes)[to_write] >= 0.5).all())


def _cells(got: np.ndarray, want: np.ndarray, was: np.ndarray) -> tuple[Cell, ...]:
    axes = (1, 3)  # heads and head_dim: a position is drawn as one cell
    to_write = (want != was).any(axis=axes)
    wrong, changed = (got != want).any(axis=axes), (got != was).any(axis=axes)
    cells = []
    for block, offset in np.argwhere(to_write | wrong)[:MOST_CELLS].tolist():
        outcome: Outcome = "written"
        if wrong[block, offset]:
            missing = not changed[block, offset]
            outcome = "stray" if not to_write[block, offset] else "missing" if missing else "wrong"
        cells.append(Cell(block, offset, outcome))
    return tuple(cells)


def _wrong_type(actual: np.ndarray, expected: np.ndarray, what: str = "result") -> Mismatch | None:
    if actual.shape == expected.shape and actual.dtype == expected.dtype:
        return None
    want, got = (f"{array.dtype}{list(array.shape)}" for array in (expected, actual))
    return Mismatch(what, (), want, got, written=True, count=1, clause="C17")


def _accept_candidates(problem: Problem, returned: np.ndarray, expected: np.ndarray) -> None:
    """C15: expect in a contested slot, head by head, the candidate that the backend chose."""
    for slot, tokens in problem.candidates().items():
        block, offset = divmod(slot, problem.cache_shape[2])
        for head in range(problem.cache_shape[1]):
            got = as_bits(returned[block, head, offset])
            for token in tokens:
                if np.array_equal(got, as_bits(problem.states[token, head])):
                    expected[block, head, offset] = problem.states[token, head]
