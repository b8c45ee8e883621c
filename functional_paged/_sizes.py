"""Sizes and counts: integers of any type made Python's, or symbolic ones left as they are."""

from __future__ import annotations

import operator
import sys
from collections.abc import Iterable
from typing import Any, SupportsIndex, TypeAlias

from ._errors import SpecError
from ._layout import HND, Layout
from ._types import Size

CacheShape: TypeAlias = tuple[Size, Size, Size, Size]
"""`(num_blocks, kv_heads, block_size, head_dim)`"""

INT32_MAX = 2**31 - 1

MAX_BLOCK_SIZE = 2**30
"""The sum of two offsets in a block fits int32 up to this size."""


def as_size(name: str, value: SupportsIndex) -> Size:
    """Make a size or count a Python integer: C1 for a negative one, and for what is none.

    A bool is none. A size that is symbolic, in a JAX export or a torch graph, is taken to be right.
    """
    # torch.compile traces a symbolic size as an int, which operator.index would make a constant.
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    elif _is_symbolic(value):
        return value  # type: ignore[return-value]
    else:
        try:
            size = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            size = None
    if size is None:
        raise SpecError("C1", f"{name} must be an integer, got {value!r}")
    if size < 0:
        raise SpecError("C1", f"{name} must be >= 0, got {size}")
    return size


def as_cache_shape(cache_shape: Iterable[SupportsIndex], layout: Layout = HND) -> CacheShape:
    """Make the shape of a cache in a layout a `CacheShape` of Python integers, checked for C1."""
    try:
        sizes = tuple(cache_shape)
    except TypeError:
        raise SpecError("C1", f"cache_shape must be 4 integers, got {cache_shape!r}") from None
    if len(sizes) != 4:
        must = f"cache must have 4 axes ({layout.axes})"
        raise SpecError("C1", f"{must}, got {len(sizes)}: {sizes}")
    num_blocks = as_size("num_blocks = cache.shape[0]", sizes[0])
    kv_heads = as_size(f"kv_heads = cache.shape[{layout.kv_heads}]", sizes[layout.kv_heads])
    axis = f"block_size = cache.shape[{layout.block_size}]"
    block_size = as_size(axis, sizes[layout.block_size])
    head_dim = as_size("head_dim = cache.shape[3]", sizes[3])
    if isinstance(block_size, int) and not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise SpecError("C1", f"{axis} must be in 1..2**30, got {block_size}")
    return num_blocks, kv_heads, block_size, head_dim


def is_surely_at_most(size: Size, bound: Size) -> bool:
    """Whether `size <= bound`; not where that depends on the value of a symbolic size."""
    try:
        return bool(size <= bound)
    except Exception as error:
        if type(error).__name__ != "InconclusiveDimensionOperation":  # JAX's
            raise
        return False


def _is_symbolic(size: Any) -> bool:
    """Whether a size is of a JAX export or of a torch graph, and has no value yet."""
    torch: Any = sys.modules.get("torch")
    export: Any = sys.modules.get("jax.export")
    if hasattr(torch, "SymInt") and isinstance(size, torch.SymInt):
        return True
    return hasattr(export, "is_symbolic_dim") and export.is_symbolic_dim(size)
