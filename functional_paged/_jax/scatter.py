"""One scatter and one gather of rows by slot, with the bits (C16) and the derivative (C22)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._types import Array, Integer, Shaped
from .bits import move


def scatter(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    states: Shaped[Array, "num_tokens kv_heads head_dim"],
    slots: Integer[Array, " num_tokens"],
) -> Shaped[Array, "num_blocks kv_heads block_size head_dim"]:
    """Write each row of `states` to its slot, unless the slot is negative."""
    return move(_scatter, cache, states, slots)


def gather(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    slots: Integer[Array, " num_tokens"],
) -> Shaped[Array, "num_tokens kv_heads head_dim"]:
    """Read the row at each slot; zeros where the slot is negative."""
    return move(_gather, cache, slots)


def _scatter(cache: Array, states: Array, slots: Array) -> Array:
    return jax.lax.scatter(
        cache,
        _places(cache, slots),
        states,
        jax.lax.ScatterDimensionNumbers(
            update_window_dims=(1, 2),
            inserted_window_dims=(0, 2),
            scatter_dims_to_operand_dims=(0, 2),
        ),
        unique_indices=True,  # JAX transposes no other scatter
        mode="drop",
    )


def _gather(cache: Array, slots: Array) -> Array:
    _, kv_heads, _, head_dim = cache.shape
    return jax.lax.gather(
        cache,
        _places(cache, slots),
        jax.lax.GatherDimensionNumbers(
            offset_dims=(1, 2), collapsed_slice_dims=(0, 2), start_index_map=(0, 2)
        ),
        slice_sizes=(1, kv_heads, 1, head_dim),
        mode="fill",
        fill_value=0,
    )


def _places(cache: Array, slots: Array) -> Integer[Array, "num_tokens 2"]:
    """Block and offset of each slot; for a token that is not stored, a block past the end."""
    num_blocks, _, block_size, _ = cache.shape
    # Each its own, so that indices stay unique; a sum that wraps is negative and past the end too.
    past_end = num_blocks + jnp.arange(slots.shape[0], dtype=slots.dtype)
    block = jnp.where(slots < 0, past_end, slots // block_size)
    return jnp.stack([block, jnp.where(slots < 0, 0, slots % block_size)], axis=1)
