"""The blocks of a cache in which something was written, or should have been, as SVG."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
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
    """A mismatch of the cache, as the report has it: parts of an SVG, view box, and caption."""
    size = cache_shape[2]
    outcomes = {(cell["block"], cell["offset"]): cell["outcome"] for cell in mismatch["cells"]}
    first = (mismatch["index"][0], mismatch["index"][2])
    lines, hidden = lines_of(outcomes, size)
    labelled = [(line.label(size), _cells(line, outcomes, first)) for line in lines]
    parts = ET.Element("g")
    # The cells begin at x = 0, the first line at y = 0, as the patterns do.
    left = -6 - max(cells.width_of(label) for label, _ in labelled)
    ticks = range(0, columns_of(size), 4)
    bottom = cells.draw_lines(parts, left, -12, labelled, ticks=ticks, size=SIZE, gap=GAP)
    right = cells.right_edge(parts)
    positions = {o: sorted(p for p, found in outcomes.items() if found == o) for o in OUTCOMES}
    return {
        "svg": "".join(ET.tostring(part, encoding="unicode") for part in parts),
        "view": (math.floor(left) - 5, -15, math.ceil(right - left) + 8, math.ceil(bottom) + 16),
        "caption": [(o, len(where), _places(where)) for o, where in positions.items() if where],
        "hidden": hidden,
        "recorded": MOST_CELLS if len(outcomes) >= MOST_CELLS else None,
    }


def columns_of(block_size: int) -> int:
    """Positions in a line, so that the lines of a block are as even as they can be."""
    return math.ceil(block_size / math.ceil(block_size / COLUMNS))


def lines_of(outcomes: Mapping[Position, str], block_size: int) -> tuple[list[cells.Line], int]:
    """The lines to draw, faulty ones where there are too many, and how many are left out."""
    columns = columns_of(block_size)
    lines = marked = cells.lines_of(outcomes, block_size, columns)
    if len(marked) > MOST_LINES:
        faulty = (position for position, outcome in outcomes.items() if outcome != "written")
        lines = cells.lines_of(faulty, block_size, columns)[:MOST_LINES]
    return lines, len(marked) - len(lines)


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
