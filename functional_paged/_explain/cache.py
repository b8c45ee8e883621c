"""The touched part of a cache as lines of cells, for drawings of any kind."""

from __future__ import annotations

from dataclasses import dataclass

from .model import Explanation, Token


@dataclass(frozen=True)
class CacheLine:
    """Neighbouring positions of one block.

    Attributes:
      block: the physical block.
      first_offset: offset of the first cell.
      cells: the tokens in each position: none where nothing changes, several where they contest it.
    """

    block: int
    first_offset: int
    cells: tuple[tuple[Token, ...], ...]


def cache_lines(explanation: Explanation, per_line: int) -> list[CacheLine]:
    """Every line of `per_line` cells that takes a token, in order; blocks are cut where longer."""
    cells = explanation.cells
    starts = {(block, offset // per_line * per_line) for block, offset in cells}
    return [
        CacheLine(
            block,
            first,
            tuple(
                cells.get((block, offset), ())
                for offset in range(first, min(first + per_line, explanation.block_size))
            ),
        )
        for block, first in sorted(starts)
    ]


def cell_text(tokens: tuple[Token, ...]) -> str:
    """What a cell says: its token, or its contenders; empty where nothing changes."""
    numbers = [str(token.token) for token in tokens]
    if len(numbers) > 2:
        numbers = [numbers[0], f"+{len(numbers) - 1}"]
    return "|".join(numbers)
