"""The registered operators through which backends write, so that torch.compile sees the write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ._transforms import check_untransformed


def register_operator(schema: str, run: Callable[..., None]) -> Any:
    """The operator `functional_paged::NAME`, registered once in a process.

    It returns nothing: one that returns its mutated argument loses the write under torch.compile.
    Not `torch.library.custom_op`, which costs a call about three times as much on the host (see
    benchmarks/ixformer_overhead.py).

    Args:
      schema: the operator's, of arguments `cache`, which is written, `states` and others. Where a
        module is loaded again, the operator of the first time stays.
      run: what it does. Not called for tensors that carry tangents (C22), which compiled code
        would drop.

    Returns:
      What to call.
    """
    name = schema.partition("(")[0]
    if not hasattr(torch.ops.functional_paged, name):

        def checked(cache: torch.Tensor, states: torch.Tensor, *others: Any) -> None:
            check_untransformed(cache=cache, states=states)
            run(cache, states, *others)

        library = torch.library.Library("functional_paged", "FRAGMENT")
        library.define(schema)
        library.impl(name, checked, "CompositeExplicitAutograd")
        torch.library.register_fake(f"functional_paged::{name}", lambda *_: None, lib=library)
        # It takes its registrations along when it goes, and `checked` is held by torch.
        checked.__dict__["library"] = library
    return getattr(torch.ops.functional_paged, name).default
