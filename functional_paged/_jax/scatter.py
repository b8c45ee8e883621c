"""One scatter and one gather of rows by slot, with the bits (C16) and the derivative (C22)."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from .._layout import Layout
from .._types import Array, Integer, Shaped, Size
from .bits import move


def scatter(
    layout: Layout,
    cache: Shaped[Array, "num_blocks axis1 axis2 head_dim"],
    states: Shaped[Array, "num_tokens kv_heads head_dim"],
    places: Integer[Array, "num_tokens 2"],
) -> Shaped[Array, "num_blocks axis1 axis2 head_dim"]:
    """Write each row of `states` to its place, unless that is past the end."""
    return move(_in_layout(_scatter, layout), cache, states, places)


def gather(
    layout: Layout,
    cache: Shaped[Array, "num_blocks axis1 axis2 head_dim"],
    places: Integer[Array, "num_tokens 2"],
) -> Shaped[Array, "num_tokens kv_heads head_dim"]:
    """Read the row at each place; zeros where that is past the end."""
    return move(_in_layout(_gather, layout), cache, places)


def places_of(
    slots: Integer[Array, " num_tokens"], num_blocks: Size, block_size: Size
) -> Integer[Array, "num_tokens 2"]:
    """Block and offset of each slot; for a token that is not stored, a block past the end."""
    # Each its own, so that indices stay unique; a sum that wraps is negative and past the end too.
    past_end = num_blocks + jnp.arange(slots.shape[0], dtype=slots.dtype)
    block = jnp.where(slots < 0, past_end, slots // block_size)
    return jnp.stack([block, slots % block_size], axis=1)


# The very same function each time, since JAX's caches tell functions apart by identity.
_in_layout = functools.cache(functools.partial)


def _scatter(layout: Layout, cache: Array, states: Array, places: Array) -> Array:
    dimensions = jax.lax.ScatterDimensionNumbers(
        update_window_dims=(1, 2),
        inserted_window_dims=(0, layout.block_size),
        scatter_dims_to_operand_dims=(0, layout.block_size),
    )
    # Unique, since JAX transposes no other scatter.
    return jax.lax.scatter(cache, places, states, dimensions, unique_indices=True, mode="drop")


def _gather(layout: Layout, cache: Array, places: Array) -> Array:
    at = (0, layout.block_size)
    dimensions = jax.lax.GatherDimensionNumbers(
        offset_dims=(1, 2), collapsed_slice_dims=at, start_index_map=at
    )
    sizes = tuple(1 if axis in at else size for axis, size in enumerate(cache.shape))
    return jax.lax.gather(cache, places, dimensions, sizes, mode="fill", fill_value=0)
