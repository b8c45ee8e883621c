"""An explanation as SVG: the tokens of each row on the left, the cache on the right."""

from __future__ import annotations

from textwrap import wrap
from xml.etree import ElementTree as ET

from .cells import (
    CELL_HEIGHT,
    CELL_WIDTH,
    STRIP,
    Cell,
    Line,
    draw_cell,
    draw_lines,
    draw_rect,
    draw_strip,
    draw_text,
    lines_of,
    width_of,
)
from .model import Explanation, Fate, Run, Source, Token, cell_text, count
from .svg_document import document, look_of

MARGIN, GAP, LINE = 16, 12, 18
LEFT_WIDTH, PER_LINE = 400, 8

ALL_BLOCKS = 12
"""A cache of at most so many blocks is drawn whole."""

LONGEST = 8
"""Cells of a run that are drawn one by one; of a longer run, the ends are."""

MOST_ROWS, MOST_RUNS, MOST_LINES = 12, 48, 16
"""Rows of the spec, their runs and lines of the cache drawn before the rest is counted."""


def to_svg(explanation: Explanation) -> str:
    """The text of `Explanation.to_svg`."""
    return _Drawing(explanation).to_text()


class _Drawing:
    """Places one part after the other; `y` moves down the page."""

    def __init__(self, explanation: Explanation):
        self.explanation = explanation
        self.root = ET.Element("g")
        self.right_edge = 0.0

    def to_text(self) -> str:
        top = self._header(MARGIN + 12)
        header_edge, self.right_edge = self.right_edge, MARGIN
        left_end = self._rows(MARGIN, top)
        right_end = self._cache(self.right_edge + 4 * GAP, top)
        self.right_edge = max(self.right_edge, header_edge)
        height = self._legend(MARGIN, max(left_end, right_end) + GAP) + MARGIN
        return document(self.explanation, self.root, self.right_edge + MARGIN, height)

    def _text(self, x: float, y: float, text: str, kind: str = "") -> None:
        draw_text(self.root, x, y, text, kind)
        self.right_edge = max(self.right_edge, x + width_of(text))

    def _header(self, y: float) -> float:
        problem = self.explanation.problem
        lines = ["valid"] if problem is None else wrap(f"INVALID  {problem}", 88)
        for line in lines:
            self._text(MARGIN, y, line, "bold")
            y += LINE
        for line in wrap(self.explanation.summary, 88):
            self._text(MARGIN, y, line, "faint")
            y += LINE
        return y

    def _rows(self, x: float, y: float) -> float:
        for source in self.explanation.sources[:MOST_ROWS]:
            y = self._row(source, x, y + 4)
        hidden = self.explanation.sources[MOST_ROWS:]
        if hidden:
            tokens = sum(len(source.tokens) for source in hidden)
            more = count(len(hidden), "more row")
            self._text(x, y + LINE, f"... {more} with {count(tokens, 'token')}", "faint")
            y += LINE
        return y

    def _row(self, source: Source, x: float, y: float) -> float:
        self._text(x, y + 10, source.title, "bold")
        detail = "; ".join(filter(None, [source.detail, source.note]))
        for line in wrap(detail, 52) or [""]:
            self._text(x + width_of(source.title) + GAP, y + 10, line, "faint")
            y += 15
        rows = min(len(self.explanation.sources), MOST_ROWS)
        runs, left_out = source.runs(max(6, MOST_RUNS // rows))
        y = self._runs(runs, x, y + 3)
        if left_out:
            self._text(x, y + 12, f"... {count(left_out, 'more token')}", "faint")
            y += LINE
        return y + 4

    def _runs(self, runs: list[Run], left: float, y: float) -> float:
        x, captions = left, [_caption(run, self.explanation) for run in runs]
        above = 13 if any(captions) else 0
        height = above + CELL_HEIGHT + 6
        for run, caption in zip(runs, captions, strict=True):
            cells = _run_cells(run, self.explanation)
            width = max(len(cells) * CELL_WIDTH, width_of(caption))
            if x > left and x + width > left + LEFT_WIDTH:
                x, y = left, y + height
            if caption:
                self._text(x, y + 10, caption, "faint")
            for index, cell in enumerate(cells):
                draw_cell(self.root, x + index * CELL_WIDTH, y + above, cell)
            self.right_edge = max(self.right_edge, x + len(cells) * CELL_WIDTH)
            x += width + GAP
        return y + height if runs else y

    def _cache(self, x: float, y: float) -> float:
        explanation = self.explanation
        num_blocks, block_size = explanation.num_blocks, explanation.block_size
        self._text(x, y + 14, f"cache: {count(num_blocks, 'block')} of {block_size}", "bold")
        cut = block_size > PER_LINE
        lines = lines_of(explanation.cells, block_size, PER_LINE)
        others = num_blocks - len({line.block for line in lines})
        if not cut and num_blocks <= ALL_BLOCKS:
            lines, others = [Line(block, 0, block_size) for block in range(num_blocks)], 0

        tokens = explanation.tokens_in(lines)
        drawn = zip(lines[:MOST_LINES], tokens, strict=False)
        right, y = draw_lines(
            self.root,
            x,
            y + LINE + 4,
            [(line.label(block_size), [*map(_cache_cell, cells)]) for line, cells in drawn],
            ticks=range(0 if cut else block_size),
        )
        self.right_edge = max(self.right_edge, right)
        hidden = sum(len(cell) for cells in tokens[MOST_LINES:] for cell in cells)
        more = count(len(lines) - MOST_LINES, "more line")
        for number, text in (
            (hidden, f"... {more} with {count(hidden, 'token')}"),
            (others, f"{count(others, 'other block')} unchanged"),
        ):
            if number:
                self._text(x, y + 12, text, "faint")
                y += LINE
        return y

    def _legend(self, x: float, y: float) -> float:
        left, right = x, max(self.right_edge, 480)
        for fate in (*self.explanation.fates, None):
            label = str(fate or "unchanged")
            width = CELL_WIDTH + 6 + width_of(label)
            if x > left and x + width > right:
                x, y = left, y + LINE + 4
            if fate is None:
                draw_rect(self.root, x, y, CELL_WIDTH, STRIP, "ghost")
            else:
                draw_strip(self.root, x, y, look_of(fate))
            self._text(x + CELL_WIDTH + 6, y + 11, label, "faint")
            x += width + GAP
        return y + STRIP


def _cache_cell(tokens: tuple[Token, ...]) -> Cell:
    """A position of the cache with what goes there."""
    hints = [_hint(token) for token in tokens[:4]]
    if len(tokens) > len(hints):
        hints.append(f"{len(tokens) - len(hints)} more")
    return Cell(cell_text(tokens), look_of(tokens[0].fate) if tokens else None, "; ".join(hints))


def _run_cells(run: Run, explanation: Explanation) -> list[Cell]:
    indices = range(run.length)
    if run.length > LONGEST:
        indices = (*indices[:2], *indices[-2:])
    tokens = [run[index] for index in indices]
    cells = [Cell(str(token.token), look_of(token.fate), _hint(token)) for token in tokens]
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
    parts = [f"token {token.token}: {token.fate.told}", token.why]
    if token.slot is not None:
        parts.append(f"slot {token.slot} = block {token.block}, offset {token.offset}")
    return ", ".join(filter(None, parts))
