"""The store itself: the cheap checks of every call, then the backend."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch

from functional_paged import IndexSpec, SpecError, internal

from . import _registry as registry
from ._backend import Backend, StorePlan
from ._plan import plan


def store_single_(
    cache: torch.Tensor,
    states: torch.Tensor,
    index_spec_or_plan: IndexSpec | StorePlan,
    *,
    backend: str | Backend | None = None,
) -> torch.Tensor:
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
      SpecError: C1-C4; C20 for a cache that overlaps itself; C22 where autograd would record.
        Nothing is written then. What is invalid by value is not stored; see `plan(check=True)`.
      BackendUnsupported: the backend cannot load or cannot serve this call.

    Unspecified: which row a slot gets that two tokens store to (C15).

    Example:
      >>> from functional_paged import SlotMapping
      >>> cache = torch.zeros(2, 1, 2, 1)
      >>> out = store_single_(cache, torch.ones(1, 1, 1), SlotMapping(torch.tensor([3])))
      >>> out is cache, cache.flatten().tolist()
      (True, [0.0, 0.0, 0.0, 1.0])
    """
    step = index_spec_or_plan
    if not isinstance(step, StorePlan):
        internal.check_call(internal.TORCH_STORE, cache, states, step)
        step = plan(step, cache=cache, num_tokens=states.shape[0], backend=backend)
    elif backend is not None and registry.name_of(backend) != step.backend:
        raise ValueError(f"backend must be the plan's = {step.backend!r}, got {backend!r}")
    if not _fits(cache, states, step):
        _explain_misfit(cache, states, step)
    step.lowered.write_((cache,), (states,))
    return cache


def _fits(cache: torch.Tensor, states: torch.Tensor, step: StorePlan) -> bool:
    """Whether a call is plainly in order: about a microsecond, for every layer and tensor."""
    try:
        num_blocks, kv_heads, block_size, head_dim = cache.shape
        num_tokens, state_heads, state_dim = states.shape
        return (
            num_blocks == step.num_blocks
            and block_size == step.block_size
            and num_tokens >= step.num_tokens
            and state_heads == kv_heads
            and state_dim == head_dim
            and states.dtype == cache.dtype
            and cache.device == step.device
            and states.device == step.device
            and cache.is_contiguous()
            and not ((cache.requires_grad or states.requires_grad) and torch.is_grad_enabled())
        )
    except (AttributeError, ValueError):
        return False


def _explain_misfit(cache: torch.Tensor, states: torch.Tensor, step: StorePlan) -> None:
    """Raise for the clause that a call does not meet; return if it is in order after all."""
    internal.check_tensors(internal.TORCH_STORE, cache, states)
    for axis, name in ((0, "num_blocks"), (2, "block_size")):
        if cache.shape[axis] != getattr(step, name):
            raise SpecError(
                "C1",
                f"{name} = {cache.shape[axis]} of cache must equal {getattr(step, name)}, "
                "which the plan was made for",
            )
    if states.shape[0] < step.num_tokens:
        raise SpecError(
            "C11",
            f"states.shape[0] = {states.shape[0]} must be >= num_tokens = {step.num_tokens}, "
            "which the plan was made for",
        )
    for name, tensor in (("cache", cache), ("states", states)):
        if tensor.device != step.device:
            raise SpecError(
                "C3",
                f"{name} must be on {step.device}, which the plan was made for, "
                f"got {tensor.device}",
            )
        if tensor.requires_grad and torch.is_grad_enabled():
            raise SpecError(
                "C22",
                f"{name} must not require grad, since a store in place has no derivative; call it "
                f"under torch.no_grad() or with {name}.detach(), or differentiate "
                "functional_paged.store_single",
            )
    if _overlaps_itself(tuple(cache.shape), cache.stride()):
        raise SpecError(
            "C20",
            "cache must not overlap itself, got "
            f"shape {tuple(cache.shape)} with strides {cache.stride()}",
        )


@functools.lru_cache(maxsize=256)
def _overlaps_itself(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether two elements of a strided tensor share memory."""
    if 0 in shape:
        return False
    axes = [(stride, size) for size, stride in zip(shape, strides, strict=True) if size > 1]
    if math.prod(shape) > 1 + sum(stride * (size - 1) for stride, size in axes):
        return True  # more elements than memory
    # Each axis steps over all smaller ones. Not sorted, which torch.compile cannot trace.
    if all(
        stride > sum(s * (n - 1) for j, (s, n) in enumerate(axes) if j != i and s <= stride)
        for i, (stride, _) in enumerate(axes)
    ):
        return False
    # Interleaved axes may still miss each other, which only counting decides.
    offsets = functools.reduce(np.add.outer, [np.arange(size) * stride for stride, size in axes])
    return np.unique(offsets).size < offsets.size
