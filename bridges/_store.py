"""The store itself: the cheap checks of every call, then the backend."""

from __future__ import annotations

import torch

from functional_paged import IndexSpec, internal
from functional_paged.internal import Shaped

from . import _registry as registry
from ._backend import Backend, StorePlan
from ._fit import check_apart, check_fit
from ._plan import checked_plan


def store_single_(
    cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
    states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
    index_spec_or_plan: IndexSpec | StorePlan,
    *,
    backend: str | Backend | None = None,
) -> Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"]:
    """Write each stored token's row of `states` into `cache`, in place.

    Args:
      cache: `(num_blocks, kv_heads, block_size, head_dim)`, any strides that do not overlap (C20).
        Stored slots are written; every other element keeps its bits.
      states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype, any strides. Left alone.
      index_spec_or_plan: any of the three forms, or the `plan` of a step, which saves the work
        that all its layers and tensors share.
      backend: a name, a backend object, or `None`: the plan's, or as in `plan`.

    Returns:
      The very object given as `cache` (C17).

    Raises:
      SpecError: C1-C4; C20 for a cache that overlaps itself; C22 where autograd would record, or a
        tensor carries a tangent. What is invalid by value is not stored; see `plan(check=True)`.
      BackendUnsupported: the backend cannot load or cannot serve this call.
      TypeError, ValueError: `backend` is of another type, or not the plan's.
      Nothing is written where anything is raised.

    Unspecified: which row a slot gets that two tokens store to (C15).

    Example:
      >>> from functional_paged import SlotMapping
      >>> cache = torch.zeros(2, 1, 2, 1)
      >>> out = store_single_(cache, torch.ones(1, 1, 1), SlotMapping(torch.tensor([3])))
      >>> out is cache, cache.flatten().tolist()
      (True, [0.0, 0.0, 0.0, 1.0])
    """
    plan = index_spec_or_plan
    if not isinstance(plan, StorePlan):
        internal.check_call(internal.TORCH_STORE, cache, states, plan)
        check_apart(cache)  # before a backend looks whether it can serve such strides
        plan = checked_plan(plan, cache, states.shape[0], backend)
    elif backend is not None and registry.name_of(backend) != plan.backend:
        raise ValueError(f"backend must be the plan's = {plan.backend!r}, got {backend!r}")
    check_fit(cache, states, plan)
    plan.lowered.write_((cache,), (states,))
    return cache
