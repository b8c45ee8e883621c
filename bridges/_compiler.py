"""What torch.compile is told of functions that it cannot trace, and whether anything traces."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode

from ._transforms import at_work

F = TypeVar("F")


def constant_in_graphs(function: F) -> F:
    """A function whose result torch.compile takes as it is.

    This is what `torch.compiler.assume_constant_result` makes of it, without the import of
    torch._dynamo, which would take as long as that of torch itself.
    """
    marked: Any = function
    marked._dynamo_marked_constant = True
    return function


def is_traced(*tensors: torch.Tensor) -> bool:
    """Whether tensors have no values to read now, or what reads them would not be recorded."""
    return (
        torch.compiler.is_compiling()
        or _get_current_dispatch_mode() is not None  # as under FakeTensorMode and make_fx
        or at_work()  # whose new tensors are wrapped
        or any(type(tensor) is not torch.Tensor or tensor.is_meta for tensor in tensors)
    )
