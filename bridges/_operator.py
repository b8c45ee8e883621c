"""The registered operators through which backends write, so that torch.compile sees the write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ._transforms import at_work, check_untransformed


def register_operator(schema: str, run: Callable[..., None]) -> Any:
    """The operator `functional_paged::NAME`, registered once in a process.

    Where a module is loaded again, the operator of the first time stays. It returns nothing: one
    that returns its mutated argument loses the write under torch.compile. Not
    `torch.library.custom_op`, which costs a call about three times as much on the host (see
    docs/performance.md).

    Args:
      schema: `NAME(Tensor(a!) cache, Tensor states, ...) -> ()`.
      run: what it does. Not called for tensors that carry tangents (C22), which compiled code
        would drop.
    """
    name = schema.partition("(")[0]
    if not hasattr(torch.ops.functional_paged, name):

        def checked(cache: torch.Tensor, states: torch.Tensor, *others: Any) -> None:
            if at_work():
                more = {f"argument {i}": x for i, x in enumerate(others) if torch.is_tensor(x)}
                check_untransformed(cache=cache, states=states, **more)
            run(cache, states, *others)
            if not cache.is_inference():  # else autograd would not see what a kernel wrote
                torch.autograd.graph.increment_version(cache)

        qualified = f"functional_paged::{name}"
        torch.library.define(qualified, schema.removeprefix(name))
        torch.library.impl(qualified, "default", checked)
        torch.library.register_fake(qualified, lambda *_: None)
    return getattr(torch.ops.functional_paged, name).default
