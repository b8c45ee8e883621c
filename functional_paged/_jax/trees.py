"""Trees of caches and states: the checks of all their leaves, and their values at the call."""

from __future__ import annotations

from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .._array_kinds import JAX_STORE
from .._arrays import dtype_name, slot_dtype
from .._errors import SpecError
from .._spec import IndexSpec, register_pytrees
from .._static_checks import check_call, check_load
from .._types import Array, PyTree, Shaped

register_pytrees()

Caches: TypeAlias = PyTree[Shaped[Array, "num_blocks kv_heads block_size head_dim"]]
States: TypeAlias = PyTree[Shaped[Array, "num_tokens kv_heads head_dim"]]


def check_trees(cache: Caches, states: States, index_spec: IndexSpec) -> None:
    """Check C1-C4 for each leaf of a store, and that the leaves belong together."""
    cache_tree, states_tree = jax.tree.structure(cache), jax.tree.structure(states)
    if cache_tree != states_tree:
        raise SpecError(
            "C1", f"states must have the tree of cache = {cache_tree}, got {states_tree}"
        )
    leaves = list(zip(jax.tree.leaves(cache), jax.tree.leaves(states), strict=True))
    for cache_leaf, states_leaf in leaves:
        check_call(JAX_STORE, cache_leaf, states_leaf, index_spec)
    _check_layout(cache)
    for position, (_, states_leaf) in enumerate(leaves):
        num_tokens = leaves[0][1].shape[0]
        if states_leaf.shape[0] != num_tokens:
            raise SpecError(
                "C1",
                f"leaf {position} of states must have num_tokens = {num_tokens} of leaf 0, "
                f"got {states_leaf.shape[0]}",
            )


def check_caches(cache: Caches, index_spec: IndexSpec) -> None:
    """Check C1-C4 for each leaf of a load, and that the leaves belong together."""
    for leaf in jax.tree.leaves(cache):
        check_load(JAX_STORE, leaf, index_spec)
    _check_layout(cache)


def check_donation(cache: Caches, states: States, index_spec: IndexSpec) -> None:
    """Check that each cache can be given away: C17 where one is gone, or is given twice."""
    for name, tree in (("cache", cache), ("states", states), ("index_spec", index_spec)):
        for position, leaf in enumerate(jax.tree.leaves(tree)):
            if _is_concrete(leaf) and leaf.is_deleted():
                raise SpecError(
                    "C17", f"leaf {position} of {name} must be alive, got a deleted one"
                )
    leaves = jax.tree.leaves(cache)
    holders: dict[Any, int] = {}
    for position, leaf in enumerate(leaves if len(leaves) > 1 else ()):
        for buffer in _buffers(leaf):
            holder = holders.setdefault(buffer, position)
            if holder != position:
                raise SpecError(
                    "C17",
                    f"leaf {position} of cache must have memory of its own, got that of leaf "
                    f"{holder}; a donated cache is given away once",
                )


def values_now(tree: Any) -> Any:
    """The tree with NumPy arrays copied: JAX reads their memory after the call has returned."""
    leaves, structure = jax.tree.flatten(tree)
    if not any(isinstance(leaf, np.ndarray) for leaf in leaves):
        return tree
    return structure.unflatten([np.array(x) if isinstance(x, np.ndarray) else x for x in leaves])


def _buffers(cache: Array) -> list[Any]:
    if not _is_concrete(cache):
        return []
    return [(part.device, part.data.unsafe_buffer_pointer()) for part in cache.addressable_shards]


def _is_concrete(array: Array) -> bool:
    """Whether JAX holds the array's memory: NumPy's is copied, and a tracer has none."""
    return isinstance(array, jax.Array) and not isinstance(array, Tracer)


def _check_layout(cache: Caches) -> None:
    """Check that JAX holds all caches of a tree, and that one slot fits them all."""
    leaves = jax.tree.leaves(cache)
    for position, leaf in enumerate(leaves):
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            raise SpecError(
                "C2",
                f"cache.dtype = {dtype_name(leaf)} must be kept, but JAX narrows it; "
                "enable jax_enable_x64",
            )
        # C5, also for slots that are given as they are.
        slot_dtype(jnp, leaf.shape[0] * leaf.shape[2])
        for axis, name in ((0, "num_blocks"), (2, "block_size")):
            if leaf.shape[axis] != leaves[0].shape[axis]:
                raise SpecError(
                    "C1",
                    f"leaf {position} of cache must have {name} = {leaves[0].shape[axis]} "
                    f"of leaf 0, got {leaf.shape[axis]}",
                )
