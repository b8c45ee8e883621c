"""The index arithmetic of the modelled kernels, with the mistakes that a kernel may make."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np

from .semantics import KernelSemantics

Writes: TypeAlias = list[tuple[int, int, int]]
"""The token, block and offset of each row that a kernel moves, in its order."""


def table_writes(
    semantics: KernelSemantics,
    table: np.ndarray,
    shape: tuple[int, ...],
    contexts: np.ndarray,
    cu_q_lens: np.ndarray | None,
    num_tokens: int,
    cache_shape: tuple[int, ...],
) -> Writes:
    """Every write that the block-table kernel writes, in the tokens' order.

    The arrays are all the memory that follows their first elements; `shape` is the table's.
    """
    batch, width = shape
    num_blocks, _, block_size, _ = cache_shape
    if not semantics.served("block_sizes", block_size):
        block_size = 1 << (block_size.bit_length() - 1)
    decode = cu_q_lens is None
    negative = semantics.negative_decode if decode else semantics.negative_prefill
    bounds = list(range(batch + 1)) if decode else cu_q_lens[: batch + 1].tolist()
    if batch and num_tokens > bounds[-1]:
        if semantics.spare_states == "raises":
            raise RuntimeError("the number of states must be that of the query tokens")
        if semantics.spare_states == "append":
            bounds[-1] = num_tokens
    writes = []
    for row in range(_rows_done(semantics, batch)):
        context = int(contexts[row])
        if context < 0 and negative == "skip":
            continue
        if negative == "zero":
            context = max(context, 0)
        first, length = bounds[row], bounds[row + 1] - bounds[row]
        if semantics.empty_row == "one":
            length = max(length, 1)
        for in_row in range(_rows_done(semantics, length)):
            column, offset = _divide_as_c(context + in_row, block_size)
            if column >= width and semantics.short_table == "skip":
                continue
            block = int(table[(row * width + column) % table.size])
            if block < 0 and semantics.hole != "before":
                if semantics.hole == "skip":
                    continue
                if semantics.hole == "stop":
                    break
                block = num_blocks - 1
            writes.append((first + in_row, block, offset))
    return writes


def _rows_done(semantics: KernelSemantics, rows: int) -> int:
    limit = semantics.max_rows
    if limit is None or rows <= limit:
        return rows
    if semantics.more_rows == "raises":
        raise RuntimeError("invalid launch configuration")
    return limit


def _divide_as_c(position: int, block_size: int) -> tuple[int, int]:
    column, offset = divmod(abs(position), block_size)
    return (column, offset) if position >= 0 else (-column, -offset)
