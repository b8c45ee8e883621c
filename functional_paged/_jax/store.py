"""The pure JAX store, the load that undoes it, and the two in one."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

try:
    from jax.sharding import auto_axes
except ImportError:  # where older versions have it
    from jax.experimental.shard import auto_axes  # pyright: ignore[reportMissingImports]

from .._errors import SpecError
from .._layout import Layout, LayoutName, layout_of
from .._sizes import as_size
from .._slots import slots_in
from .._spec import IndexSpec, narrowed
from .._types import Array, PyTree, Size
from .scatter import gather, places_of, scatter
from .trees import Caches, States, check_caches, check_trees, values_now


def store_single(
    cache: Caches, states: States, index_spec: IndexSpec, *, layout: LayoutName = "HND"
) -> Caches:
    """Return `cache` with each stored token's row of `states` at its slot.

    Pure: works under `jax.jit`, `vmap`, `grad`, `jvp`, `linear_transpose`, `lax.scan`, `jax.export`
    and with sharded caches. Inside a plain `jax.jit` on CPU a bfloat16 or float8 cache is copied to
    keep its bits; inside `functional_paged.jit` it is not.

    Args:
      cache: `(num_blocks, kv_heads, block_size, head_dim)`, or a pytree of such caches that agree
        in `num_blocks` and `block_size`: a `(k, v)` pair, a cache with its scales. Left alone.
      states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype, or a matching pytree.
      index_spec: any of the three forms; slots are computed once for all leaves.
      layout: `"NHD"` for caches `(num_blocks, block_size, kv_heads, head_dim)`, which are stored
        into as they lie; static.

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
    axes = layout_of(layout)
    check_trees(cache, states, index_spec, axes)
    return _store_leaves(*values_now((cache, states)), narrowed(index_spec), axes)


def load_single(
    cache: Caches, index_spec: IndexSpec, num_tokens: SupportsIndex, *, layout: LayoutName = "HND"
) -> States:
    """Return the row at each token's slot: the read that undoes the store.

    Args:
      cache: as in `store_single`. Left alone.
      index_spec: any of the three forms.
      num_tokens: rows to return; any integer.
      layout: as in `store_single`.

    Returns:
      States of shape `(num_tokens, kv_heads, head_dim)` a cache, bit for bit; zeros for tokens
      that are not stored.

    Raises:
      SpecError: as `store_single`.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.arange(4.0).reshape(2, 1, 2, 1)
      >>> load_single(cache, SlotMapping(jnp.array([3, -1])), 2).ravel()
      Array([3., 0.], dtype=float32)
    """
    axes, count = layout_of(layout), as_size("num_tokens", num_tokens)
    check_caches(cache, index_spec, axes)
    return _load_leaves(values_now(cache), narrowed(index_spec), count, axes)


def transfer(
    dst: Caches,
    dst_spec: IndexSpec,
    src: Caches,
    src_spec: IndexSpec,
    num_tokens: SupportsIndex,
    *,
    layout: LayoutName = "HND",
    src_layout: LayoutName | None = None,
) -> Caches:
    """Return `dst` with each token's row at its slot of `dst_spec`, from its slot of `src`.

    Equals `store_single(dst, load_single(src, src_spec, num_tokens), dst_spec)`, so the caches may
    differ in `num_blocks`, `block_size` and layout. All rows are read before one is written: within
    one cache (`src` is `dst`) blocks may be copied on a write, swapped or shifted.

    Args:
      dst: as `cache` in `store_single`. Left alone.
      dst_spec: any of the three forms; a token that it does not store is not written.
      src: caches of the dtype, `kv_heads` and `head_dim` of `dst`, leaf by leaf. Left alone.
      src_spec: any of the three forms; a token that it does not store is written as zeros.
      num_tokens: tokens that the two specs are about; any integer.
      layout: of `dst`, as in `store_single`.
      src_layout: of `src`; that of `dst` where it is `None`.

    Returns:
      New caches.

    Raises:
      SpecError: as `load_single`, for `src`; then as `store_single`, whose states those rows are.

    Example:
      >>> import jax.numpy as jnp
      >>> from functional_paged import SlotMapping
      >>> cache = jnp.arange(4.0).reshape(2, 1, 2, 1)
      >>> swap = SlotMapping(jnp.array([0, 3])), SlotMapping(jnp.array([3, 0]))
      >>> transfer(cache, swap[0], cache, swap[1], 2).ravel()
      Array([3., 1., 2., 0.], dtype=float32)
    """
    src_layout = layout if src_layout is None else src_layout
    try:
        rows = load_single(src, src_spec, num_tokens, layout=src_layout)
    except SpecError as error:
        raise SpecError(error.clause, f"src: {error.message}") from None
    return store_single(dst, rows, dst_spec, layout=layout)


# The jit is for eager callers: one dispatch instead of one an operation. A caller's own trace
# takes the lines in.
@partial(jax.jit, inline=True, static_argnums=3)
def _store_leaves(cache: Caches, states: States, index_spec: IndexSpec, layout: Layout) -> Caches:
    num_tokens = next((leaf.shape[0] for leaf in jax.tree.leaves(states)), 0)
    return _moved(scatter, lambda spec: spec, layout, num_tokens, index_spec, cache, states)


@partial(jax.jit, inline=True, static_argnums=(2, 3))
def _load_leaves(cache: Caches, index_spec: IndexSpec, num_tokens: int, layout: Layout) -> States:
    by_head = lambda spec: PartitionSpec(None, spec[layout.kv_heads], spec[3])  # noqa: E731
    return _moved(gather, by_head, layout, num_tokens, index_spec, cache)


def _moved(
    move: Callable[..., Array],
    spread: Callable[[Any], PartitionSpec],
    layout: Layout,
    num_tokens: Size,
    index_spec: IndexSpec,
    cache: Caches,
    *states: PyTree,
) -> PyTree:
    """The results of `move(layout, cache, *states, places)` by leaf.

    On a mesh of Explicit axes each has the sharding that `spread` makes of its cache's.
    """
    if not jax.tree.leaves(cache):
        return cache

    def move_leaves(index_spec: IndexSpec, *trees: PyTree) -> PyTree:
        shape = layout.sizes(jax.tree.leaves(trees)[0].shape)
        # As JAX arrays, since under disable_jit NumPy's come through.
        slots = slots_in(jnp, index_spec.map(jnp.asarray), shape, num_tokens)
        places = places_of(slots, shape[0], shape[2])
        return jax.tree.map(lambda *leaves: move(layout, *leaves, places), *trees)

    given = (index_spec, cache, *states)
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(given)]
    mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if mesh is None:
        return move_leaves(*given)
    # JAX cannot tell how the result of a scatter to computed places is spread; we can. In between
    # the axes are Auto, and XLA keeps each part of a cache on its device.
    shardings = jax.tree.map(
        lambda leaf: NamedSharding(mesh, spread(jax.typeof(leaf).sharding.spec)), cache
    )
    auto: Any = auto_axes(move_leaves, axes=mesh.explicit_axes, out_sharding=shardings)
    return auto(*given)
