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


def with_store_mode(functions: Any) -> Store:
    """One side of the pair is written, which of them does not matter: both are the one tensor."""
    kernel = getattr(functions, BLOCK_TABLE_KERNEL)

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        return kernel(
            states,
            states,
            cache,
            cache,
            block_table,
            cu_q_lens,
            context_kv_lens,
            store_mode=1,
        )

    return store


def as_a_pair(functions: Any) -> Store:
    """Both sides are written, with the same rows to the same places."""
    kernel = getattr(functions, BLOCK_TABLE_KERNEL)

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        return kernel(states, states, cache, cache, block_table, cu_q_lens, context_kv_lens)

    return store


def with_chunks(functions: Any) -> Store:
    """The other kernel, for decode tables. Waits for the device; only a probe uses it."""
    kernel = getattr(functions, CHUNK_KERNEL)

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        token = torch.arange(
            block_table.shape[0], dtype=block_table.dtype, device=block_table.device
        )
        chunks = torch.stack(
            [token, block_table[:, 0], context_kv_lens, torch.ones_like(token)], dim=1
        )
        return kernel(states, states, cache, cache, chunks[context_kv_lens >= 0])

    return store


FORMS: dict[str, Callable[[Any], Store]] = {
    "store_mode=1, key and value one tensor": with_store_mode,
    "7 arguments, key and value one tensor": as_a_pair,
}
"""The call forms that store one tensor, best first."""
