"""What torch.compile is told of functions that it cannot trace."""

from __future__ import annotations

from typing import Any, TypeVar

F = TypeVar("F")


def constant_in_graphs(function: F) -> F:
    """A function whose result torch.compile takes as it is.

    This is what `torch.compiler.assume_constant_result` makes of it, without the import of
    torch._dynamo, which would take as long as that of torch itself.
    """
    marked: Any = function
    marked._dynamo_marked_constant = True
    return function
