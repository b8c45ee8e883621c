"""The load: the read that undoes the store."""

from __future__ import annotations

from functools import partial
from typing import SupportsIndex

import jax
from jax.sharding import PartitionSpec

from .._sizes import as_size
from .._spec import IndexSpec, narrowed
from .leaves import moved
from .scatter import gather
from .trees import Caches, States, check_caches, values_now


def load_single(cache: Caches, index_spec: IndexSpec, num_tokens: SupportsIndex) -> States:
    """Return the row at each token's slot: the read that undoes the store.

    Args:
      cache: as in `store_single`. Left alone.
      index_spec: any of the three forms.
      num_tokens: rows to return; any integer.

    Returns:
      States of shape `(num_tokens, kv_heads, head_dim)` a cache, bit for bit; zeros for tokens
      that are not stored.

    Raises:
      SpecError: C1-C4; C5 where slots need 64 bits and JAX has none.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.arange(4.0).reshape(2, 1, 2, 1)
      >>> load_single(cache, SlotMapping(jnp.array([3, -1])), 2).ravel()
      Array([3., 0.], dtype=float32)
    """
    check_caches(cache, index_spec)
    return _load_leaves(values_now(cache), narrowed(index_spec), as_size("num_tokens", num_tokens))


@partial(jax.jit, inline=True, static_argnums=2)  # see `_store_leaves`
def _load_leaves(cache: Caches, index_spec: IndexSpec, num_tokens: int) -> States:
    by_head = lambda spec: PartitionSpec(None, spec[1], spec[3])  # noqa: E731
    return moved(gather, by_head, num_tokens, index_spec, cache)
