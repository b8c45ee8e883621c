"""The pure JAX store."""

from __future__ import annotations

from functools import partial

import jax

from .._spec import IndexSpec, narrowed
from .leaves import moved
from .scatter import scatter
from .trees import Caches, States, check_trees, values_now


def store_single(cache: Caches, states: States, index_spec: IndexSpec) -> Caches:
    """Return `cache` with each stored token's row of `states` at its slot.

    Pure: works under `jax.jit`, `vmap`, `grad`, `jvp`, `linear_transpose`, `lax.scan`, `jax.export`
    and with sharded caches. Inside a plain `jax.jit` on CPU a bfloat16 or float8 cache is copied to
    keep its bits; inside `functional_paged.jit` it is not.

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
      >>> from functional_paged import SlotMapping
      >>> cache, states = jnp.zeros((2, 1, 2, 1)), jnp.full((1, 1, 1), 5.0)
      >>> spec = SlotMapping(jnp.array([3]))
      >>> store_single(cache, states, spec).ravel()
      Array([0., 0., 0., 5.], dtype=float32)
    """
    check_trees(cache, states, index_spec)
    return _store_leaves(*values_now((cache, states)), narrowed(index_spec))


# The jit is for eager callers: one dispatch instead of one an operation. A caller's own trace
# takes the lines in.
@partial(jax.jit, inline=True)
def _store_leaves(cache: Caches, states: States, index_spec: IndexSpec) -> Caches:
    num_tokens = next((leaf.shape[0] for leaf in jax.tree.leaves(states)), 0)
    return moved(scatter, lambda spec: spec, num_tokens, index_spec, cache, states)
