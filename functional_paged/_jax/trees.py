"""Trees of caches and states: the checks of all their leaves, and their values at the call."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .. import _static_checks as static_checks
from .._arrays import dtype_name, slot_dtype
from .._errors import SpecError
from .._layout import Layout
from .._spec import FORMS, IndexSpec, register_pytrees
from .._types import Array, PyTree, Shaped

register_pytrees()

Caches: TypeAlias = PyTree[Shaped[Array, "num_blocks kv_heads block_size head_dim"]]
States: TypeAlias = PyTree[Shaped[Array, "num_tokens kv_heads head_dim"]]


_passed: set[Hashable] = set()
"""Signatures of the stores that `check_trees` has passed, at most 1024 of them."""


def check_trees(cache: Caches, states: States, index_spec: IndexSpec, layout: Layout) -> None:
    """Check C1-C4 for each leaf of a store, and that the leaves belong together."""
    caches, cache_tree = jax.tree.flatten(cache)
    rows, states_tree = jax.tree.flatten(states)
    # Checks take as long as an empty jit, and the steps of a decode loop are all of one kind.
    signature = _signature((cache_tree, states_tree, layout), caches + rows, index_spec)
    if signature is not None and signature in _passed:
        return
    if cache_tree != states_tree:
        raise SpecError(
            "C1", f"states must have the tree of cache = {cache_tree}, got {states_tree}"
        )
    _check_leaves(caches, rows, index_spec, layout)
    _check_agree("states", rows, 0, "num_tokens")
    if signature is not None:
        if len(_passed) >= 1024:
            _passed.clear()
        _passed.add(signature)


def _signature(kind: Hashable, leaves: list[Array], index_spec: IndexSpec) -> Hashable | None:
    """All that C1-C4 can depend on; `None` where JAX holds not all of the arrays."""
    if type(index_spec) not in FORMS:
        return None
    indices = index_spec.arrays()
    arrays = [*leaves, *indices.values()]
    if not all(map(_is_concrete, arrays)):
        return None
    kinds = tuple([(array.aval, array.committed and array.sharding) for array in arrays])
    return kind, tuple(indices), kinds, jax.dtypes.canonicalize_dtype(np.int64)


def check_caches(cache: Caches, index_spec: IndexSpec, layout: Layout) -> None:
    """Check C1-C4 for each leaf of a load, and that the leaves belong together."""
    _check_leaves(jax.tree.leaves(cache), None, index_spec, layout)


def check_donation(cache: Caches, states: States, index_spec: IndexSpec) -> None:
    """Check that each cache can be given away: C17 where one is gone, or is given twice."""
    caches = jax.tree.leaves(cache)
    given = {"cache": caches, "states": jax.tree.leaves(states)}
    for name, leaves in {**given, "index_spec": index_spec.arrays().values()}.items():
        for position, leaf in enumerate(leaves):
            if _is_concrete(leaf) and leaf.is_deleted():
                raise SpecError(
                    "C17", f"leaf {position} of {name} must be alive, got a deleted one"
                )
    holders: dict[Any, int] = {}
    for position, leaf in enumerate(caches if len(caches) > 1 else ()):
        for part in leaf.addressable_shards if _is_concrete(leaf) else ():
            buffer = part.device, part.data.unsafe_buffer_pointer()
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


def _is_concrete(array: Array) -> bool:
    """Whether JAX holds the array's memory: NumPy's is copied, and a tracer has none."""
    return isinstance(array, jax.Array) and not isinstance(array, Tracer)


def _check_leaves(
    caches: list[Array], rows: list[Array] | None, index_spec: IndexSpec, layout: Layout
) -> None:
    """Check each cache, with its states for a store; that JAX holds all, and one slot fits all."""
    static_checks.check_index_spec(static_checks.JAX_STORE, index_spec)
    for number, cache in enumerate(caches):
        named = {"cache": cache}
        if rows is None:
            static_checks.check_cache(static_checks.JAX_STORE, cache, layout)
        else:
            named["states"] = rows[number]
            static_checks.check_tensors(static_checks.JAX_STORE, cache, rows[number], layout)
        static_checks.check_devices({**named, **index_spec.arrays()})
    for leaf in caches:
        if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
            raise SpecError(
                "C2",
                f"cache.dtype = {dtype_name(leaf)} must be kept, but JAX narrows it; "
                "enable jax_enable_x64",
            )
        # C5, also for slots that are given as they are.
        slot_dtype(jnp, leaf.shape[0] * leaf.shape[layout.block_size])
    _check_agree("cache", caches, 0, "num_blocks")
    _check_agree("cache", caches, layout.block_size, "block_size")


def _check_agree(tree: str, leaves: list[Array], axis: int, meaning: str) -> None:
    """Check that all leaves have the first one's size along an axis: C1."""
    for position, leaf in enumerate(leaves[1:], 1):
        size, first = leaf.shape[axis], leaves[0].shape[axis]
        if size != first:
            raise SpecError(
                "C1",
                f"leaf {position} of {tree} must have {meaning} = {first} of leaf 0, got {size}",
            )
