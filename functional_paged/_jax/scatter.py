"""One scatter and one gather of rows by slot, with the bits (C16) and the derivative (C22).

On CPU, XLA's `float-normalization` passes widen a small-float cache to float32 around a scatter or
a gather and back, which costs time by the size of the cache and changes NaN payloads in cells that
nobody wrote. Moving the bits as unsigned integers keeps them; so does a compilation without those
passes (`functional_paged.jit`), which saves the copy that the bitcast of a whole cache costs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from .._types import Array, Integer, Shaped

# Part of JAX's trace-cache key, so that a function traced under `passes_off` is traced again
# elsewhere. A JAX without it always moves unsigned integers: the same bits.
_passes_off: Any = jax.make_user_context(False) if hasattr(jax, "make_user_context") else None


@contextlib.contextmanager
def passes_off() -> Iterator[None]:
    """Trace for a compilation in which the float-normalization passes are off."""
    with _passes_off(True) if _passes_off is not None else contextlib.nullcontext():
        yield


@jax.custom_jvp
def scatter(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    states: Shaped[Array, "num_tokens kv_heads head_dim"],
    slots: Integer[Array, " num_tokens"],
) -> Shaped[Array, "num_blocks kv_heads block_size head_dim"]:
    """Write each row of `states` to its slot, unless the slot is negative."""
    if not _is_widened(cache.dtype) or (_passes_off is not None and _passes_off.value):
        return _linear_scatter(cache, states, slots)
    return jax.lax.platform_dependent(
        cache, states, slots, cpu=_bitwise_scatter, default=_linear_scatter
    )


@scatter.defjvp
def _scatter_jvp(primals: Any, tangents: Any) -> Any:
    cache, states, slots = primals
    d_cache, d_states, _ = tangents
    out = scatter(cache, states, slots)
    return out, _linear_scatter(jnp.asarray(d_cache), jnp.asarray(d_states), slots)  # C22


@jax.custom_jvp
def gather(
    cache: Shaped[Array, "num_blocks kv_heads block_size head_dim"],
    slots: Integer[Array, " num_tokens"],
) -> Shaped[Array, "num_tokens kv_heads head_dim"]:
    """Read the row at each slot; zeros where the slot is negative."""
    if not _is_widened(cache.dtype):
        return _linear_gather(cache, slots)
    return jax.lax.bitcast_convert_type(_linear_gather(_to_bits(cache), slots), cache.dtype)


@gather.defjvp
def _gather_jvp(primals: Any, tangents: Any) -> Any:
    cache, slots = primals
    out = gather(cache, slots)
    return out, _linear_gather(jnp.asarray(tangents[0]), slots)


def _linear_scatter(cache: Array, states: Array, slots: Array) -> Array:
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


def _bitwise_scatter(cache: Array, states: Array, slots: Array) -> Array:
    stored = _linear_scatter(_to_bits(cache), _to_bits(states), slots)
    return jax.lax.bitcast_convert_type(stored, cache.dtype)


def _linear_gather(cache: Array, slots: Array) -> Array:
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


def _to_bits(array: Array) -> Array:
    return jax.lax.bitcast_convert_type(array, f"uint{8 * array.dtype.itemsize}")


def _is_widened(dtype: Any) -> bool:
    return jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize <= 2 and dtype != jnp.float16
