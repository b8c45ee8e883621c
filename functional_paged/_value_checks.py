"""Clauses that only values decide: what `check_spec` reports and a plain store skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import array_api_compat.numpy as xp
import numpy as np

from ._arrays import to_numpy
from ._errors import SpecError
from ._sizes import CacheShape
from ._slots import Destinations, destinations, slots_in
from ._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._static_checks import check_lowering


def check_spec(
    index_spec: IndexSpec, *, cache_shape: CacheShape, num_tokens: SupportsIndex
) -> None:
    """Check that an index spec is valid for a cache and a number of tokens.

    Reads the values on the host, so it waits for their device and does not run under a trace.

    Args:
      index_spec: any of the three forms, of concrete NumPy, JAX or torch arrays.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      num_tokens: rows of `states`; any integer, as the four sizes are.

    Raises:
      SpecError: C1 and C4 (shapes and dtypes), C11 (a token past `states`), C12 (a block or slot
        past the cache), C13 (a malformed chunk), C15 (two tokens in one slot), C21 (`cu_q_lens`).
        The text has the first offending position.

    Example:
      >>> spec = SlotMapping(np.int32([3, 99]))
      >>> check_spec(spec, cache_shape=(6, 2, 16, 64), num_tokens=2)
      Traceback (most recent call last):
      ...
      functional_paged.SpecError: C12: slots[1] = 99 must be < num_blocks * block_size = 96
    """
    cache_shape, num_tokens = check_lowering(index_spec, cache_shape, num_tokens)
    host = index_spec.map(to_numpy)
    check_form, _ = _BY_FORM[type(host)]
    check_form(host, cache_shape[2], num_tokens)
    _check_blocks(host, cache_shape, num_tokens)
    _check_distinct(host, cache_shape, num_tokens)


def _check_table(table: BlockTable, block_size: int, num_tokens: int) -> None:
    if table.cu_q_lens is None:
        _check_decode_tokens(table, num_tokens)
    else:
        _check_cu_q_lens(table.cu_q_lens)
        _check_prefill_tokens(table, table.cu_q_lens, num_tokens)


def _check_cu_q_lens(cu_q_lens: np.ndarray) -> None:
    if cu_q_lens[0] != 0:
        raise SpecError("C21", f"cu_q_lens[0] must be 0, got {cu_q_lens[0]}")
    row = _first(cu_q_lens[1:] < cu_q_lens[:-1])
    if row is not None:
        raise SpecError(
            "C21",
            f"cu_q_lens[{row + 1}] = {cu_q_lens[row + 1]} must be >= cu_q_lens[{row}] "
            f"= {cu_q_lens[row]}",
        )


def _check_decode_tokens(table: BlockTable, num_tokens: int) -> None:
    real = table.context_kv_lens >= 0  # C6: a padded row may name anything
    row = _first(real & (np.arange(real.size) >= num_tokens))
    if row is not None:
        raise SpecError(
            "C11",
            f"context_kv_lens[{row}] = {table.context_kv_lens[row]} names token {row}, "
            f"which must be < num_tokens = {num_tokens}",
        )


def _check_prefill_tokens(table: BlockTable, cu_q_lens: np.ndarray, num_tokens: int) -> None:
    starts, ends = cu_q_lens[:-1], cu_q_lens[1:]
    row = _first((table.context_kv_lens >= 0) & (ends > starts) & (ends > num_tokens))  # C6, C7
    if row is not None:
        raise SpecError(
            "C11", f"cu_q_lens[{row + 1}] = {ends[row]} must be <= num_tokens = {num_tokens}"
        )


def _check_chunks(plan: ChunkPlan, block_size: int, num_tokens: int) -> None:
    for wrong, text, values in chunk_rules(plan.chunks, block_size):
        _refuse("C13", wrong, text, values)
    start, _, _, length = plan.chunks.astype(np.int64).T
    named = length > 0
    _refuse(
        "C11",
        named & (start + length > num_tokens),
        f"chunks[{{}}, 0] + chunk_len = {{}} must be <= num_tokens = {num_tokens}",
        start + length,
    )
    order = np.argsort(start, kind="stable")
    order = order[named[order]]
    # Sorted by start, the first pair that overlaps is a pair of neighbours.
    pair = _first(start[order[1:]] < (start + length)[order[:-1]])
    if pair is not None:
        earlier, later = order[pair], order[pair + 1]
        raise SpecError(
            "C13",
            f"chunks[{later}] must not name token {start[later]}, which chunks[{earlier}] names",
        )


def chunk_rules(
    chunks: np.ndarray, block_size: int
) -> Iterator[tuple[np.ndarray, str, np.ndarray]]:
    """What C13 asks of each chunk on its own: the rows that break it, the text, and the values."""
    start, _, offset, length = chunks.astype(np.int64).T
    named, end = length > 0, offset + length
    yield length < 0, "chunks[{}, 3] = {} must be a chunk_len >= 0", length
    yield named & (start < 0), "chunks[{}, 0] = {} must be a token >= 0", start
    yield named & (offset < 0), "chunks[{}, 2] = {} must be an offset >= 0", offset
    text = f"chunks[{{}}, 2] + chunk_len = {{}} must be <= block_size = {block_size}"
    yield named & (end > block_size), text, end


def _check_slot_count(mapping: SlotMapping, block_size: int, num_tokens: int) -> None:
    slots = mapping.slots
    token = _first((slots >= 0) & (np.arange(slots.size) >= num_tokens))
    if token is not None:
        raise SpecError(
            "C11",
            f"slots[{token}] = {slots[token]} names token {token}, "
            f"which must be < num_tokens = {num_tokens}",
        )


def _check_blocks(spec: IndexSpec, cache_shape: CacheShape, num_tokens: int) -> None:
    num_blocks, _, block_size, _ = cache_shape
    to = destinations(xp, spec, block_size, num_tokens)
    token = _first(to.named & (to.block >= num_blocks))
    if token is None:
        return
    _, past_the_cache = _BY_FORM[type(spec)]
    raise SpecError("C12", past_the_cache(spec, to, token, num_blocks, block_size))


def _table_past(
    spec: BlockTable, to: Destinations, token: int, num_blocks: int, block_size: int
) -> str:
    entry = f"block_table[{to.source[token]}, {to.column[token]}]"
    return f"{entry} = {to.block[token]} must be < num_blocks = {num_blocks}"


def _chunk_past(
    spec: ChunkPlan, to: Destinations, token: int, num_blocks: int, block_size: int
) -> str:
    return f"chunks[{to.source[token]}, 1] = {to.block[token]} must be < num_blocks = {num_blocks}"


def _slot_past(
    spec: SlotMapping, to: Destinations, token: int, num_blocks: int, block_size: int
) -> str:
    bound = f"num_blocks * block_size = {num_blocks * block_size}"
    return f"slots[{token}] = {spec.slots[token]} must be < {bound}"


_BY_FORM: dict[type, tuple[Callable[..., None], Callable[..., str]]] = {
    BlockTable: (_check_table, _table_past),
    ChunkPlan: (_check_chunks, _chunk_past),
    SlotMapping: (_check_slot_count, _slot_past),
}


def _check_distinct(spec: IndexSpec, cache_shape: CacheShape, num_tokens: int) -> None:
    slots = slots_in(xp, spec, cache_shape, num_tokens)
    order = np.argsort(slots, kind="stable")
    in_order = slots[order]
    pair = _first((in_order[1:] == in_order[:-1]) & (in_order[1:] >= 0))
    if pair is not None:
        block, offset = divmod(int(in_order[pair]), cache_shape[2])
        raise SpecError(
            "C15",
            f"tokens {order[pair]} and {order[pair + 1]} must not share slot {in_order[pair]} "
            f"(block {block}, offset {offset})",
        )


def _refuse(clause: str, wrong: np.ndarray, text: str, values: np.ndarray) -> None:
    row = _first(wrong)
    if row is not None:
        raise SpecError(clause, text.format(row, values[row]))


def _first(wrong: Any) -> int | None:
    """Index of the first true element."""
    return int(np.argmax(wrong)) if wrong.any() else None
