"""The cheap checks of every call: whether the tensors of a store or a load fit each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

import torch

from functional_paged import SpecError, internal

from ._backend import TokenSlots
from ._overlap import overlaps_itself
from ._transforms import at_work, check_underived
from ._trees import Path, in_words

_FOR = "which the plan was made for"

Leaf = tuple[Path, torch.Tensor, torch.Tensor]
"""Where a cache is in its tree, the cache, and the rows that are stored there or loaded."""


def check_leaves(to: TokenSlots, leaves: Sequence[Leaf], rows_name: str) -> None:
    """Check all leaves, whose rows are `"states"` or `"out"`, so that none is refused halfway."""
    path: Path = ()
    try:
        for path, cache, rows in leaves:  # noqa: B007 - the error says where it was
            _check_fit(to, cache, rows_name, rows)
            check_memory("cache", cache)
            if rows_name == "out":
                check_memory(rows_name, rows)
    except SpecError as error:
        if not path:
            raise
        raise at_leaf(path, error) from error


def at_leaf(path: Path, error: SpecError) -> SpecError:
    """The error of a leaf with its place in the tree."""
    return SpecError(error.clause, f"{error.message}, in leaf {in_words('cache', path)}")


def check_axes(
    sizes: tuple[int | str, ...], is_index: bool = False, /, **tensors: torch.Tensor
) -> None:
    """Check the kind of each tensor, its sizes, of which a name is any (C1), and indices for C4."""
    for name, tensor in tensors.items():
        internal.check_kind(internal.TORCH_STORE, name, tensor)
        if is_index and tensor.dtype != torch.int32:
            got = str(tensor.dtype).removeprefix("torch.")
            raise SpecError("C4", f"{name} must be int32, got {got}")
        shape = tuple(tensor.shape)
        wrong = [s for s, got in zip(sizes, shape, strict=False) if s != got and type(s) is not str]
        if wrong or len(shape) != len(sizes):
            raise SpecError("C1", f"{name} must be ({', '.join(map(str, sizes))}), got {shape}")


def check_memory(name: str, tensor: torch.Tensor) -> None:
    """Check that no two elements of a tensor share memory, which has them as they are read: C20."""
    # What traces can't ask for these bits; there torch refuses in its own words.
    if not torch.compiler.is_compiling() and (tensor.is_conj() or tensor.is_neg()):
        raise SpecError("C20", f"{name} must not be a view that torch conjugates or negates")
    if not tensor.is_contiguous() and overlaps_itself(tensor.shape, tensor.stride()):
        raise SpecError(
            "C20",
            f"{name} must not overlap itself, got "
            f"shape {tuple(tensor.shape)} with strides {tensor.stride()}",
        )


def _check_fit(to: TokenSlots, cache: torch.Tensor, rows_name: str, rows: torch.Tensor) -> None:
    """Check one cache and its rows.

    Takes one or two microseconds where all is in order: each attribute of a tensor is read once.
    """
    try:
        num_blocks, kv_heads, block_size, head_dim = cache.shape
        num_tokens, row_heads, row_dim = rows.shape
        agree = (
            row_heads == kv_heads
            and row_dim == head_dim
            and rows.dtype == cache.dtype
            and cache.layout is rows.layout is torch.strided
            and not cache.is_quantized
        )
    except (AttributeError, RuntimeError, ValueError):  # of another type or rank, or nested
        _refuse(cache, rows_name, rows)
    if not agree:
        _refuse(cache, rows_name, rows)
    for name, size in (("num_blocks", num_blocks), ("block_size", block_size)):
        if size != (expected := getattr(to, name)):
            raise SpecError("C1", f"{name} = {size} of cache must equal {expected}, {_FOR}")
    if num_tokens < to.num_tokens:
        raise SpecError(
            "C11",
            f"{rows_name}.shape[0] = {num_tokens} must be >= num_tokens = {to.num_tokens}, {_FOR}",
        )
    for name, tensor in (("cache", cache), (rows_name, rows)):
        if tensor.device != to.device:
            raise SpecError("C3", f"{name} must be on {to.device}, {_FOR}, got {tensor.device}")
    if at_work() or cache.requires_grad or rows.requires_grad:
        check_underived(**{"cache": cache, rows_name: rows})


def _refuse(cache: torch.Tensor, rows_name: str, rows: torch.Tensor) -> NoReturn:
    internal.check_tensors(internal.TORCH_STORE, cache, rows, name=rows_name)
    raise AssertionError("the shared checks take two tensors that do not agree")
