"""The parts of an SVG drawing: text, cells, labelled lines of cells."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree import ElementTree as ET

from .fates import Fate
from .svg_style import pattern_fill, style_class

CELL_WIDTH, CELL_HEIGHT, STRIP = 34, 32, 13
"""A cell, and the strip at its foot that carries the pattern and symbol of a fate."""

CHARACTER = 7.3
"""Width of a character at 12 pixels, generous for every font that the style names."""


@dataclass(frozen=True)
class Cell:
    """A position: its text, what becomes of what is in it, and what a pointer over it tells.

    Attributes:
      text: token number, or numbers; empty for a position that does not change.
      fate: of its tokens; `None` for a position that does not change.
      hint: one line.
    """

    text: str = ""
    fate: Fate | None = None
    hint: str = ""


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


def draw_cell(parent: ET.Element, x: float, y: float, cell: Cell) -> None:
    """Draw a cell with its upper left corner at `(x, y)`."""
    if cell.fate is None:
        draw_rect(parent, x, y, CELL_WIDTH, CELL_HEIGHT, "ghost")
        if cell.text:
            draw_text(parent, x, y + 20, cell.text, "faint", room=CELL_WIDTH)
        return
    group = ET.SubElement(parent, "g")
    ET.SubElement(group, "title").text = cell.hint
    draw_rect(group, x, y, CELL_WIDTH, CELL_HEIGHT, style_class(cell.fate))
    baseline = y + 20 if cell.fate is Fate.STORED else y + 14
    draw_text(group, x, baseline, cell.text, "bold", room=CELL_WIDTH)
    if cell.fate is not Fate.STORED:
        draw_strip(group, x, y + CELL_HEIGHT - STRIP, cell.fate)


def draw_strip(parent: ET.Element, x: float, y: float, fate: Fate) -> None:
    """Draw the pattern and symbol of a fate."""
    kind = style_class(fate)
    draw_rect(parent, x, y, CELL_WIDTH, STRIP, kind, fill=pattern_fill(fate))
    if fate is not Fate.STORED:
        # A plain plate inside the edge of the strip, so that the pattern does not cross the symbol.
        draw_rect(parent, x + CELL_WIDTH / 2 - 6, y + 1, 12, STRIP - 2, f"{kind} plain")
        draw_text(parent, x, y + 10, fate.symbol, "bold", room=CELL_WIDTH)


def draw_rect(
    parent: ET.Element,
    x: float,
    y: float,
    width: float,
    height: float,
    kind: str,
    *,
    fill: str | None = None,
) -> None:
    """Draw a rectangle; `fill` wins over that of its class."""
    attributes = {"class": kind, "x": _number(x), "y": _number(y)}
    attributes |= {"width": _number(width), "height": _number(height)}
    if fill is not None:
        attributes["style"] = f"fill: {fill}"
    ET.SubElement(parent, "rect", attributes)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
