"""The rows of all leaves of a tree, moved to or from the same places on any mesh."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

try:
    from jax.sharding import auto_axes
except ImportError:  # where older versions have it
    from jax.experimental.shard import auto_axes  # pyright: ignore[reportMissingImports]

from .._slots import slots_in
from .._spec import IndexSpec
from .._types import Array, PyTree, Size
from .scatter import places_of
from .trees import Caches


def moved(
    move: Callable[..., Array],
    spread: Callable[[Any], PartitionSpec],
    num_tokens: Size,
    index_spec: IndexSpec,
    cache: Caches,
    *states: PyTree,
) -> PyTree:
    """The results of `move(cache, *states, places)` by leaf.

    On a mesh of Explicit axes each has the sharding that `spread` makes of its cache's.
    """
    if not jax.tree.leaves(cache):
        return cache

    def move_leaves(index_spec: IndexSpec, *trees: PyTree) -> PyTree:
        shape = jax.tree.leaves(trees)[0].shape
        # As JAX arrays, since under disable_jit NumPy's come through.
        slots = slots_in(jnp, index_spec.map(jnp.asarray), shape, num_tokens)
        places = places_of(slots, shape[0], shape[2])
        return jax.tree.map(lambda *leaves: move(*leaves, places), *trees)

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
