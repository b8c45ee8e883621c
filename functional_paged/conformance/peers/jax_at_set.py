"""Plain `cache.at[blocks, :, offsets].set(states, mode="drop")` in JAX."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from functional_paged import BlockTable, IndexSpec

from ..cases.case import Case
from ._by_hand import encoded, tokens_and_slots


class AtSetAdapter:
    """Pure and jitted. The index arithmetic is by hand and masks nothing."""

    name = "jax-at-set"
    isolation = "process"

    def info(self) -> dict[str, str]:
        return {"jax": jax.__version__, "device": jax.devices()[0].device_kind}

    def unsupported(self, case: Case) -> str | None:
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        if isinstance(index_spec, BlockTable):
            return np.asarray(_store_table(cache, states, index_spec))
        tokens, slots = tokens_and_slots(index_spec, cache.shape[2])
        return np.asarray(_store_slots(cache, states, tokens, slots))

    def encode(self, states: np.ndarray, scale: np.ndarray | None, codec: str) -> Any:
        made = jax.jit(functools.partial(encoded, jnp, codec=codec))(states, scale)
        return jax.block_until_ready(made)


@jax.jit
def _store_table(cache: jax.Array, states: jax.Array, spec: BlockTable) -> jax.Array:
    table, contexts, cu_q_lens = spec.block_table, spec.context_kv_lens, spec.cu_q_lens
    block_size, rows = cache.shape[2], jnp.arange(table.shape[0])
    if cu_q_lens is None:
        tokens, positions = rows, contexts
    else:
        tokens = jnp.arange(states.shape[0])
        rows = jnp.repeat(rows, jnp.diff(cu_q_lens), total_repeat_length=states.shape[0])
        positions = contexts[rows] + tokens - cu_q_lens[rows]
    slots = table[rows, positions // block_size] * block_size + positions % block_size
    return _store_slots(cache, states, tokens, slots)


@jax.jit
def _store_slots(
    cache: jax.Array, states: jax.Array, tokens: jax.Array, slots: jax.Array
) -> jax.Array:
    block_size = cache.shape[2]
    return cache.at[slots // block_size, :, slots % block_size].set(states[tokens], mode="drop")


adapter = AtSetAdapter()
