"""What a store needs of its two tensors and its plan, checked at every call."""

from __future__ import annotations

from typing import NoReturn

import torch

from functional_paged import SpecError, internal

from ._backend import StorePlan
from ._overlap import overlaps_itself
from ._transforms import at_work, check_untransformed

_FOR = "which the plan was made for"


def check_fit(cache: torch.Tensor, states: torch.Tensor, plan: StorePlan) -> None:
    """Check all that a store needs, so that nothing is refused once something is written.

    Takes one or two microseconds where all is in order: each attribute of a tensor is read once.

    Raises:
      SpecError: C1, C2, C3, C11, C20, C22.
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
    if num_blocks != plan.num_blocks:
        raise SpecError(
            "C1", f"num_blocks = {num_blocks} of cache must equal {plan.num_blocks}, {_FOR}"
        )
    if block_size != plan.block_size:
        raise SpecError(
            "C1", f"block_size = {block_size} of cache must equal {plan.block_size}, {_FOR}"
        )
    if num_tokens < plan.num_tokens:
        raise SpecError(
            "C11",
            f"states.shape[0] = {num_tokens} must be >= num_tokens = {plan.num_tokens}, {_FOR}",
        )
    if cache.device != plan.device:
        raise SpecError("C3", f"cache must be on {plan.device}, {_FOR}, got {cache.device}")
    if states.device != plan.device:
        raise SpecError("C3", f"states must be on {plan.device}, {_FOR}, got {states.device}")
    if at_work():
        check_untransformed(cache=cache, states=states)
    if (cache.requires_grad or states.requires_grad) and torch.is_grad_enabled():
        name = "cache" if cache.requires_grad else "states"
        raise SpecError(
            "C22",
            f"{name} must not require grad, since a store in place has no derivative; call it "
            f"under torch.no_grad() or with {name}.detach(), or differentiate "
            "functional_paged.store_single",
        )
    check_apart(cache)


def check_apart(cache: torch.Tensor) -> None:
    """Check that no two elements of a cache share memory: C20."""
    if not cache.is_contiguous() and overlaps_itself(cache.shape, cache.stride()):
        raise SpecError(
            "C20",
            "cache must not overlap itself, got "
            f"shape {tuple(cache.shape)} with strides {cache.stride()}",
        )


def _refuse(cache: torch.Tensor, states: torch.Tensor) -> NoReturn:
    internal.check_tensors(internal.TORCH_STORE, cache, states)
    raise AssertionError("the shared checks take two tensors that do not agree")
