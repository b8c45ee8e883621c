"""From any index spec to a plan of runs, each inside one block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._arrays import device_for_new
from ._sizes import CacheShape, is_surely_at_most
from ._slots import slots_in
from ._spec import BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._types import Array, Int32, Integer, Size


def chunks_in(
    xp: Any, index_spec: IndexSpec, cache_shape: CacheShape, num_tokens: Size
) -> Int32[Array, "num_chunks 4"]:
    """`plan_chunks` for a checked spec, in a given array namespace."""
    slots = slots_in(xp, index_spec, cache_shape, num_tokens)
    bound = _MOST_CHUNKS[type(index_spec)](index_spec, cache_shape[2], num_tokens)
    bound = bound if is_surely_at_most(bound, num_tokens) else num_tokens
    return _runs(xp, slots, cache_shape[2], bound)


_MOST_CHUNKS: dict[type, Callable[[Any, Size, Size], Size]] = {
    # Decode, or rows of q tokens, each of which touches at most (q - 1) // block_size + 2 blocks.
    BlockTable: lambda spec, block_size, num_tokens: (
        spec.block_table.shape[0]
        if spec.cu_q_lens is None
        else num_tokens // block_size + 2 * spec.block_table.shape[0]
    ),
    # Each end of a chunk may cut another chunk where both name a token (C13).
    ChunkPlan: lambda spec, block_size, num_tokens: 2 * spec.chunks.shape[0],
    SlotMapping: lambda spec, block_size, num_tokens: num_tokens,
}


def _runs(
    xp: Any, slots: Integer[Array, " num_tokens"], block_size: Size, bound: Size
) -> Int32[Array, "num_chunks 4"]:
    num_tokens = slots.shape[0]
    device = device_for_new(slots)
    if bound == 0:
        return xp.zeros((0, 4), dtype=xp.int32, device=device)
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
