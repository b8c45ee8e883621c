"""How one tensor is stored with kernels that were made for a key and a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch

BLOCK_TABLE_KERNEL = "paged_store_kv_cache_with_block_table"
CHUNK_KERNEL = "paged_store_kv_cache_with_chunk_metadata"

Store: TypeAlias = Callable[
    [torch.Tensor, torch.Tensor, torch.Tensor, "torch.Tensor | None", torch.Tensor], Any
]
"""`store(states, cache, block_table, cu_q_lens, context_kv_lens)`, in place."""

CALL_FORMS: dict[str, dict[str, int]] = {
    # One side of the pair is written. Which of them does not matter: both are the one tensor.
    "store_mode=1, key and value one tensor": {"store_mode": 1},
    # Both sides are written, with the same rows to the same places.
    "7 arguments, key and value one tensor": {},
}
"""The ways to store one tensor, best first, as further arguments of the block-table kernel."""


def in_form(functions: Any, form: str) -> Store:
    """One of `CALL_FORMS`, of a library."""
    kernel, mode = getattr(functions, BLOCK_TABLE_KERNEL), CALL_FORMS[form]

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        pair = (states, states, cache, cache)
        return kernel(*pair, block_table, cu_q_lens, context_kv_lens, **mode)

    return store


def with_chunks(functions: Any) -> Store:
    """The other kernel, for decode tables. Waits for the device; only a probe uses it."""
    kernel = getattr(functions, CHUNK_KERNEL)

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        del cu_q_lens
        token = torch.arange(
            block_table.shape[0], dtype=block_table.dtype, device=block_table.device
        )
        chunks = torch.stack(
            [token, block_table[:, 0], context_kv_lens, torch.ones_like(token)], dim=1
        )
        return kernel(states, states, cache, cache, chunks[context_kv_lens >= 0])

    return store
