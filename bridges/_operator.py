"""The registered operators through which tensors are written, so that torch.compile sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd.graph import increment_version

from ._overlap import span_of
from ._transforms import at_work, check_untransformed


def register_operator(schema: str, run: Callable[..., None]) -> Any:
    """The operator `functional_paged::NAME`, registered once in a process.

    Where a module is loaded again, the operator of the first time stays. It returns nothing: one
    that returns its mutated argument loses the write under torch.compile. Not
    `torch.library.custom_op`, which costs a call about three times as much on the host (see
    docs/performance.md).

    Args:
      schema: `NAME(Tensor(a!)[] written, Tensor[] read, ...) -> ()`. What is read is read as it was
        before anything is written, whatever memory the tensors share.
      run: what it does. Not called for tensors that carry tangents (C22), which compiled code
        would drop.
    """
    name = schema.partition("(")[0]
    qualified = f"functional_paged::{name}"
    is_known = hasattr(torch.ops.functional_paged, name)
    if not is_known:
        torch.library.define(qualified, schema.removeprefix(name))
    operator = getattr(torch.ops.functional_paged, name).default
    if is_known:
        return operator
    names = [argument.name for argument in operator._schema.arguments]

    def checked(written: Sequence[torch.Tensor], read: Sequence[torch.Tensor], *rest: Any) -> None:
        if at_work():
            for of, given in zip(names, (written, read, *rest), strict=True):
                for tensor in given if isinstance(given, (list, tuple)) else [given]:
                    if torch.is_tensor(tensor):
                        check_untransformed(**{of: tensor})
        apart, spans = list(read), [span_of(tensor) for tensor in written]
        for i, tensor in enumerate(read):
            start, end = span_of(tensor)
            for first, last in spans:
                if first < end and start < last:
                    apart[i] = tensor.clone()
        run(written, apart, *rest)
        for tensor in written:
            if not tensor.is_inference():  # at which autograd does not look
                increment_version(tensor)  # or it would not notice what a kernel wrote

    torch.library.impl(qualified, "default", checked)
    torch.library.register_fake(qualified, lambda *_: None)
    return operator
