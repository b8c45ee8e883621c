"""Calls that the static checks refuse, each one change away from a good call."""

from __future__ import annotations

from typing import Any

import numpy as np

from functional_paged import BlockTable, ChunkPlan, SlotMapping
from tests.helpers import i32

SHAPE = (6, 3, 4, 5)  # num_blocks, kv_heads, block_size, head_dim


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


GOOD_CALL: dict[str, Any] = {
    "cache": zeros(*SHAPE),
    "states": zeros(2, 3, 5),
    "index_spec": SlotMapping(i32(0, 1)),
}

BAD_CALLS: dict[str, tuple[dict[str, Any], str]] = {
    "cache_type": ({"cache": [0]}, "C1: cache must be an array, got list"),
    "cache_rank": (
        {"cache": zeros(6, 4, 5)},
        "C1: cache must have 4 axes (num_blocks, kv_heads, block_size, head_dim), got 3: (6, 4, 5)",
    ),
    "block_size": (
        {"cache": zeros(6, 3, 0, 5)},
        "C1: block_size = cache.shape[2] must be in 1..2**30, got 0",
    ),
    "states_type": ({"states": 3.0}, "C1: states must be an array, got float"),
    "states_rank": (
        {"states": zeros(2, 15)},
        "C1: states must have 3 axes (num_tokens, kv_heads, head_dim), got (2, 15)",
    ),
    "kv_heads": (
        {"states": zeros(2, 4, 5)},
        "C1: states.shape[1] = 4 must equal kv_heads = 3 of cache",
    ),
    "head_dim": (
        {"states": zeros(2, 3, 6)},
        "C1: states.shape[2] = 6 must equal head_dim = 5 of cache",
    ),
    "dtype": (
        {"states": zeros(2, 3, 5, dtype=np.float16)},
        "C2: states.dtype must equal cache.dtype = float32, got float16; a store never casts",
    ),
    "spec_type": (
        {"index_spec": i32(0, 1)},
        "C1: index_spec must be a BlockTable, ChunkPlan or SlotMapping, got numpy.ndarray",
    ),
    "slots_type": (
        {"index_spec": SlotMapping([0, 1])},  # type: ignore[arg-type]
        "C4: slots must be an int32 array, got list",
    ),
    "slots_dtype": (
        {"index_spec": SlotMapping(np.uint32([0, 1]))},
        "C4: slots must be int32 or int64, got uint32",
    ),
    "slots_rank": (
        {"index_spec": SlotMapping(i32([0], [1]))},
        "C1: slots must have 1 axes, got 2: (2, 1)",
    ),
    "chunks_columns": (
        {"index_spec": ChunkPlan(i32([0, 0, 1]))},
        "C1: chunks must have 4 columns (src_token_start, dst_block_id, dst_block_offset, "
        "chunk_len), got 3",
    ),
    "chunks_dtype": (
        {"index_spec": ChunkPlan(np.int64([[0, 0, 0, 1]]))},
        "C4: chunks must be int32, got int64",
    ),
    "table_rank": (
        {"index_spec": BlockTable(i32(0, 1), i32(0, 0))},
        "C1: block_table must have 2 axes, got 1: (2,)",
    ),
    "contexts_length": (
        {"index_spec": BlockTable(i32([0], [1]), i32(0))},
        "C1: context_kv_lens.shape[0] = 1 must equal batch = 2",
    ),
    "cu_q_lens_length": (
        {"index_spec": BlockTable(i32([0], [1]), i32(0, 0), i32(0, 2))},
        "C1: cu_q_lens.shape[0] = 2 must equal batch + 1 = 3",
    ),
}
"""What is changed, and the text of the error."""
