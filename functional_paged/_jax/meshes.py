"""Stores and loads on a mesh whose axes are Explicit, as `jax.make_mesh` makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from .trees import Caches


def on_its_mesh(
    function: Callable[..., Any], spread: Callable[[Any], PartitionSpec], cache: Caches, *args: Any
) -> Any:
    """The result of `function(cache, *args)`, each leaf spread as `spread` says of its cache.

    Where a row goes is no matter of shapes, so JAX cannot tell a sharding of the result, though we
    can. In between the axes are Auto, where XLA keeps each part of a cache on its device.
    """
    meshes = [jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves((cache, args))]
    mesh = next((mesh for mesh in meshes if mesh.explicit_axes), None)
    if mesh is None:
        return function(cache, *args)
    shardings = jax.tree.map(
        lambda leaf: NamedSharding(mesh, spread(jax.typeof(leaf).sharding.spec)), cache
    )
    in_auto_axes = jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=shardings)
    return in_auto_axes(cache, *args)
