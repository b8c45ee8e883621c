"""The store itself: the cheap checks of every call, then the backend."""

from __future__ import annotations

from typing import NoReturn

import torch

from functional_paged import IndexSpec, SpecError, internal
from functional_paged.internal import Shaped

from . import _registry as registry
from ._backend import Backend, StorePlan
from ._overlap import overlaps_itself
from ._plan import checked_plan
from ._transforms import at_work, check_untransformed, no_derivative

_FOR = "which the plan was made for"


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
      SpecError: C1-C4; C20 for a cache that overlaps itself, or that torch conjugates or negates
        as it is read; C22 where autograd would record, or a tensor carries a tangent. What is
        invalid by value is not stored; see `plan(check=True)`.
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
        _check_memory(cache)  # before a backend looks whether it can serve such strides
        plan = checked_plan(plan, cache, states.shape[0], backend)
    elif backend is not None and registry.name_of(backend) != plan.backend:
        raise ValueError(f"backend must be the plan's = {plan.backend!r}, got {backend!r}")
    _check_fit(cache, states, plan)
    plan.lowered.write_((cache,), (states,))
    return cache


def _check_fit(cache: torch.Tensor, states: torch.Tensor, plan: StorePlan) -> None:
    """Check all that a store needs, so that nothing is refused once something is written.

    Takes one or two microseconds where all is in order: each attribute of a tensor is read once.
    """
    try:
        num_blocks, kv_heads, block_size, head_dim = cache.shape
        num_tokens, state_heads, state_dim = states.shape
        agree = (
            state_heads == kv_heads
            and state_dim == head_dim
            and states.dtype == cache.dtype
            and cache.layout is states.layout is torch.strided
            and not cache.is_quantized
        )
    except (AttributeError, RuntimeError, ValueError):  # of another type or rank, or nested
        _refuse(cache, states)
    if not agree:
        _refuse(cache, states)
    for name, size in (("num_blocks", num_blocks), ("block_size", block_size)):
        if size != (expected := getattr(plan, name)):
            raise SpecError("C1", f"{name} = {size} of cache must equal {expected}, {_FOR}")
    if num_tokens < plan.num_tokens:
        raise SpecError(
            "C11",
            f"states.shape[0] = {num_tokens} must be >= num_tokens = {plan.num_tokens}, {_FOR}",
        )
    for name, tensor in (("cache", cache), ("states", states)):
        if tensor.device != plan.device:
            raise SpecError("C3", f"{name} must be on {plan.device}, {_FOR}, got {tensor.device}")
    if at_work():
        check_untransformed(cache=cache, states=states)
    if (cache.requires_grad or states.requires_grad) and torch.is_grad_enabled():
        name = "cache" if cache.requires_grad else "states"
        raise no_derivative(
            f"{name} must not require grad",
            f"call it under torch.no_grad() or with {name}.detach()",
        )
    _check_memory(cache)


def _check_memory(cache: torch.Tensor) -> None:
    """Check that no two elements of a cache share memory, which has them as they are read: C20."""
    # What traces can't ask for these bits; there torch refuses in its own words.
    if not torch.compiler.is_compiling() and (cache.is_conj() or cache.is_neg()):
        raise SpecError("C20", "cache must not be a view that torch conjugates or negates")
    if not cache.is_contiguous() and overlaps_itself(cache.shape, cache.stride()):
        raise SpecError(
            "C20",
            "cache must not overlap itself, got "
            f"shape {tuple(cache.shape)} with strides {cache.stride()}",
        )


def _refuse(cache: torch.Tensor, states: torch.Tensor) -> NoReturn:
    internal.check_tensors(internal.TORCH_STORE, cache, states)
    raise AssertionError("the shared checks take two tensors that do not agree")
