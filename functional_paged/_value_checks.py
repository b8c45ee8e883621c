"""Clauses that only values decide: what `check_spec` reports and a plain store skips."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, SupportsIndex

import numpy as np

from ._arrays import namespace_of, to_numpy
from ._errors import SpecError
from ._sizes import CacheShape
from ._slots import destinations, slots_in
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
    xp = namespace_of(**host.arrays())  # not imported above: it loads all of NumPy
    check_form, past_the_cache = _BY_FORM[type(host)]
    check_form(host, cache_shape[2], num_tokens)
    num_blocks, _, block_size, _ = cache_shape
    to = destinations(xp, host, block_size, num_tokens)
    columns = (to.source, to.column, to.block, to.block * block_size + to.offset)
    sizes = {"num_blocks": num_blocks, "num_slots": num_blocks * block_size}
    _refuse("C12", to.named & (to.block >= num_blocks), past_the_cache, *columns, **sizes)
    slots = slots_in(xp, host, cache_shape, num_tokens)
    order = np.argsort(slots, kind="stable")
    slot = slots[order[1:]]
    text = "tokens {1} and {2} must not share slot {3} (block {4}, offset {5})"
    columns = (order[:-1], order[1:], slot, slot // block_size, slot % block_size)
    _refuse("C15", (slot == slots[order[:-1]]) & (slot >= 0), text, *columns)


def _check_table(table: BlockTable, block_size: int, num_tokens: int) -> None:
    contexts, totals = table.context_kv_lens, table.cu_q_lens
    row, real = np.arange(contexts.size), contexts >= 0  # C6: a padded row may name anything
    if totals is None:
        text = (
            "context_kv_lens[{0}] = {1} names token {0}, which must be < num_tokens = {num_tokens}"
        )
        _refuse("C11", real & (row >= num_tokens), text, contexts, num_tokens=num_tokens)
        return
    starts, ends = totals[:-1], totals[1:]
    _refuse("C21", totals[:1] != 0, "cu_q_lens[0] must be 0, got {1}", totals)
    text = "cu_q_lens[{1}] = {2} must be >= cu_q_lens[{0}] = {3}"
    _refuse("C21", ends < starts, text, row + 1, ends, starts)
    past = real & (ends > starts) & (ends > num_tokens)  # C7
    text = "cu_q_lens[{1}] = {2} must be <= num_tokens = {num_tokens}"
    _refuse("C11", past, text, row + 1, ends, num_tokens=num_tokens)


def _check_chunks(plan: ChunkPlan, block_size: int, num_tokens: int) -> None:
    for wrong, text, values in chunk_rules(plan.chunks, block_size):
        _refuse("C13", wrong, text, values)
    start, _, _, length = plan.chunks.astype(np.int64).T
    named, end = length > 0, start + length
    text = "chunks[{0}, 0] + chunk_len = {1} must be <= num_tokens = {num_tokens}"
    _refuse("C11", named & (end > num_tokens), text, end, num_tokens=num_tokens)
    order = np.argsort(start, kind="stable")
    order = order[named[order]]
    # Sorted by start, the first pair that overlaps is a pair of neighbours.
    earlier, later = order[:-1], order[1:]
    text = "chunks[{1}] must not name token {2}, which chunks[{3}] names"
    _refuse("C13", start[later] < end[earlier], text, later, start[later], earlier)


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


def _check_slots(mapping: SlotMapping, block_size: int, num_tokens: int) -> None:
    slots = mapping.slots
    past = (slots >= 0) & (np.arange(slots.size) >= num_tokens)
    text = "slots[{0}] = {1} names token {0}, which must be < num_tokens = {num_tokens}"
    _refuse("C11", past, text, slots, num_tokens=num_tokens)


_BLOCK = " = {3} must be < num_blocks = {num_blocks}"
_BY_FORM: dict[type, tuple[Callable[[Any, int, int], None], str]] = {
    BlockTable: (_check_table, "block_table[{1}, {2}]" + _BLOCK),
    ChunkPlan: (_check_chunks, "chunks[{1}, 1]" + _BLOCK),
    SlotMapping: (_check_slots, "slots[{0}] = {4} must be < num_blocks * block_size = {num_slots}"),
}
"""What is checked of each form alone, and how it tells of a block past the cache."""


def _refuse(clause: str, wrong: np.ndarray, text: str, *columns: np.ndarray, **sizes: int) -> None:
    """Raise for the first row that is wrong; the text gets its number, then what columns say."""
    if wrong.any():
        row = int(np.argmax(wrong))
        raise SpecError(clause, text.format(row, *(column[row] for column in columns), **sizes))
