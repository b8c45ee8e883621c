"""One scatter and one gather of rows by slot, with the bits (C16) and the derivative (C22)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._types import Array, Integer, Shaped, Size
from .bits import move


def scatter(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    states: Shaped[Array, "num_tokens kv_heads head_dim"],
    places: Integer[Array, "num_tokens 2"],
) -> Shaped[Array, "num_blocks kv_heads block_size head_dim"]:
    """Write each row of `states` to its place, unless that is past the end."""
    return move(_scatter, cache, states, places)


def gather(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    places: Integer[Array, "num_tokens 2"],
) -> Shaped[Array, "num_tokens kv_heads head_dim"]:
    """Read the row at each place; zeros where that is past the end."""
    return move(_gather, cache, places)


def places_of(
    slots: Integer[Array, " num_tokens"], num_blocks: Size, block_size: Size
) -> Integer[Array, "num_tokens 2"]:
    """Block and offset of each slot; for a token that is not stored, a block past the end."""
    # Each its own, so that indices stay unique; a sum that wraps is negative and past the end too.
    past_end = num_blocks + jnp.arange(slots.shape[0], dtype=slots.dtype)
    block = jnp.where(slots < 0, past_end, slots // block_size)
    return jnp.stack([block, slots % block_size], axis=1)


def _scatter(cache: Array, states: Array, places: Array) -> Array:
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2),
        inserted_window_dims=(0, 2),
        scatter_dims_to_operand_dims=(0, 2),
    )
    # Unique, since JAX transposes no other scatter.
    return jax.lax.scatter(cache, places, states, dimensions, unique_indices=True, mode="drop")


def _gather(cache: Array, places: Array) -> Array:
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=(1, 2), collapsed_slice_dims=(0, 2), start_index_map=(0, 2)
    )
    sizes = (1, cache.shape[1], 1, cache.shape[3])
    return jax.lax.gather(cache, places, dimensions, sizes, mode="fill", fill_value=0)
