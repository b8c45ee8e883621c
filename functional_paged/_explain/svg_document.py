"""The frame of an SVG drawing: what a screen reader tells, colours, patterns, paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from .cells import Look, draw_rect
from .model import Explanation, Fate, Run, count

# The drawing brings its own paper, so it can be read on any page; dark pages get a dark paper.
# Blue is stored, grey is left out on purpose, orange breaks the spec: three colours that the
# colour-blind tell apart.
STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  font-size: 12px; fill: #1f2328; }
.bold { font-weight: bold; }
.faint { fill: #59636e; font-size: 11px; }
.paper { fill: #ffffff; stroke: #d1d9e0; }
.ghost { fill: none; stroke: #c4ccd4; stroke-dasharray: 2 2; }
.stored { fill: #cfe5f7; stroke: #0072b2; }
.skipped { fill: #f0f2f4; stroke: #6e7781; }
.wrong { fill: #fff0e0; stroke: #c45500; }
.plain { stroke: none; }
path.skipped { fill: none; stroke: #8c959f; }
path.wrong { fill: none; stroke: #e07a1f; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .faint { fill: #9198a1; }
  .paper { fill: #0d1117; stroke: #3d444d; }
  .ghost { stroke: #3d444d; }
  .stored { fill: #0b3a5c; stroke: #56b4e9; }
  .skipped { fill: #262c36; stroke: #9198a1; }
  .wrong { fill: #4a2500; stroke: #ff9a3d; }
  .plain { stroke: none; }
  path.skipped { stroke: #6e7781; }
  path.wrong { stroke: #d56a10; }
}
"""

# One tile of each pattern, 8 by 8.
_PATHS = {
    Fate.PADDED: "M-1 9L9 -1",
    Fate.HOLE: "M4 2A2 2 0 1 0 4 6A2 2 0 1 0 4 2",
    Fate.PAST_TABLE: "M2 0L6 4L2 8",
    Fate.NOT_NAMED: "M3 4H5",
    Fate.MISSING: "M-1 -1L9 9",
    Fate.PAST_CACHE: "M0 0L8 8M0 8L8 0",
    Fate.NO_BLOCK: "M0 6H5",
    Fate.BROKEN_CHUNK: "M0 6L2 2L6 6L8 2",
    Fate.NAMED_TWICE: "M2 0V8M5 0V8",
    Fate.NEGATIVE_SLOT: "M0 4H8",
    Fate.CONTESTED: "M0 1H8M0 5H8M2 1V5M6 5V9",
    Fate.BROKEN_TOTAL: "M0 4H8M4 0V8",
}

MOST_TOLD = 16
"""Rows, and runs of a row, that the description tells."""


def document(explanation: Explanation, drawing: ET.Element, width: float, height: float) -> str:
    """The text of an SVG file around a drawing of this size."""
    title = f"Where each of {count(explanation.num_tokens, 'token')} goes"
    parts = [pattern_definitions(explanation.fates), drawing]
    return frame(title, _description(explanation), parts, width, height)


def frame(
    title: str, description: str, parts: Sequence[ET.Element], width: float, height: float
) -> str:
    """The text of an SVG file with these parts on a paper of this size.

    Args:
      title: what a screen reader tells first.
      description: what it tells then: all that the drawing says.
      parts: definitions, before the paper, and the drawing.
      width: of the paper, pixels.
      height: of the paper, pixels.
    """
    width, height = math.ceil(width), math.ceil(height)
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    reading = {"role": "img", "aria-labelledby": "fp-title fp-desc"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **reading})
    ET.SubElement(svg, "title", {"id": "fp-title"}).text = title
    ET.SubElement(svg, "desc", {"id": "fp-desc"}).text = description
    ET.SubElement(svg, "style").text = STYLE
    *definitions, drawing = parts
    svg.extend(definitions)
    draw_rect(svg, 0.5, 0.5, width - 1, height - 1, "paper")
    svg.append(drawing)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"


def _description(explanation: Explanation) -> str:
    told = ["The spec is valid." if explanation.problem is None else f"{explanation.problem}."]
    told.append(f"{explanation.summary}.")
    for source in explanation.sources[:MOST_TOLD]:
        name = f"{source.title}: {source.note}" if source.note else source.title
        runs = "; ".join(_run_description(run) for run in source.runs(MOST_TOLD)[0])
        told.append(f"{name}: {runs}." if runs else f"{name}.")
    return " ".join(told)


def _run_description(run: Run) -> str:
    slot = "" if run.first.slot is None else f" to slot {run.span('slot')}"
    fate = "" if run.first.fate is Fate.STORED else f" {run.first.fate.told}"
    return f"token {run.span('token')}{slot}{fate}"


def look_of(fate: Fate) -> Look:
    """How a fate looks; a stored token is plain."""
    if fate is Fate.STORED:
        return Look("stored")
    kind = "wrong" if fate.breaks else "skipped"
    return Look(kind, f"url(#fp-{fate.name.lower()})", fate.symbol)


def pattern_definitions(fates: tuple[Fate, ...]) -> ET.Element:
    """The patterns of the fates that occur."""
    definitions = ET.Element("defs")
    size = {"width": "8", "height": "8"}
    for fate in filter(_PATHS.get, fates):
        name = {"id": f"fp-{fate.name.lower()}", "patternUnits": "userSpaceOnUse"}
        pattern = ET.SubElement(definitions, "pattern", {**name, **size})
        # The fill alone: an edge would draw a grid of tiles.
        kind = look_of(fate).kind
        ET.SubElement(pattern, "rect", {"class": f"{kind} plain", **size})
        ET.SubElement(pattern, "path", {"class": kind, "d": _PATHS[fate]})
    return definitions
