"""The lowerings that callers use: the checks, then the arithmetic of `_slots`."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any, SupportsIndex

from array_api_compat import is_jax_namespace

from ._arrays import namespace_of
from ._sizes import CacheShape
from ._slots import chunks_in, dtype_of_slots, slots_in
from ._spec import ChunkPlan, IndexSpec, SlotMapping
from ._static_checks import check_devices, check_lowering
from ._types import Array, Size


def to_slots(
    index_spec: IndexSpec, *, cache_shape: CacheShape, num_tokens: SupportsIndex
) -> SlotMapping:
    """Lower an index spec to one slot a token.

    Shapes are static and nothing waits for a device, so it runs under `jax.jit`,
    `torch.compile(fullgraph=True)` and graph capture.

    Args:
      index_spec: any of the three forms, of NumPy, JAX or torch arrays.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      num_tokens: rows of `states`; any integer, as the four sizes are.

    Returns:
      `SlotMapping` of exactly `num_tokens` slots: `PAD` for every token that is not stored, by any
      clause, also where the spec is invalid. int32 where `num_blocks * block_size` < 2**31, else
      int64. `SlotMapping` input keeps its dtype.

    Raises:
      SpecError: C1, C3, C4 for the sizes and the spec's own arrays; C5 where slots need 64 bits
        and JAX has none.

    Example:
      >>> import numpy as np
      >>> from functional_paged import BlockTable
      >>> spec = BlockTable(np.int32([[4, 2]]), np.int32([15]), np.int32([0, 2]))
      >>> to_slots(spec, cache_shape=(8, 2, 16, 64), num_tokens=3).slots
      array([79, 32, -1], dtype=int32)
    """
    return SlotMapping(_lowered_by(slots_in, index_spec, cache_shape, num_tokens))


def plan_chunks(
    index_spec: IndexSpec, *, cache_shape: CacheShape, num_tokens: SupportsIndex
) -> ChunkPlan:
    """Lower an index spec to runs of consecutive tokens in consecutive slots of one block.

    The plan stores exactly what the spec stores. Shapes are static and nothing waits for a device.

    Args:
      index_spec: as in `to_slots`, like the sizes.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      num_tokens: rows of `states`.

    Returns:
      `ChunkPlan` in order of `src_token_start`. Its number of rows is a bound that depends on
      shapes alone; rows that are not needed come last and are all zero.

    Raises:
      SpecError: as `to_slots`.

    Example:
      >>> import numpy as np
      >>> from functional_paged import BlockTable
      >>> spec = BlockTable(np.int32([[4, 2]]), np.int32([13]), np.int32([0, 3]))
      >>> plan_chunks(spec, cache_shape=(8, 2, 16, 64), num_tokens=3).chunks
      array([[ 0,  4, 13,  3],
             [ 0,  0,  0,  0]], dtype=int32)
    """
    return ChunkPlan(_lowered_by(chunks_in, index_spec, cache_shape, num_tokens))


def _lowered_by(
    function: Callable[[Any, IndexSpec, CacheShape, Size], Array],
    index_spec: IndexSpec,
    cache_shape: CacheShape,
    num_tokens: SupportsIndex,
) -> Array:
    shape, count = check_lowering(index_spec, cache_shape, num_tokens)
    arrays = index_spec.arrays()
    check_devices(arrays)
    xp = namespace_of(**arrays)
    dtype_of_slots(xp, index_spec, shape)  # C5 before JAX traces, which adds a note to the error
    lower = _as_one_program(function) if is_jax_namespace(xp) else function
    return lower(xp, index_spec, shape, count)


@functools.cache
def _as_one_program(function: Callable[..., Array]) -> Callable[..., Array]:
    # One dispatch instead of one an operation, and no scalar of ours that a transfer guard meets.
    return sys.modules["jax"].jit(function, static_argnums=(0, 2, 3), inline=True)
