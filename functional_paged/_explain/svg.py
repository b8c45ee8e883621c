"""An explanation as SVG: the tokens of each row on the left, the cache on the right."""

from __future__ import annotations

import math
from collections.abc import Iterable
from textwrap import wrap
from xml.etree import ElementTree as ET

from .cells import (
    CELL_WIDTH,
    Cell,
    Line,
    draw_lines,
    draw_rect,
    draw_text,
    lines_of,
    right_edge,
    width_of,
)
from .model import Explanation, Fate, Run, Token, cell_text, count, left_out

MARGIN, GAP, LINE, PER_LINE = 16, 12, 18, 8

ALL_BLOCKS = 12
"""A cache of at most so many blocks is drawn whole."""

LONGEST = 8
"""Cells of a run that are drawn one by one; of a longer run, the ends are."""

MOST_ROWS, MOST_RUNS, MOST_LINES = 12, 24, 16
"""Rows of the spec, their runs and lines of the cache drawn before the rest is counted."""

MOST_TOLD = 16
"""Rows, and runs of a row, that the description tells."""

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


def to_svg(explanation: Explanation) -> str:
    """The text of `Explanation.to_svg`."""
    root, problem = ET.Element("g"), explanation.problem
    y = _write(root, MARGIN, 10, wrap(f"INVALID  {problem}" if problem else "valid", 88), "bold")
    y = _write(root, MARGIN, y, wrap(explanation.summary, 88))
    rows = ET.SubElement(root, "g")
    rows_end = _draw_rows(rows, y, explanation)
    cache_end = _draw_cache(root, right_edge(rows) + 4 * GAP, y, explanation)
    y = _draw_legend(root, max(rows_end, cache_end) + GAP, explanation.fates)
    title = f"Where each of {count(explanation.num_tokens, 'token')} goes"
    return _frame(title, _description(explanation), root, right_edge(root) + MARGIN, y + MARGIN)


def _write(
    parent: ET.Element, x: float, y: float, lines: Iterable[str], kind: str = "faint"
) -> float:
    """Write lines below `y`; returns their lower edge, as the others that draw do."""
    for line in lines:
        y += LINE
        draw_text(parent, x, y, line, kind)
    return y


