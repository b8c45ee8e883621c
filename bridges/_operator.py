"""The registered operators through which backends write, so that torch.compile sees the write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.autograd.graph import increment_version

from ._overlap import may_meet
from ._transforms import at_work, check_untransformed


def register_operator(schema: str, run: Callable[..., None]) -> Any:
    """The operator `functional_paged::NAME`, registered once in a process.

    Where a module is loaded again, the operator of the first time stays. It returns nothing: one
    that returns its mutated argument loses the write under torch.compile. Not
    `torch.library.custom_op`, which costs a call about three times as much on the host (see
    docs/performance.md).

    Args:
      schema: `NAME(Tensor(a!) cache, Tensor states, ...) -> ()`; each cache has its states next.
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
    arguments = operator._schema.arguments
    names = [argument.name for argument in arguments]
    aliases = [argument.alias_info for argument in arguments]
    written = [i for i, alias in enumerate(aliases) if alias is not None and alias.is_write]
    pairs = [(cache, states + 1) for cache in written for states in written]

    def checked(*given: Any) -> None:
        if at_work():
            tensors = {n: x for n, x in zip(names, given, strict=True) if torch.is_tensor(x)}
            check_untransformed(**tensors)
        for i, j in pairs:
            if may_meet(given[i], given[j]):  # states are stored as they are before the store
                given = (*given[:j], given[j].clone(), *given[j + 1 :])
        run(*given)
        for i in written:
            if not given[i].is_inference():  # at which autograd does not look
                increment_version(given[i])  # or it would not notice what a kernel wrote

    torch.library.impl(qualified, "default", checked)
    torch.library.register_fake(qualified, lambda *_: None)
    return operator
