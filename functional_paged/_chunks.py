"""From any index spec to a plan of runs, each inside one block."""

from __future__ import annotations

from typing import Any

from ._arrays import device_for_new, namespace_of
from ._slots import to_slots
from ._spec import BlockTable, ChunkPlan, IndexSpec
from ._static_checks import CacheShape
from ._types import Array, Int32, Integer


def plan_chunks(index_spec: IndexSpec, *, cache_shape: CacheShape, num_tokens: int) -> ChunkPlan:
    """Lower an index spec to runs of consecutive tokens in consecutive slots of one block.

    The plan stores exactly what the spec stores. Shapes are static and nothing waits for a device.

    Args:
      index_spec: any of the three forms, of NumPy, JAX or torch arrays.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      num_tokens: rows of `states`.

    Returns:
      `ChunkPlan` in order of `src_token_start`. Its number of rows is a bound that depends on
      shapes alone; rows that are not needed come last and are all zero.

    Raises:
      SpecError: as `to_slots`.

    Example:
      >>> import numpy as np
      >>> spec = BlockTable(np.int32([[4, 2]]), np.int32([13]), np.int32([0, 3]))
      >>> plan_chunks(spec, cache_shape=(8, 2, 16, 64), num_tokens=3).chunks
      array([[ 0,  4, 13,  3],
             [ 0,  0,  0,  0]], dtype=int32)
    """
    slots = to_slots(index_spec, cache_shape=cache_shape, num_tokens=num_tokens).slots
    xp = namespace_of(slots=slots)
    block_size = cache_shape[2]
    bound = min(num_tokens, _most_chunks(index_spec, block_size, num_tokens))
    return ChunkPlan(_runs(xp, slots, block_size, bound))


def _most_chunks(index_spec: IndexSpec, block_size: int, num_tokens: int) -> int:
    if isinstance(index_spec, BlockTable):
        batch = index_spec.block_table.shape[0]
        # A row of q tokens touches at most (q - 1) // block_size + 2 blocks.
        return batch if index_spec.cu_q_lens is None else num_tokens // block_size + 2 * batch
    if isinstance(index_spec, ChunkPlan):
        # Each end of a chunk may cut another chunk where both name a token (C13).
        return 2 * index_spec.chunks.shape[0]
    return num_tokens


def _runs(
    xp: Any, slots: Integer[Array, " num_tokens"], block_size: int, bound: int
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
