"""The index spec: where each new token goes, in one of three forms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ._pytrees import register_once
from ._types import Array, Int32, Integer

PAD = -1
"""Marks what is not stored: a hole in a block table, a padded row, an unused slot."""


class _Spec:
    """Base of the three forms: makes each a JAX pytree as soon as JAX is loaded."""

    def __post_init__(self) -> None:
        register_once(BlockTable, ChunkPlan, SlotMapping)


@dataclass(frozen=True, eq=False)
class BlockTable(_Spec):
    """Where each row's tokens go, as a serving engine keeps it.

    Attributes:
      block_table: physical block of each logical block, `PAD` where none.
        int32[batch, max_blocks_per_seq]
      context_kv_lens: tokens already stored in each row; negative marks a padded row. int32[batch]
      cu_q_lens: running total of new tokens, from 0. int32[batch + 1]; `None` is decode, one new
        token a row.

    Example:
      >>> import numpy as np
      >>> from functional_paged import to_slots
      >>> spec = BlockTable(np.int32([[4, 2], [7, PAD]]), np.int32([15, 3]), np.int32([0, 3, 4]))
      >>> to_slots(spec, cache_shape=(8, 2, 16, 64), num_tokens=4).slots
      array([ 79,  32,  33, 115], dtype=int32)
    """

    block_table: Int32[Array, "batch max_blocks_per_seq"]
    context_kv_lens: Int32[Array, " batch"]
    cu_q_lens: Int32[Array, " batch+1"] | None = None


@dataclass(frozen=True, eq=False)
class ChunkPlan(_Spec):
    """Runs of tokens, each run inside one block.

    Attributes:
      chunks: one row a run: `src_token_start`, `dst_block_id`, `dst_block_offset`, `chunk_len`;
        a row of `chunk_len` 0 is padding. int32[num_chunks, 4]

    Example:
      >>> import numpy as np
      >>> from functional_paged import to_slots
      >>> spec = ChunkPlan(np.int32([[0, 4, 15, 1], [1, 2, 0, 2]]))
      >>> to_slots(spec, cache_shape=(8, 2, 16, 64), num_tokens=3).slots
      array([79, 32, 33], dtype=int32)
    """

    chunks: Int32[Array, "num_chunks 4"]


@dataclass(frozen=True, eq=False)
class SlotMapping(_Spec):
    """One slot a token: `block_id * block_size + offset`, negative where it is not stored.

    Attributes:
      slots: int32 or int64[num_slots]; may name fewer tokens than `states` has rows.

    Example:
      >>> import numpy as np
      >>> SlotMapping(np.int32([79, PAD, 33])).slots.shape
      (3,)
    """

    slots: Integer[Array, " num_slots"]


IndexSpec: TypeAlias = BlockTable | ChunkPlan | SlotMapping
