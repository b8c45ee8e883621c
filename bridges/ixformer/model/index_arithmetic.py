"""The index arithmetic of the modelled kernels, with the mistakes that a kernel may make."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .semantics import KernelSemantics


class Tables(NamedTuple):
    """What the block-table kernel gets, as the memory from each array's first element on.

    Attributes:
      table: the block table and what follows it.
      shape: `(batch, max_blocks_per_seq)`.
      contexts: `context_kv_lens` and what follows it.
      cu_q_lens: the same, or `None` for decode.
    """

    table: np.ndarray
    shape: tuple[int, ...]
    contexts: np.ndarray
    cu_q_lens: np.ndarray | None


def table_places(
    semantics: KernelSemantics, tables: Tables, num_tokens: int, cache_shape: tuple[int, ...]
) -> list[tuple[int, int, int]]:
    """Every `(token, block, offset)` that the kernel writes, in the order of the tokens."""
    batch, width = tables.shape
    block_size = _block_size(semantics, cache_shape[2])
    decode = tables.cu_q_lens is None
    negative = semantics.negative_decode if decode else semantics.negative_prefill
    bounds = _bounds(semantics, tables, num_tokens)
    places = []
    for row in range(_rows_done(semantics, batch)):
        context = int(tables.contexts[row])
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
            block = int(tables.table[(row * width + column) % tables.table.size])
            if block < 0 and semantics.hole != "before":
                if semantics.hole == "skip":
                    continue
                if semantics.hole == "stop":
                    break
                block = cache_shape[0] - 1
            places.append((first + in_row, block, offset))
    return places


def _bounds(semantics: KernelSemantics, tables: Tables, num_tokens: int) -> list[int]:
    """Where each row's tokens begin and end."""
    batch = tables.shape[0]
    if tables.cu_q_lens is None:
        bounds = list(range(batch + 1))
    else:
        bounds = tables.cu_q_lens[: batch + 1].tolist()
    if batch and num_tokens > bounds[-1]:
        if semantics.spare_states == "raises":
            raise RuntimeError("the number of states must be that of the query tokens")
        if semantics.spare_states == "append":
            bounds[-1] = num_tokens
    return bounds


def _block_size(semantics: KernelSemantics, block_size: int) -> int:
    if semantics.block_sizes is None or block_size in semantics.block_sizes:
        return block_size
    if semantics.other_block_sizes == "raises":
        raise RuntimeError(f"block_size {block_size} is not supported")
    return 1 << (block_size.bit_length() - 1)


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
