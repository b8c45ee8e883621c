"""A group of the results as an SVG drawing: a mark at each ratio, a line over its spread."""

from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from .._explain.cells import draw_rect, draw_text, width_of
from .._explain.svg_document import frame
from .problems import GROUPS
from .results import Results, Row, by_problem, plural, rows_of

MARGIN, LINE, AXIS = 16, 16, 360
"""Pixels: around the drawing, of a row, of the axis."""


def plot(results: Results, group: str) -> str:
    """The text of an SVG file.

    Each problem is a panel, its ways in order of their ratios on a logarithmic axis. Ours are blue.
    """
    panels: dict[str, list[tuple[Row, str]]] = {}
    for (of, name, threads), ways in by_problem(results).items():
        if of == group:
            labels = ((row, f"{way}, {plural(threads)}") for way, row in rows_of(ways).items())
            panels.setdefault(name, []).extend(labels)
    every = [entry for panel in panels.values() for entry in panel]
    # The axis holds the medians; a spread past it is cut.
    least = min([0.5, *(row.median / 2 for row, _ in every)])
    most = max([2, *(row.median * 2 for row, _ in every)])
    left = MARGIN + max((width_of(label) for _, label in every), default=0) + 8

    def x_of(ratio: float) -> float:
        share = math.log(ratio / least) / math.log(most / least)
        return left + AXIS * min(max(share, 0), 1)

    root, y = ET.Element("g"), MARGIN + 12.0
    title = f"{GROUPS[group]}: times the baseline"
    draw_text(root, MARGIN, y, title, "bold")
    told = []
    for name, panel in panels.items():
        draw_text(root, MARGIN, y + 2 * LINE, name, "bold")
        y += 2.5 * LINE
        for tick in _ticks(least, most):
            kind = "stored" if tick == 1 else "ghost"
            draw_rect(root, x_of(tick), y, 0.1, LINE * len(panel), kind)
            draw_text(root, x_of(tick) - 20, y - 3, f"{tick:g}", "faint", room=40)
        for row, label in sorted(panel, key=lambda entry: entry[0].median):
            kind = "stored" if row.way.startswith("ours") else "skipped"
            draw_text(root, MARGIN, y + 12, label)
            draw_rect(root, x_of(row.low), y + 7, x_of(row.high) - x_of(row.low), 2, kind)
            draw_rect(root, x_of(row.median) - 3, y + 3, 6, 10, kind)
            draw_text(root, left + AXIS + 8, y + 12, str(row), "faint")
            told.append(f"{name}, {label}: {row} times the {row.baseline}.")
            y += LINE
    edge = left + AXIS + 8 + max((width_of(str(row)) for row, _ in every), default=0)
    return frame(title, " ".join(told), [root], edge + MARGIN, y + MARGIN)


def _ticks(least: float, most: float) -> list[float]:
    """Within the axis: the powers of ten, and where few are, 2 and 5 of each."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    digits = (1, 2, 5) if most < 1000 * least else (1,)
    ticks = [digit * 10.0**power for power in powers for digit in digits]
    return [tick for tick in ticks if least <= tick <= most]
