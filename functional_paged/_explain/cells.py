"""Lines of a cache's cells as SVG, for an explanation and for the report of a run.

What a cell says is the caller's: a text, a kind, a hint. Colours come from the style sheet that has
the classes of the kinds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from xml.etree import ElementTree as ET

CELL_WIDTH, CELL_HEIGHT = 34, 32

CHARACTER = 7.3
"""Width of a character at 12 pixels, generous for every font that the styles name."""


@dataclass(frozen=True)
class Cell:
    """A position, or a count of neighbours that look alike.

    Its kind is a style class. The symbol, one character, stands below the text, so that no kind is
    told by its colour alone. A pointer over it tells the hint.
    """

    text: str = ""
    kind: str = "ghost"
    symbol: str = ""
    hint: str = ""
    count: int = 1


@dataclass(frozen=True, order=True)
class Line:
    """Neighbouring positions of one block, from an offset to below another."""

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


def right_edge(drawing: ET.Element) -> float:
    """The right edge of all that a drawing has."""
    edges = [0.0]
    for element in drawing.iter():
        x = float(element.get("x", 0))
        if element.tag == "rect":
            edges.append(x + float(element.get("width", 0)))
        elif element.tag == "text" and "text-anchor" not in element.attrib:
            edges.append(x + width_of(element.text or ""))
    return max(edges)


def draw_lines(
    parent: ET.Element,
    x: float,
    y: float,
    lines: Sequence[tuple[str, Sequence[Cell]]],
    *,
    ticks: Iterable[int] = (),
    size: tuple[float, float] = (CELL_WIDTH, CELL_HEIGHT),
    gap: float = 4,
) -> float:
    """Draw labels, each with its cells, one below the other under the offsets that are ticks.

    A size is the width of a position and the height of a line. Returns the lower edge.
    """
    width, height = size
    left = x + 6 + max((width_of(label) for label, _ in lines), default=0)
    ticks = list(ticks)
    if lines and ticks:
        y += 12
        for tick in ticks:
            draw_text(parent, left + tick * width, y - 3, str(tick), "faint", room=width)
    for label, cells in lines:
        draw_text(parent, x, y + height / 2 + 4, label, "faint")
        at = left
        for cell in cells:
            draw_cell(parent, at, y, cell, size)
            at += cell.count * width
        y += height + gap
    return y


def draw_cell(
    parent: ET.Element, x: float, y: float, cell: Cell, size: tuple[float, float]
) -> None:
    """Draw a cell with its upper left corner at `(x, y)`."""
    width = size[0] * cell.count
    rect = draw_rect(parent, x, y, width, size[1], cell.kind)
    if cell.hint:
        ET.SubElement(rect, "title").text = cell.hint
    if cell.text:
        style = "faint" if cell.kind == "ghost" else "bold"
        draw_text(parent, x, y + (14 if cell.symbol else 20), cell.text, style, room=width)
    if cell.symbol:
        draw_text(parent, x, y + 27, cell.symbol, "bold", room=width)


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


def draw_rect(
    parent: ET.Element, x: float, y: float, width: float, height: float, kind: str
) -> ET.Element:
    """Draw a rectangle."""
    place = {"x": x, "y": y, "width": width, "height": height}
    numbers = {name: _number(value) for name, value in place.items()}
    return ET.SubElement(parent, "rect", {"class": kind, **numbers})


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
