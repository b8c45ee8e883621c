"""Which blocks of a paged cache each sequence has: taken, shared, given back.

Bookkeeping only, for `bridges.transformers` and for servers with a model loop of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import SupportsIndex

import numpy as np

from functional_paged import PAD
from functional_paged.internal import Int32, as_cache_shape, as_size


class OutOfBlocks(RuntimeError):
    """Fewer `free` blocks than the `needed` ones of a call, which has changed nothing."""

    def __init__(self, needed: int, free: int) -> None:
        super().__init__(f"at least {needed} blocks must be free, got {free}; release some rows")
        self.needed, self.free = needed, free


@dataclass(eq=False)
class Row:
    """One sequence: ids of its first tokens as far as known, its blocks in order, tokens stored."""

    tokens: tuple[int, ...] = ()
    blocks: list[int] = field(default_factory=list)
    length: int = 0


class BlockAllocator:
    """The rows of one paged cache, their blocks, and how many rows have each block.

    A step is `reserve`, the copies that it asks for, the store, `append`. A block that several rows
    have is never written: a row that would go on in it gets a copy.

    Attributes:
      num_blocks: blocks of the cache.
      block_size: token positions in a block.
      rows: those that were begun and not released, as keys.
      free: blocks that no row has; the last is taken next.
      references: how many rows have each block.

    Example:
      >>> blocks = BlockAllocator(num_blocks=4, block_size=2)
      >>> a = blocks.add([7, 8, 9])
      >>> blocks.reserve({a: 3}), blocks.append({a: 3})
      ([], None)
      >>> b = blocks.add([7, 8, 5])
      >>> b.length, blocks.reserve({b: 1}), blocks.table([a, b]).tolist()
      (2, [], [[0, 1], [0, 2]])
    """

    def __init__(self, num_blocks: SupportsIndex, block_size: SupportsIndex) -> None:
        self.num_blocks, _, self.block_size, _ = as_cache_shape((num_blocks, 0, block_size, 0))
        self.rows: dict[Row, None] = {}
        self.free = list(reversed(range(self.num_blocks)))
        self.references = [0] * self.num_blocks

    def add(self, tokens: Iterable[SupportsIndex] = ()) -> Row:
        """Begin a row, with the full blocks of a row that has stored the same first tokens.

        Args:
          tokens: ids of what will be stored first. What is not known beforehand is not shared.

        Returns:
          The row; `length` of its tokens are stored already, at most all but one.
        """
        row, size = Row(tuple(as_size("token", token) for token in tokens)), self.block_size
        for other in self.rows:
            stored = min(other.length, len(other.tokens), len(row.tokens) - 1)
            start, end = 0, size
            while end <= stored and other.tokens[start:end] == row.tokens[start:end]:
                start, end = end, end + size
            if start > row.length:
                row.length, row.blocks = start, other.blocks[: start // size]
        return self._enter(row)

    def fork(self, row: Row) -> Row:
        """Begin a row that has all that is stored of another one, in the same blocks."""
        self._check(row)
        blocks = row.blocks[: self._blocks_of(row.length)]
        return self._enter(Row(row.tokens[: row.length], blocks, row.length))

    def reserve(self, counts: Mapping[Row, SupportsIndex]) -> list[tuple[int, int]]:
        """Give rows the blocks that their next tokens need and they don't have yet.

        Args:
          counts: how many tokens each row will store next.

        Returns:
          Blocks to be copied before that, in every cache: `(from, to)`.

        Raises:
          OutOfBlocks: free blocks are too few.
          SpecError: C1, a count that is none.
          ValueError: a row was released. Nothing has changed in any case.
        """
        counts = self._checked(counts)
        growing = [(row, row.length // self.block_size) for row in counts if counts[row] > 0]
        begun = Counter(row.blocks[at] for row, at in growing if at < len(row.blocks))
        # Of the rows that leave a block, the last one may keep it.
        needed = sum(min(rows, self.references[block] - 1) for block, rows in begun.items())
        for row, _ in growing:
            needed += max(0, self._blocks_of(row.length + counts[row]) - len(row.blocks))
        if needed > len(self.free):
            raise OutOfBlocks(needed, len(self.free))
        copies = []
        for row, at in growing:
            if at < len(row.blocks) and self.references[row.blocks[at]] > 1:
                self.references[row.blocks[at]] -= 1
                copies.append((row.blocks[at], self._take()))
                row.blocks[at] = copies[-1][1]
            while len(row.blocks) < self._blocks_of(row.length + counts[row]):
                row.blocks.append(self._take())
        return copies

    def append(self, counts: Mapping[Row, SupportsIndex]) -> None:
        """Note that as many next tokens of each row are stored as were reserved."""
        counts = self._checked(counts)
        for row, count in counts.items():
            room = len(row.blocks) * self.block_size - row.length
            if count > room:
                raise ValueError(f"a row must have reserved {count} tokens, got room for {room}")
        for row, count in counts.items():
            row.length += count

    def release(self, row: Row) -> None:
        """End a row. Blocks that no other row has are free."""
        self._check(row)
        del self.rows[row]
        for block in row.blocks:
            self.references[block] -= 1
            if self.references[block] == 0:
                self.free.append(block)
        row.blocks, row.length = [], 0

    def table(self, rows: Iterable[Row]) -> Int32[np.ndarray, "batch max_blocks_per_seq"]:
        """The `BlockTable.block_table` of some rows, `PAD` where they have no block."""
        lists = [row.blocks for row in rows]
        table = np.full((len(lists), max(map(len, lists), default=0)), PAD, np.int32)
        for entries, blocks in zip(table, lists, strict=True):
            entries[: len(blocks)] = blocks
        return table

    def _blocks_of(self, length: int) -> int:
        return -(-length // self.block_size)

    def _checked(self, counts: Mapping[Row, SupportsIndex]) -> dict[Row, int]:
        self._check(*counts)
        return {row: as_size("count", count) for row, count in counts.items()}

    def _check(self, *rows: Row) -> None:
        if not all(row in self.rows for row in rows):
            raise ValueError("rows must be of this allocator, got one that is not or was released")

    def _enter(self, row: Row) -> Row:
        self.rows[row] = None
        for block in row.blocks:
            self.references[block] += 1
        return row

    def _take(self) -> int:
        block = self.free.pop()
        self.references[block] = 1
        return block
