"""Tensors that a derivative (C22) or another function transformation of torch follows."""

from __future__ import annotations

import torch
from torch._C._functorch import (
    is_batchedtensor,
    is_functionaltensor,
    is_gradtrackingtensor,
    maybe_current_level,
)
from torch.autograd import forward_ad

from functional_paged import SpecError


def at_work() -> bool:
    """Whether a transformation of `torch.func`, or a derivative in forward mode, is going on."""
    return forward_ad._current_level >= 0 or maybe_current_level() is not None


def no_derivative(rule: str, remedy: str) -> SpecError:
    """The error of a call that would need the derivative of what runs in place."""
    text = f"{rule}, since a store in place has no derivative; {remedy}, or differentiate "
    return SpecError("C22", text + "functional_paged.store_single")


def check_untransformed(**tensors: torch.Tensor) -> None:
    """Check that no transformation follows the named tensors, which would miss what is written.

    Raises:
      SpecError: C22 for a tensor that carries a tangent, or that a derivative of `torch.func` was
        given or has made; C20 for one of `vmap` or `functionalize`, which has no memory.
    """
    if not at_work():
        return
    if torch.compiler.is_compiling():
        # Of plain tensors compiled code sees the tangents when it runs; see `register_operator`.
        if maybe_current_level() is not None:
            raise SpecError("C22", "a store in place must stay outside of torch.func, got a graph")
        return
    for name, tensor in tensors.items():
        if is_gradtrackingtensor(tensor) and (tensor.is_floating_point() or tensor.is_complex()):
            followed = f"{name} must not be a tensor that a derivative of torch.func follows"
            raise no_derivative(followed, "store outside of it")
        if is_batchedtensor(tensor) or is_functionaltensor(tensor):
            raise SpecError(
                "C20",
                f"{name} must be strided, got a tensor inside torch.func.vmap or functionalize; "
                "store outside of it",
            )
        if _has_tangent(tensor):
            carries = f"{name} must not carry a tangent"
            raise no_derivative(carries, f"call it with {name}.detach()")


def check_underived(**tensors: torch.Tensor) -> None:
    """Check that no derivative would follow a call in place, of the named tensors: C22, C20."""
    check_untransformed(**tensors)
    for name, tensor in tensors.items():
        if tensor.requires_grad and torch.is_grad_enabled():
            remedy = f"call it under torch.no_grad() or with {name}.detach()"
            raise no_derivative(f"{name} must not require grad", remedy)


def _has_tangent(tensor: torch.Tensor) -> bool:
    if forward_ad._current_level < 0 or tensor.is_inference():
        return False
    # Inside an operator this key may be off, without which torch can't look.
    with torch._C._SetExcludeDispatchKeyGuard(torch._C.DispatchKey.ADInplaceOrView, False):
        return forward_ad.unpack_dual(tensor).tangent is not None
