"""The index arithmetic: from any index spec to one slot a token, and to runs inside blocks.

Everything is array-API code with static shapes and no host sync, so that NumPy, JAX (traced too)
and torch (compiled and captured too) run the same lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ._arrays import count_at_most, device_for_new, slot_dtype
from ._sizes import INT32_MAX, CacheShape, is_surely_at_most
from ._spec import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._types import Array, Bool, Int32, Integer, Size


@dataclass(frozen=True)
class Destinations:
    """What an index spec says of each token, before anything is judged against the cache.

    Attributes:
      named: the spec gives this token a position that it covers: its row is not padding and its
        table is wide enough, its chunk is well formed, or its slot is not negative.
      source: row of the table, or row of the plan, that names the token; 0 where none does.
      column: logical block of a table row; 0 elsewhere.
      block: physical block, as the spec has it; negative for a hole.
      offset: position in the block.
    """

    named: Bool[Array, " num_tokens"]
    source: Integer[Array, " num_tokens"]
    column: Integer[Array, " num_tokens"]
    block: Integer[Array, " num_tokens"]
    offset: Integer[Array, " num_tokens"]


def slots_in(
    xp: Any, index_spec: IndexSpec, cache_shape: CacheShape, num_tokens: Size
) -> Integer[Array, " num_tokens"]:
    """`to_slots` for a checked spec, in a given array namespace."""
    num_blocks, _, block_size, _ = cache_shape
    dtype = dtype_of_slots(xp, index_spec, cache_shape)
    to = destinations(xp, index_spec, block_size, num_tokens)
    # C8, C12, C14: a block that is not in the cache takes nothing.
    stored = to.named & (to.block >= 0) & (to.block < num_blocks)
    slot = xp.astype(to.block, dtype) * block_size + xp.astype(to.offset, dtype)
    return xp.where(stored, slot, PAD)


def chunks_in(
    xp: Any, index_spec: IndexSpec, cache_shape: CacheShape, num_tokens: Size
) -> Int32[Array, "num_chunks 4"]:
    """`plan_chunks` for a checked spec, in a given array namespace."""
    block_size = cache_shape[2]
    slots = slots_in(xp, index_spec, cache_shape, num_tokens)
    bound = _MOST_CHUNKS[type(index_spec)](index_spec, block_size, num_tokens)
    bound = bound if is_surely_at_most(bound, num_tokens) else num_tokens
    num_tokens = slots.shape[0]  # which torch may write otherwise, where it is symbolic
    device = device_for_new(slots)
    token = xp.arange(num_tokens, dtype=xp.int32, device=device)
    stored = slots >= 0
    goes_on = stored[1:] & (slots[1:] == slots[:-1] + 1) & (slots[1:] % block_size != 0)
    edge = xp.zeros_like(stored[:1])
    is_first = stored & ~xp.concat([edge, goes_on])
    is_last = stored & ~xp.concat([goes_on, edge])
    # Firsts and lasts come in the same order, so the two sorted lists pair up.
    first = xp.sort(xp.where(is_first, token, num_tokens))[:bound]
    last = xp.sort(xp.where(is_last, token, num_tokens))[:bound]
    is_run = first < num_tokens
    slot = slots[xp.where(is_run, first, 0)]
    columns = (
        first,
        xp.astype(slot // block_size, xp.int32),
        xp.astype(slot % block_size, xp.int32),
        last - first + 1,
    )
    return xp.stack([xp.where(is_run, column, 0) for column in columns], axis=1)


_MOST_CHUNKS: dict[type, Callable[[Any, Size, Size], Size]] = {
    # Decode, or rows of q tokens, each of which touches at most (q - 1) // block_size + 2 blocks.
    BlockTable: lambda spec, block_size, num_tokens: (
        spec.block_table.shape[0]
        if spec.cu_q_lens is None
        else num_tokens // block_size + 2 * spec.block_table.shape[0]
    ),
    # The tokens that only one chunk names are cut where two do (C13) into no more runs than chunks.
    ChunkPlan: lambda spec, block_size, num_tokens: spec.chunks.shape[0],
    SlotMapping: lambda spec, block_size, num_tokens: num_tokens,
}


def dtype_of_slots(xp: Any, index_spec: IndexSpec, cache_shape: CacheShape) -> Any:
    """The dtype of `slots_in`: that of slots, else as wide as the cache needs (C5)."""
    if isinstance(index_spec, SlotMapping):
        return index_spec.slots.dtype
    return slot_dtype(xp, cache_shape[0] * cache_shape[2])


def destinations(
    xp: Any, index_spec: IndexSpec, block_size: Size, num_tokens: Size
) -> Destinations:
    """Where the spec puts each of `num_tokens` tokens; see `Destinations`."""
    return _DESTINATIONS[type(index_spec)](xp, index_spec, block_size, num_tokens)


def _table_destinations(
    xp: Any, spec: BlockTable, block_size: Size, num_tokens: Size
) -> Destinations:
    batch, width = spec.block_table.shape
    token = _token_numbers(xp, spec.block_table, num_tokens)
    if batch == 0 or width == 0:  # C18
        return _nowhere(xp, token)
    if spec.cu_q_lens is None:
        row, in_row, named = token, xp.zeros_like(token), token < batch
    else:
        starts, ends = spec.cu_q_lens[:-1], spec.cu_q_lens[1:]
        row = xp.astype(count_at_most(xp, ends, token), xp.int32)
        named = (row < batch) & (starts[0] == 0) & xp.all(starts <= ends)  # C21
        in_row = token - starts[_at_most(xp, row, batch - 1)]
    row = _at_most(xp, row, batch - 1)
    context = spec.context_kv_lens[row]
    # C5: the position context + in_row may not fit 32 bits, so only its parts are added, and the
    # context's blocks are cut off at the table's width, past which nothing is stored (C9).
    offset = context % block_size + in_row % block_size
    column = (
        _at_most(xp, context // block_size, width) + in_row // block_size + offset // block_size
    )
    named = named & (context >= 0) & (column < width)  # C6, C9
    column = xp.where(named, column, 0)
    return Destinations(
        named=named,
        source=row,
        column=column,
        block=spec.block_table[row, column],
        offset=offset % block_size,
    )


def _chunk_destinations(
    xp: Any, spec: ChunkPlan, block_size: Size, num_tokens: Size
) -> Destinations:
    chunks = spec.chunks
    token = _token_numbers(xp, chunks, num_tokens)
    if chunks.shape[0] == 0:  # C18
        return _nowhere(xp, token)
    start, block, offset, length = (chunks[:, column] for column in range(4))
    whole = (start >= 0) & (offset >= 0) & (length > 0) & (length <= block_size - offset)  # C13
    first = xp.where(whole, _at_most(xp, start, num_tokens), num_tokens)
    end = first + xp.where(whole, length, 0)
    by_first, by_end = xp.argsort(first), xp.argsort(end)
    begun = count_at_most(xp, first[by_first], token)
    ended = count_at_most(xp, end[by_end], token)
    # A token inside exactly one chunk (C13): the numbers of the chunks begun so far less the
    # numbers of those ended leave the number of that chunk. Sums that wrap cancel all the same.
    named = begun - ended == 1
    chunk = _sums_before(xp, by_first)[begun] - _sums_before(xp, by_end)[ended]
    chunk = xp.where(named, chunk, 0)
    return Destinations(
        named=named,
        source=chunk,
        column=xp.zeros_like(token),
        block=block[chunk],
        offset=offset[chunk] + (token - start[chunk]),
    )


def _slot_destinations(
    xp: Any, spec: SlotMapping, block_size: Size, num_tokens: Size
) -> Destinations:
    slots = spec.slots
    unnamed = xp.full((num_tokens,), PAD, dtype=slots.dtype, device=device_for_new(slots))  # C10
    slots = xp.concat([slots, unnamed])[:num_tokens]
    token = _token_numbers(xp, slots, num_tokens)
    return Destinations(
        named=slots >= 0,  # C14
        source=xp.zeros_like(token),
        column=xp.zeros_like(token),
        block=slots // block_size,
        offset=slots % block_size,
    )


_DESTINATIONS: dict[type, Callable[[Any, Any, Size, Size], Destinations]] = {
    BlockTable: _table_destinations,
    ChunkPlan: _chunk_destinations,
    SlotMapping: _slot_destinations,
}


def _nowhere(xp: Any, token: Int32[Array, " num_tokens"]) -> Destinations:
    zero = xp.zeros_like(token)
    return Destinations(named=token < 0, source=zero, column=zero, block=zero, offset=zero)


def _token_numbers(xp: Any, like: Array, num_tokens: Size) -> Int32[Array, " num_tokens"]:
    return xp.arange(num_tokens, dtype=xp.int32, device=device_for_new(like))


def _at_most(xp: Any, array: Array, bound: Size) -> Array:
    return array if is_surely_at_most(INT32_MAX, bound) else xp.where(array < bound, array, bound)


def _sums_before(xp: Any, numbers: Integer[Array, " n"]) -> Integer[Array, " n+1"]:
    return xp.concat([xp.zeros_like(numbers[:1]), xp.cumulative_sum(numbers, dtype=numbers.dtype)])
