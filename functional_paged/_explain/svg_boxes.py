"""Runs of tokens as captioned boxes of cells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .cells import CELL_WIDTH, Cell, width_of
from .fates import Fate
from .model import Beyond, Explanation, Source, Token, cell_text, runs, span
from .svg_document import look_of

LONGEST = 8
"""Cells of a run that are drawn one by one; of a longer run, the ends are."""


@dataclass(frozen=True)
class Box:
    """Cells that belong together, under one caption."""

    caption: str
    cells: tuple[Cell, ...]

    @property
    def width(self) -> float:
        """What the caption and the cells need."""
        return max(len(self.cells) * CELL_WIDTH, width_of(self.caption))


def boxes(source: Source, explanation: Explanation, most: int) -> tuple[list[Box], int]:
    """The boxes of one row of the spec, and how many tokens are left out after `most` runs."""
    grouped = runs(source.tokens)
    drawn = [_run_box(run, explanation) for run in grouped[:most]]
    drawn += [_beyond_box(beyond) for beyond in source.beyond[:most]]
    left_out = sum(len(run) for run in grouped[most:])
    left_out += sum(beyond.last - beyond.first + 1 for beyond in source.beyond[most:])
    return drawn, left_out


def cache_cell(tokens: tuple[Token, ...]) -> Cell:
    """A position of the cache with what goes there."""
    hints = [_hint(token) for token in tokens[:4]]
    if len(tokens) > len(hints):
        hints.append(f"{len(tokens) - len(hints)} more")
    return Cell(cell_text(tokens), look_of(tokens[0].fate) if tokens else None, "; ".join(hints))


def _hint(token: Token) -> str:
    """All of a token in one line."""
    parts = [f"token {token.token}: {token.fate.label}"]
    if token.clause is not None:
        parts[0] += f" ({token.clause})"
    if token.why:
        parts.append(token.why)
    if token.slot is not None:
        parts.append(f"slot {token.slot} = block {token.block}, offset {token.offset}")
    return ", ".join(parts)


def _run_box(run: Sequence[Token], explanation: Explanation) -> Box:
    cells = [Cell(str(token.token), look_of(token.fate), _hint(token)) for token in run]
    cells = _shortened(cells, str(len(run) - 4))
    first, last = run[0], run[-1]
    if first.column is not None and explanation.block_size <= LONGEST:
        # The whole block, so that the positions of a row are seen to go through its blocks.
        after = explanation.block_size - 1 - (last.offset or 0)
        cells = [Cell()] * (first.offset or 0) + cells + [Cell()] * after
    return Box(_caption(run, explanation), tuple(cells))


def _beyond_box(beyond: Beyond) -> Box:
    numbers = [beyond.first, beyond.last]
    if beyond.last - beyond.first < LONGEST:
        numbers = list(range(beyond.first, beyond.last + 1))
    told = f"{beyond.fate.label} ({beyond.fate.clause}), {beyond.why}"
    cells = [Cell(str(n), look_of(beyond.fate), f"token {n}: {told}") for n in numbers]
    if len(numbers) < beyond.last - beyond.first + 1:
        cells.insert(1, Cell("..."))
    return Box("", tuple(cells))


def _caption(run: Sequence[Token], explanation: Explanation) -> str:
    first, last = run[0], run[-1]
    if explanation.form == "chunks":
        return ""  # the row above says it
    if explanation.form == "slots" and first.slot is not None and last.slot is not None:
        return f"slot {span(first.slot, last.slot)}"
    if first.block is None or first.offset is None:
        return first.why if first.fate is Fate.NEGATIVE_SLOT else ""
    framed = first.column is not None and explanation.block_size <= LONGEST
    return f"block {first.block}" if framed else f"block {first.block}:{first.offset}"


def _shortened(cells: list[Cell], middle: str) -> list[Cell]:
    if len(cells) <= LONGEST:
        return cells
    return [*cells[:2], Cell(f"+{middle}"), *cells[-2:]]