def _draw_rows(parent: ET.Element, y: float, explanation: Explanation) -> float:
    shown, hidden = explanation.sources[:MOST_ROWS], explanation.sources[MOST_ROWS:]
    for source in shown:
        y += 10
        _write(parent, MARGIN, y, [source.title], "bold")
        detail = "; ".join(filter(None, [source.detail, source.note]))
        y = _write(parent, MARGIN + width_of(source.title) + GAP, y, wrap(detail, 52) or [""])
        runs, more = source.runs(max(4, MOST_RUNS // len(shown)))
        lines = [(_caption(run, explanation), _run_cells(run, explanation)) for run in runs]
        y = draw_lines(parent, MARGIN, y + 8, lines)
        y = _write(parent, MARGIN, y, [f"... {count(more, 'more token')}"] * bool(more))
    tokens = sum(len(source.tokens) for source in hidden)
    return _write(parent, MARGIN, y, left_out(hidden, "row", tokens))


def _draw_cache(parent: ET.Element, x: float, y: float, explanation: Explanation) -> float:
    num_blocks, block_size = explanation.num_blocks, explanation.block_size
    size = f"cache: {count(num_blocks, 'block')} of {block_size}"
    y = _write(parent, x, y + 10, [size], "bold")
    cut = block_size > PER_LINE
    lines = lines_of(explanation.cells, block_size, PER_LINE)
    others = num_blocks - len({line.block for line in lines})
    if not cut and num_blocks <= ALL_BLOCKS:
        lines, others = [Line(block, 0, block_size) for block in range(num_blocks)], 0
    tokens = explanation.tokens_in(lines)
    drawn = zip(lines[:MOST_LINES], tokens, strict=False)
    labelled = [(line.label(block_size), [*map(_cache_cell, cells)]) for line, cells in drawn]
    y = draw_lines(parent, x, y + 8, labelled, ticks=range(0 if cut else block_size))
    hidden = sum(len(cell) for cells in tokens[MOST_LINES:] for cell in cells)
    y = _write(parent, x, y, left_out(lines[MOST_LINES:], "line", hidden))
    return _write(parent, x, y, [f"{count(others, 'other block')} unchanged"] * bool(others))


def _draw_legend(parent: ET.Element, y: float, fates: Iterable[Fate]) -> float:
    for fate in (*fates, None):
        draw_rect(parent, MARGIN, y + 5, CELL_WIDTH, 15, fate.kind if fate else "ghost")
        if fate and fate is not Fate.STORED:
            draw_text(parent, MARGIN, y + 16, fate.symbol, "bold", room=CELL_WIDTH)
        y = _write(parent, MARGIN + CELL_WIDTH + 6, y - 2, [str(fate or "unchanged")]) + 2
    return y


def _cell(text: str, fate: Fate, hint: str) -> Cell:
    return Cell(text, fate.kind, "" if fate is Fate.STORED else fate.symbol, hint)


def _cache_cell(tokens: tuple[Token, ...]) -> Cell:
    """A position of the cache with what goes there."""
    if not tokens:
        return Cell()
    hints = [_hint(token) for token in tokens[:4]]
    if len(tokens) > len(hints):
        hints.append(f"{len(tokens) - len(hints)} more")
    return _cell(cell_text(tokens), tokens[0].fate, "; ".join(hints))


def _run_cells(run: Run, explanation: Explanation) -> list[Cell]:
    indices = range(run.length)
    if run.length > LONGEST:
        indices = (*indices[:2], *indices[-2:])
    tokens = [run[index] for index in indices]
    cells = [_cell(str(token.token), token.fate, _hint(token)) for token in tokens]
    if run.length > LONGEST:
        cells.insert(2, Cell(f"+{run.length - 4}"))
    if _framed(run, explanation):
        # The whole block, so that the positions of a row are seen to go through its blocks.
        after = explanation.block_size - 1 - (tokens[-1].offset or 0)
        cells = [Cell()] * (run.first.offset or 0) + cells + [Cell()] * after
    return cells


def _caption(run: Run, explanation: Explanation) -> str:
    first = run.first
    if explanation.form == "chunks":
        return ""  # the row above says it
    if explanation.form == "slots" and first.slot is not None:
        return f"slot {run.span('slot')}"
    if first.block is None:
        return first.why if first.fate is Fate.NEGATIVE_SLOT else ""
    return f"block {first.block}" + ("" if _framed(run, explanation) else f":{first.offset}")


def _framed(run: Run, explanation: Explanation) -> bool:
    return run.first.column is not None and explanation.block_size <= LONGEST


def _hint(token: Token) -> str:
    """All of a token in one line."""
    parts = [f"token {token.token}: {token.fate}", token.why]
    if token.slot is not None:
        parts.append(f"slot {token.slot} = block {token.block}, offset {token.offset}")
    return ", ".join(filter(None, parts))


def _description(explanation: Explanation) -> str:
    told = ["The spec is valid." if explanation.problem is None else f"{explanation.problem}."]
    told.append(f"{explanation.summary}.")
    for source in explanation.sources[:MOST_TOLD]:
        name = f"{source.title}: {source.note}" if source.note else source.title
        runs = "; ".join(map(_run_description, source.runs(MOST_TOLD)[0]))
        told.append(f"{name}: {runs}." if runs else f"{name}.")
    return " ".join(told)


def _run_description(run: Run) -> str:
    slot = "" if run.first.slot is None else f" to slot {run.span('slot')}"
    fate = "" if run.first.fate is Fate.STORED else f": {run.first.fate}"
    return f"token {run.span('token')}{slot}{fate}"


def _frame(title: str, description: str, drawing: ET.Element, width: float, height: float) -> str:
    """The text of an SVG file: a drawing on paper, and what a screen reader tells of it."""
    width, height = math.ceil(width), math.ceil(height)
    size = {"width": str(width), "height": str(height), "viewBox": f"0 0 {width} {height}"}
    reading = {"role": "img", "aria-labelledby": "fp-title fp-desc"}
    svg = ET.Element("svg", {"xmlns": "http://www.w3.org/2000/svg", **size, **reading})
    ET.SubElement(svg, "title", {"id": "fp-title"}).text = title
    ET.SubElement(svg, "desc", {"id": "fp-desc"}).text = description
    ET.SubElement(svg, "style").text = STYLE
    draw_rect(svg, 0.5, 0.5, width - 1, height - 1, "paper")
    svg.append(drawing)
    ET.indent(svg)
    return ET.tostring(svg, encoding="unicode") + "\n"
