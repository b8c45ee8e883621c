"""The blocks of a cache in which something was written, or should have been, as SVG."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias
from xml.etree import ElementTree as ET

from functional_paged.internal import cells

from ..run.compare import MOST_CELLS

Position: TypeAlias = tuple[int, int]
"""Block and offset."""

OUTCOMES = {
    "written": "as it should be",
    "wrong": "was to be written, and holds other bits",
    "missing": "was to be written, and nothing was",
    "stray": "was to be left alone, and was changed",
}
COLUMNS, MOST_LINES, MOST_PLACES = 32, 16, 6
"""Positions in a line, lines of a drawing, and runs of positions that a caption names."""

SIZE, GAP = (15, 15), 7
"""A cell, and what is between two lines; the page's patterns repeat with both."""


def drawing(mismatch: Mapping[str, Any], cache_shape: Sequence[int]) -> dict[str, Any]:
    """A mismatch of the cache drawn: the parts of an SVG, its view box, and its caption.

    Args:
      mismatch: as the report has it, with cells.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
    """
    num_blocks, _, size, _ = cache_shape
    outcomes = {(cell["block"], cell["offset"]): cell["outcome"] for cell in mismatch["cells"]}
    complete = len(outcomes) < MOST_CELLS
    first = (mismatch["index"][0], mismatch["index"][2])
    lines = [
        (row, []) if isinstance(row, str) else (row.label(size), _cells(row, outcomes, first))
        for row in rows_of(outcomes, num_blocks, size, complete=complete)
    ]
    parts = ET.Element("g")
    # The cells begin at x = 0, the first line at y = 0, as the patterns do.
    left = -6 - max((cells.width_of(label) for label, drawn in lines if drawn), default=0)
    ticks = range(0, columns_of(size), 4)
    bottom = cells.draw_lines(parts, left, -12, lines, ticks=ticks, size=SIZE, gap=GAP)
    right = cells.right_edge(parts)
    positions = {o: sorted(p for p, found in outcomes.items() if found == o) for o in OUTCOMES}
    return {
        "svg": "".join(ET.tostring(part, encoding="unicode") for part in parts),
        "view": (math.floor(left) - 5, -15, math.ceil(right - left) + 8, math.ceil(bottom) + 16),
        "caption": [(o, len(where), _places(where)) for o, where in positions.items() if where],
        "recorded": None if complete else MOST_CELLS,
    }


def columns_of(block_size: int) -> int:
    """Positions in a line, so that the lines of a block are as even as they can be."""
    return math.ceil(block_size / math.ceil(block_size / COLUMNS))


def rows_of(
    outcomes: Mapping[Position, str], num_blocks: int, block_size: int, *, complete: bool
) -> Iterator[cells.Line | str]:
    """The lines to draw, and words for what is left out between them.

    Args:
      outcomes: of each position that was written or should have been.
      num_blocks: of the cache.
      block_size: of the cache.
      complete: whether `outcomes` has all of those.
    """
    columns = columns_of(block_size)
    marked = shown = cells.lines_of(outcomes, block_size, columns)
    if len(marked) > MOST_LINES:
        faulty = (position for position, outcome in outcomes.items() if outcome != "written")
        shown = cells.lines_of(faulty, block_size, columns)[:MOST_LINES]
    all_shown = complete and len(shown) == len(marked)
    at, end = 0, num_blocks * block_size
    for line in (*shown, None):
        start = end if line is None else line.block * block_size + line.start
        if start > at:
            number, noun = start - at, "position"
            if at % block_size == start % block_size == 0:
                number, noun = number // block_size, "block"
            nouns = noun if number == 1 else f"{noun}s"
            yield f"{number:,} untouched {nouns}" if all_shown else f"{number:,} {nouns} not drawn"
        if line is not None:
            yield line
            at = start + line.stop - line.start


def _cells(line: cells.Line, outcomes: Mapping[Position, str], first: Position) -> list[cells.Cell]:
    """A line's runs of one outcome each; the first wrong position is a run of its own."""

    def kind_of(offset: int) -> str:
        position = (line.block, offset)
        return outcomes.get(position, "untouched") + (" first" if position == first else "")

    runs = []
    for kind, run in groupby(range(line.start, line.stop), kind_of):
        offsets = list(run)
        outcome = kind.removesuffix(" first")
        meaning = f": {OUTCOMES[outcome]}" if outcome in OUTCOMES else ""
        hint = f"{_run(line.block, offsets[0], offsets[-1])}, {outcome}{meaning}"
        runs.append(cells.Cell(kind=kind, hint=hint, count=len(offsets)))
    return runs


def _places(positions: Sequence[Position]) -> str:
    """Sorted positions in words: `block 3, offsets 5-7; block 4, offset 0`."""
    numbered = groupby(enumerate(positions), lambda pair: (pair[1][0], pair[1][1] - pair[0]))
    runs = [[position for _, position in run] for _, run in numbered]
    named = [_run(run[0][0], run[0][1], run[-1][1]) for run in runs[:MOST_PLACES]]
    more = len(runs) - MOST_PLACES
    return "; ".join(named + ([f"and {more:,} more"] if more > 0 else []))


def _run(block: int, first: int, last: int) -> str:
    offsets = f"offset {first}" if first == last else f"offsets {first}-{last}"
    return f"block {block}, {offsets}"
