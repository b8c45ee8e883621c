"""Tensors that a derivative (C22) or another function transformation of torch follows."""

from __future__ import annotations

import torch
from torch._C._functorch import (
    is_batchedtensor,
    is_functionaltensor,
    maybe_current_level,
    maybe_get_level,
)
from torch.autograd import forward_ad

from functional_paged import SpecError


def at_work() -> bool:
    """Whether a transformation of `torch.func`, or a derivative in forward mode, is going on."""
    return forward_ad._current_level >= 0 or maybe_current_level() is not None


def check_untransformed(**tensors: torch.Tensor) -> None:
    """Check that a write from or into the named tensors is missed by no transformation.

    Raises:
      SpecError: C22 for a tensor that carries a tangent, or may carry one for an outer derivative;
        C20 for one of `vmap` or `functionalize`, which has no memory of its own.
    """
    if not at_work():
        return
    for name, tensor in tensors.items():
        if is_batchedtensor(tensor) or is_functionaltensor(tensor):
            raise SpecError(
                "C20",
                f"{name} must be strided, got a tensor inside torch.func.vmap or functionalize; "
                "store outside of it",
            )
        if _has_tangent(tensor):
            raise SpecError(
                "C22",
                f"{name} must not carry a tangent, since a store in place has no derivative; call "
                f"it with {name}.detach(), or differentiate functional_paged.store_single",
            )


def _has_tangent(tensor: torch.Tensor) -> bool:
    level = maybe_current_level()
    if level is not None and -1 < maybe_get_level(tensor) < level:
        return True  # what belongs to an outer transformation can't be looked into from here
    if forward_ad._current_level < 0 or tensor.is_inference():
        return False
    return forward_ad.unpack_dual(tensor).tangent is not None
