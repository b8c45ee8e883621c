"""A cache drawn: its blocks as strips of cells, one path an outcome, so that a drawing stays small.

The unit of length is one cell. A cell's look is a pattern, defined once in the page, that repeats
with every cell; so a run of cells is one rectangle of a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from ...run.compare import MOST_CELLS
from .lines import Line, columns_of, rows_of
from .parts import OUTCOMES

PITCH = 1.5
"""From one row to the next; the height of the patterns."""
PIXELS = 15
"""A cell's width on the screen."""
DIGIT = 0.45
"""A character's width in a label."""
MOST_PLACES = 6
"""A caption names this many places; the drawing shows all."""


def drawing(mismatch: Mapping[str, Any], cache_shape: Sequence[int]) -> str:
    """A figure of the blocks in which something was written, or should have been.

    Args:
      mismatch: as the report has it, with cells.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
    """
    num_blocks, _, block_size, _ = cache_shape
    cells = mismatch["cells"]
    outcomes = {cell["block"] * block_size + cell["offset"]: cell["outcome"] for cell in cells}
    complete = len(cells) < MOST_CELLS
    rows = list(rows_of(outcomes, num_blocks, block_size, complete=complete))
    first = mismatch["index"][0] * block_size + mismatch["index"][2]
    return (
        f'<figure><div class="scroll">{_svg(rows, outcomes, block_size, first)}</div>'
        f"{_caption(outcomes, block_size, complete)}</figure>"
    )


def swatch_symbol(outcome: str) -> str:
    """One cell as it looks in a drawing; a page has it once, for its swatches."""
    return (
        f'<symbol id="one-{outcome}" viewBox="0 0 1 1">'
        f'<path class="{outcome}" d="{_strip(0, 0, 1)}"/></symbol>'
    )


def swatch(outcome: str) -> str:
    """A small cell to stand in text."""
    return f'<svg class="swatch" aria-hidden="true"><use href="#one-{outcome}"/></svg>'


def _svg(
    rows: Sequence[Line | str], outcomes: Mapping[int, str], block_size: int, first: int
) -> str:
    columns = columns_of(block_size)
    labels = [row if isinstance(row, str) else _label(row, block_size) for row in rows]
    paths = dict.fromkeys(("grid", *OUTCOMES), "")
    texts = outline = ""
    for number, (row, label) in enumerate(zip(rows, labels, strict=True), 1):
        y = PITCH * number
        if isinstance(row, str):
            texts += f'<text class="gap" y="{y:g}">{label}</text>'
            continue
        texts += f'<text y="{y:g}">{label}</text>'
        paths["grid"] += _strip(0, y, row.stop - row.start)
        for outcome, run in groupby(range(row.start, row.stop), key=outcomes.get):
            positions = list(run)
            if outcome is not None:
                paths[outcome] += _strip(positions[0] - row.start, y, len(positions))
        if row.start <= first < row.stop:
            x = first - row.start
            outline = f'<path class="first" d="{_strip(x, y, 1)}"/>'
    gaps = [label for row, label in zip(rows, labels, strict=True) if isinstance(row, str)]
    left = 1 + DIGIT * max(map(len, set(labels) - set(gaps)), default=0)
    right = max([columns + 0.5, *(1 + DIGIT * len(gap) for gap in gaps)])
    width, height = left + right, PITCH * (len(rows) + 1)
    drawn = "".join(f'<path class="{name}" d="{d}"/>' for name, d in paths.items() if d)
    return (
        '<svg class="blocks" role="img" aria-label="blocks of the cache" '
        f'width="{width * PIXELS:.0f}" height="{height * PIXELS:.0f}" '
        f'viewBox="{-left:.4g} 0 {width:.4g} {height:g}">'
        # Ticks are drawn once for the widest strip; the inner box cuts them to this one.
        f'<svg width="{columns}" height="{PITCH}"><use href="#ticks"/></svg>'
        f"{drawn}{outline}{texts}</svg>"
    )


def _label(line: Line, block_size: int) -> str:
    block, offset = divmod(line.start, block_size)
    return f"block {block}" + (f" +{offset}" if offset else "")


def _strip(x: int, y: float, length: int) -> str:
    return f"M{x} {y:g}h{length}v1h-{length}z"


def _caption(outcomes: Mapping[int, str], block_size: int, complete: bool) -> str:
    counts = Counter(outcomes.values())
    items = ""
    for outcome in OUTCOMES:
        if outcome in counts:
            where = "" if outcome == "written" else f": {_places(outcomes, outcome, block_size)}"
            items += f"<li>{swatch(outcome)}{counts[outcome]:,} {outcome}{where}</li>"
    if not complete:
        items += f"<li>only the first {MOST_CELLS:,} positions are recorded</li>"
    return f"<figcaption><ul>{items}</ul></figcaption>"


def _places(outcomes: Mapping[int, str], outcome: str, block_size: int) -> str:
    """Where an outcome is: `block 3, offsets 5-7; block 4, offset 0`."""
    runs: list[list[int]] = []
    for position in sorted(position for position, found in outcomes.items() if found == outcome):
        if runs and position == runs[-1][-1] + 1 and position % block_size:
            runs[-1].append(position)
        else:
            runs.append([position])
    named = []
    for run in runs[:MOST_PLACES]:
        block, offset = divmod(run[0], block_size)
        span = f"offset {offset}" if len(run) == 1 else f"offsets {offset}-{run[-1] % block_size}"
        named.append(f"block {block}, {span}")
    if len(runs) > MOST_PLACES:
        named.append(f"and {len(runs) - MOST_PLACES:,} more")
    return "; ".join(named)
