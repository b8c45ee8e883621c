"""Lines of a cache's cells as SVG, for an explanation and for the report of a run.

What a cell says is the caller's: a text, a look, a hint. Colours come from the style sheet that has
the classes of the looks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

CELL_WIDTH, CELL_HEIGHT, STRIP = 34, 32, 13
"""A cell with text, and the strip at its foot that carries the pattern and symbol of its look."""

CHARACTER = 7.3
"""Width of a character at 12 pixels, generous for every font that the styles name."""


@dataclass(frozen=True)
class Look:
    """The looks of one thing that may happen to a position, told apart without colour too.

    Attributes:
      kind: style class, for its colour.
      fill: its pattern as a `fill`; `None` where the class brings its own, or there is none.
      symbol: one character for its strip; empty for a plain cell.
    """

    kind: str
    fill: str | None = None
    symbol: str = ""


@dataclass(frozen=True)
class Cell:
    """A position, or neighbours that look alike.

    Attributes:
      text: such as the number of the token in it; without one, the look fills the cell.
      look: of what happens there; `None` for a position that does not change.
      hint: one line that a pointer over it tells.
      count: positions that it stands for.
    """

    text: str = ""
    look: Look | None = None
    hint: str = ""
    count: int = 1


@dataclass(frozen=True, order=True)
class Line:
    """Neighbouring positions of one block.

    Attributes:
      block: the physical block.
      start: offset of the first.
      stop: offset past the last.
    """

    block: int
    start: int
    stop: int

    def label(self, block_size: int) -> str:
        """`block 3`, or `block 3:16` for a part of one."""
        whole = self.stop - self.start == block_size
        return f"block {self.block}" + ("" if whole else f":{self.start}")


def lines_of(positions: Iterable[tuple[int, int]], block_size: int, per_line: int) -> list[Line]:
    """The lines that hold these `(block, offset)`, in order; longer blocks take several."""
    starts = {(block, offset // per_line * per_line) for block, offset in positions}
    return [Line(block, at, min(at + per_line, block_size)) for block, at in sorted(starts)]


def width_of(text: str) -> float:
    """The width to leave for a text."""
    return len(text) * CHARACTER


def draw_text(
    parent: ET.Element, x: float, y: float, text: str, kind: str = "", *, room: float | None = None
) -> None:
    """Write text with its baseline at `y`; with `room`, centred in it and small enough to fit."""
    attributes = {"class": kind} if kind else {}
    if room is not None:
        x += room / 2
        attributes["text-anchor"] = "middle"
        if width_of(text) > room:
            attributes["style"] = f"font-size: {12 * room / width_of(text):.1f}px"
    attributes |= {"x": _number(x), "y": _number(y)}
    ET.SubElement(parent, "text", attributes).text = text


def draw_lines(
    parent: ET.Element,
    x: float,
    y: float,
    lines: Sequence[tuple[str, Sequence[Cell]]],
    *,
    ticks: Iterable[int] = (),
    size: tuple[float, float] = (CELL_WIDTH, CELL_HEIGHT),
    gap: float = 4,
) -> tuple[float, float]:
    """Draw labels, each with its cells, one below the other under the numbers of the offsets.

    Args:
      parent: takes the parts.
      x: left edge.
      y: upper edge.
      lines: a label and its cells each; a label without cells stands alone.
      ticks: offsets to number.
      size: width of a position and height of a line.
      gap: between lines.

    Returns:
      The right and the lower edge.
    """
    width, height = size
    left = x + 6 + max((width_of(label) for label, cells in lines if cells), default=0)
    right, ticks = left, list(ticks)
    if lines and ticks:
        y += 12
        for tick in ticks:
            draw_text(parent, left + tick * width, y - 3, str(tick), "faint", room=width)
    for label, cells in lines:
        draw_text(parent, x, y + height / 2 + 4, label, "faint" if cells else "gap")
        at = left
        for cell in cells:
            draw_cell(parent, at, y, cell, size)
            at += cell.count * width
        right = max(right, at, x + width_of(label))
        y += height + gap
    return right, y


def draw_cell(
    parent: ET.Element,
    x: float,
    y: float,
    cell: Cell,
    size: tuple[float, float] = (CELL_WIDTH, CELL_HEIGHT),
) -> None:
    """Draw a cell with its upper left corner at `(x, y)`."""
    width, height = size[0] * cell.count, size[1]
    if cell.look is None:
        draw_rect(parent, x, y, width, height, "ghost")
        if cell.text:
            draw_text(parent, x, y + 20, cell.text, "faint", room=width)
        return
    if not cell.text:
        rect = draw_rect(parent, x, y, width, height, cell.look.kind, fill=cell.look.fill)
        ET.SubElement(rect, "title").text = cell.hint
        return
    group = ET.SubElement(parent, "g")
    ET.SubElement(group, "title").text = cell.hint
    draw_rect(group, x, y, width, height, cell.look.kind)
    draw_text(group, x, y + (14 if cell.look.symbol else 20), cell.text, "bold", room=width)
    if cell.look.symbol:
        draw_strip(group, x, y + height - STRIP, cell.look)


def draw_strip(parent: ET.Element, x: float, y: float, look: Look) -> None:
    """Draw the pattern and symbol of a look."""
    draw_rect(parent, x, y, CELL_WIDTH, STRIP, look.kind, fill=look.fill)
    if look.symbol:
        # A plain plate inside the edge of the strip, so that the pattern does not cross the symbol.
        draw_rect(parent, x + CELL_WIDTH / 2 - 6, y + 1, 12, STRIP - 2, f"{look.kind} plain")
        draw_text(parent, x, y + 10, look.symbol, "bold", room=CELL_WIDTH)


def draw_rect(
    parent: ET.Element,
    x: float,
    y: float,
    width: float,
    height: float,
    kind: str,
    *,
    fill: str | None = None,
) -> ET.Element:
    """Draw a rectangle; `fill` wins over that of its class."""
    attributes = {"class": kind, "x": _number(x), "y": _number(y)}
    attributes |= {"width": _number(width), "height": _number(height)}
    if fill is not None:
        attributes["style"] = f"fill: {fill}"
    return ET.SubElement(parent, "rect", attributes)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
