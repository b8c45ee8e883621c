"""The frame of an SVG drawing: what a screen reader tells, colours, paper."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.etree import ElementTree as ET

from .cells import draw_rect

# The drawing brings its own paper, so it can be read on any page; dark pages get a dark paper.
# Blue is stored, grey is left out on purpose, orange breaks the spec: three colours that the
# colour-blind tell apart.
STYLE = """
text { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace;
  font-size: 12px; fill: #1f2328; pointer-events: none; }
.bold { font-weight: bold; }
.faint { fill: #59636e; font-size: 11px; }
.paper { fill: #ffffff; stroke: #d1d9e0; }
.ghost { fill: none; stroke: #c4ccd4; stroke-dasharray: 2 2; }
.stored { fill: #cfe5f7; stroke: #0072b2; }
.skipped { fill: #f0f2f4; stroke: #6e7781; }
.wrong { fill: #fff0e0; stroke: #c45500; }
@media (prefers-color-scheme: dark) {
  text { fill: #f0f6fc; }
  .faint { fill: #9198a1; }
  .paper { fill: #0d1117; stroke: #3d444d; }
  .ghost { stroke: #3d444d; }
  .stored { fill: #0b3a5c; stroke: #56b4e9; }
  .skipped { fill: #262c36; stroke: #9198a1; }
  .wrong { fill: #4a2500; stroke: #ff9a3d; }
}
"""


def frame(
    title: str, description: str, parts: Sequence[ET.Element], width: float, height: float
) -> str:
    """The text of an SVG file with these parts on a paper of this size.

    Args:
      title: what a screen reader tells first.
      description: what it tells then: all that the drawing says.
      parts: the drawing.
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
    draw_rect(svg, 0.5, 0.5, width - 1, height - 1, "paper")
    svg.extend(parts)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"
