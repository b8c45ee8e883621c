"""Which lines of a cache a drawing shows, and what it says of those that it leaves out."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from .parts import plural

COLUMNS = 32
"""A longer block goes over several lines."""
MOST_LINES = 24


@dataclass(frozen=True, order=True)
class Line:
    """Neighbouring positions of one block, counted over all blocks.

    Attributes:
      start: the first.
      stop: one past the last.
    """

    start: int
    stop: int


def columns_of(block_size: int) -> int:
    """Positions in a line, so that the lines of a block are as even as they can be."""
    return math.ceil(block_size / math.ceil(block_size / COLUMNS))


def rows_of(
    outcomes: Mapping[int, str], num_blocks: int, block_size: int, *, complete: bool
) -> Iterator[Line | str]:
    """The lines to draw, and words for what is left out between them.

    Args:
      outcomes: what became of each position that was written or should have been.
      num_blocks: of the cache.
      block_size: of the cache.
      complete: whether `outcomes` has all of those; otherwise what follows its last is unknown.
    """
    marked = sorted({_line_of(position, block_size) for position in outcomes})
    shown = _most_telling(marked, outcomes)
    starts_left_out = [line.start for line in marked if line not in shown]
    end = num_blocks * block_size
    at = 0
    for line in shown:
        yield from _gap(at, line.start, block_size, starts_left_out)
        yield line
        at = line.stop
    yield from _gap(at, end, block_size, starts_left_out if complete else range(end))


def _line_of(position: int, block_size: int) -> Line:
    columns = columns_of(block_size)
    block, offset = divmod(position, block_size)
    start = block * block_size + offset // columns * columns
    return Line(start, min(start + columns, (block + 1) * block_size))


def _most_telling(marked: Sequence[Line], outcomes: Mapping[int, str]) -> Sequence[Line]:
    if len(marked) <= MOST_LINES:
        return marked
    faults = {position for position, outcome in outcomes.items() if outcome != "written"}
    faulty = [line for line in marked if not faults.isdisjoint(range(line.start, line.stop))]
    return faulty[:MOST_LINES]


def _gap(start: int, stop: int, block_size: int, left_out: Collection[int]) -> Iterator[str]:
    if stop == start:
        return
    whole = start % block_size == 0 and stop % block_size == 0
    count, noun = ((stop - start) // block_size, "block") if whole else (stop - start, "position")
    if any(start <= position < stop for position in left_out):
        yield f"{plural(count, noun)} not drawn"
    else:
        yield plural(count, f"untouched {noun}")
