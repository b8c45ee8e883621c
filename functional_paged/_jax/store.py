"""The pure JAX store and the load that undoes it."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from .._array_kinds import JAX_STORE
from .._arrays import dtype_name, slot_dtype
from .._errors import SpecError
from .._slots import slots_in
from .._spec import IndexSpec, register_pytrees
from .._static_checks import check_call, check_load
from .._types import Array, Shaped
from .scatter import gather, scatter

register_pytrees()

Cache: TypeAlias = Shaped[Array, "num_blocks kv_heads block_size head_dim"]
States: TypeAlias = Shaped[Array, "num_tokens kv_heads head_dim"]
PyTree: TypeAlias = Any


def store_single(cache: PyTree, states: PyTree, index_spec: IndexSpec) -> PyTree:
    """Return `cache` with each stored token's row of `states` at its slot.

    Pure: works under `jax.jit`, `vmap`, `grad`, `jvp`, `lax.scan` and with sharded caches. Inside
    a plain `jax.jit` on CPU a bfloat16 or float8 cache is copied to keep its bits; inside
    `functional_paged.jit` it is not.

    Args:
      cache: `(num_blocks, kv_heads, block_size, head_dim)`, or a pytree of such caches that agree
        in `num_blocks` and `block_size`: a `(k, v)` pair, a cache with its scales. Left alone.
      states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype, or a matching pytree.
      index_spec: any of the three forms; slots are computed once for all leaves.

    Returns:
      New caches: stored rows equal the states' rows bit for bit, all else keeps its bits (C16).

    Raises:
      SpecError: C1-C4, also for trees that do not match; C5 where slots need 64 bits and JAX has
        none. What is invalid by value is not stored; `check_spec` reports it.

    Unspecified: which row a slot gets that two tokens store to (C15).

    Example:
      >>> import jax.numpy as jnp
      >>> cache, states = jnp.zeros((2, 1, 2, 1)), jnp.full((1, 1, 1), 5.0)
      >>> spec = SlotMapping(jnp.array([3]))
      >>> store_single(cache, states, spec).ravel()
      Array([0., 0., 0., 5.], dtype=float32)
    """
    check_trees(cache, states, index_spec)
    return _store_leaves(cache, states, index_spec)


def load_single(cache: PyTree, index_spec: IndexSpec, num_tokens: int) -> PyTree:
    """Return the row at each token's slot: the read that undoes the store.

    Args:
      cache: as in `store_single`. Left alone.
      index_spec: any of the three forms.
      num_tokens: rows to return.

    Returns:
      States of shape `(num_tokens, kv_heads, head_dim)` a cache, bit for bit; zeros for tokens
      that are not stored.

    Raises:
      SpecError: C1, C3, C4; C5 where slots need 64 bits and JAX has none.

    Example:
      >>> import jax.numpy as jnp
      >>> cache = jnp.arange(4.0).reshape(2, 1, 2, 1)
      >>> load_single(cache, SlotMapping(jnp.array([3, -1])), 2).ravel()
      Array([3., 0.], dtype=float32)
    """
    for leaf in jax.tree.leaves(cache):
        check_load(JAX_STORE, leaf, index_spec)
        _check_is_held(leaf)
    check_same_layout(cache)
    return _load_leaves(cache, index_spec, num_tokens)


# The jit is for eager callers: one dispatch instead of one an operation. A caller's own trace
# takes the lines in.
@partial(jax.jit, inline=True)
def _store_leaves(cache: PyTree, states: PyTree, index_spec: IndexSpec) -> PyTree:
    leaves = jax.tree.leaves(states)
    if not leaves:
        return cache
    slots = _slots(cache, index_spec, leaves[0].shape[0])
    return jax.tree.map(lambda c, s: scatter(c, s, slots), cache, states)


@partial(jax.jit, inline=True, static_argnums=2)
def _load_leaves(cache: PyTree, index_spec: IndexSpec, num_tokens: int) -> PyTree:
    leaves = jax.tree.leaves(cache)
    if not leaves:
        return cache
    slots = _slots(cache, index_spec, num_tokens)
    return jax.tree.map(lambda c: gather(c, slots), cache)


def _slots(cache: PyTree, index_spec: IndexSpec, num_tokens: int) -> Array:
    return slots_in(jnp, index_spec, jax.tree.leaves(cache)[0].shape, num_tokens)


def check_trees(cache: PyTree, states: PyTree, index_spec: IndexSpec) -> None:
    """Check C1-C4 for each leaf, and that the leaves belong together."""
    cache_tree, states_tree = jax.tree.structure(cache), jax.tree.structure(states)
    if cache_tree != states_tree:
        raise SpecError(
            "C1", f"states must have the tree of cache = {cache_tree}, got {states_tree}"
        )
    leaves = list(zip(jax.tree.leaves(cache), jax.tree.leaves(states), strict=True))
    for cache_leaf, states_leaf in leaves:
        check_call(JAX_STORE, cache_leaf, states_leaf, index_spec)
        _check_is_held(cache_leaf)
    check_same_layout(cache)
    for position, (_, states_leaf) in enumerate(leaves):
        num_tokens = leaves[0][1].shape[0]
        if states_leaf.shape[0] != num_tokens:
            raise SpecError(
                "C1",
                f"leaf {position} of states must have num_tokens = {num_tokens} of leaf 0, "
                f"got {states_leaf.shape[0]}",
            )


def check_same_layout(cache: PyTree) -> None:
    """Check that all caches of a tree have one `num_blocks` and one `block_size`: one slot fits."""
    leaves = jax.tree.leaves(cache)
    for position, leaf in enumerate(leaves):
        for axis, name in ((0, "num_blocks"), (2, "block_size")):
            if leaf.shape[axis] != leaves[0].shape[axis]:
                raise SpecError(
                    "C1",
                    f"leaf {position} of cache must have {name} = {leaves[0].shape[axis]} "
                    f"of leaf 0, got {leaf.shape[axis]}",
                )


def _check_is_held(cache: Array) -> None:
    """Check that JAX holds the cache's dtype and counts its slots without 64-bit integers."""
    if jax.dtypes.canonicalize_dtype(cache.dtype) != cache.dtype:
        raise SpecError(
            "C2",
            f"cache.dtype = {dtype_name(cache)} must be kept, but JAX narrows it; "
            "enable jax_enable_x64",
        )
    slot_dtype(jnp, cache.shape[0] * cache.shape[2])
