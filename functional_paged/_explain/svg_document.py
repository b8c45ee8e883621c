"""The frame of an SVG drawing: what a screen reader tells, colours, patterns, paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from .cells import draw_rect
from .fates import Fate
from .model import Explanation, Token, count, runs, span
from .svg_style import STYLE, pattern_definitions

MOST_TOLD = 16
"""Rows, and runs of a row, that the description tells."""


def document(explanation: Explanation, drawing: ET.Element, width: float, height: float) -> str:
    """The text of an SVG file around a drawing of this size."""
    size = (str(math.ceil(width)), str(math.ceil(height)))
    svg = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "width": size[0],
            "height": size[1],
            "viewBox": f"0 0 {size[0]} {size[1]}",
            "role": "img",
            "aria-labelledby": "fp-title fp-desc",
        },
    )
    title = f"Where each of {count(explanation.num_tokens, 'token')} goes"
    ET.SubElement(svg, "title", {"id": "fp-title"}).text = title
    ET.SubElement(svg, "desc", {"id": "fp-desc"}).text = _description(explanation)
    ET.SubElement(svg, "style").text = STYLE
    svg.append(pattern_definitions(explanation.fates))
    draw_rect(svg, 0.5, 0.5, float(size[0]) - 1, float(size[1]) - 1, "paper")
    svg.append(drawing)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _description(explanation: Explanation) -> str:
    told = ["The spec is valid." if explanation.problem is None else f"{explanation.problem}."]
    told.append(f"{explanation.summary}.")
    for source in explanation.sources[:MOST_TOLD]:
        name = f"{source.title}: {source.note}" if source.note else source.title
        lines = [_run_description(run) for run in runs(source.tokens)[:MOST_TOLD]]
        for beyond in source.beyond[:MOST_TOLD]:
            lines.append(f"token {span(beyond.first, beyond.last)} {_fate(beyond.fate)}")
        told.append(f"{name}: {'; '.join(lines)}." if lines else f"{name}.")
    return " ".join(told)


def _run_description(run: Sequence[Token]) -> str:
    first, last = run[0], run[-1]
    token = f"token {span(first.token, last.token)}"
    if first.slot is not None and last.slot is not None:
        token += f" to slot {span(first.slot, last.slot)}"
    return token if first.fate is Fate.STORED else f"{token} {_fate(first.fate)}"


def _fate(fate: Fate) -> str:
    return f"{fate.label} ({fate.clause})"
