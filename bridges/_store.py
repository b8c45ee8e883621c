"""The store itself: the cheap checks of every call, then the backend."""

from __future__ import annotations

from functional_paged import IndexSpec, SpecError, internal

from . import _registry as registry
from ._backend import Backend, StorePlan
from ._fit import at_leaf, check_leaves, check_memory
from ._plan import checked_plan
from ._trees import Tree, paired


def store_single_(
    cache: Tree,
    states: Tree,
    index_spec_or_plan: IndexSpec | StorePlan,
    *,
    backend: str | Backend | None = None,
) -> Tree:
    """Write each stored token's row of `states` into `cache`, in place.

    Args:
      cache: `(num_blocks, kv_heads, block_size, head_dim)`, any strides that do not overlap (C20),
        or a tuple, list or dict of such caches, nested too, that agree in num_blocks and
        block_size: a `(k, v)` pair, a cache with its scales. Stored slots are written; every other
        element keeps its bits.
      states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype, any strides, or a tree of
        them with the same keys. Left alone.
      index_spec_or_plan: any of the three forms, or the `plan` of a step, which saves the work
        that all its layers and tensors share.
      backend: a name, a backend object, or `None`: the plan's, or as in `plan`.

    Returns:
      The very object given as `cache` (C17). A tree is stored leaf after leaf, with all states as
      they were before the first.

    Raises:
      SpecError: C1-C4; C20 for a cache that overlaps itself, or that torch conjugates or negates
        as it is read; C22 where autograd would record, or a tensor carries a tangent. What is
        invalid by value is not stored; see `plan(check=True)`.
      BackendUnsupported: the backend cannot load or cannot serve this call.
      TypeError, ValueError: `backend` is of another type, or not the plan's.
      Nothing is written where anything is raised.

    Unspecified: which row a slot gets that two tokens store to (C15).

    Example:
      >>> import torch
      >>> from functional_paged import SlotMapping
      >>> cache = torch.zeros(2, 1, 2, 1)
      >>> out = store_single_(cache, torch.ones(1, 1, 1), SlotMapping(torch.tensor([3])))
      >>> out is cache, cache.flatten().tolist()
      (True, [0.0, 0.0, 0.0, 1.0])
    """
    leaves = paired("cache", cache, "states", states)
    plan = index_spec_or_plan
    if not isinstance(plan, StorePlan):
        internal.check_index_spec(internal.TORCH_STORE, plan)
        if not leaves:
            return cache
        path, first, rows = leaves[0]
        try:
            internal.check_call(internal.TORCH_STORE, first, rows, plan)
            check_memory("cache", first)  # before a backend looks whether it can serve such strides
        except SpecError as error:
            if not path:
                raise
            raise at_leaf(path, error) from error
        plan = checked_plan(plan, first, rows.shape[0], backend)
    elif backend is not None and registry.name_of(backend) != plan.backend:
        raise ValueError(f"backend must be the plan's = {plan.backend!r}, got {backend!r}")
    check_leaves(plan, leaves, "states")
    plan.lowered.write_([one for _, one, _ in leaves], [rows for _, _, rows in leaves])
    return cache
