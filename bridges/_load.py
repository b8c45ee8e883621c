"""The read that undoes a store, and the two together: a transfer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import SupportsIndex

import torch

from functional_paged import BlockTable, IndexSpec, SlotMapping, SpecError, internal

from ._backend import BITS, StorePlan
from ._fit import check_leaves
from ._operator import register_operator
from ._plan import token_slots
from ._store import store_single_
from ._transforms import check_untransformed
from ._trees import Tree, leaves_of, mapped, paired


def load_single(
    cache: Tree,
    index_spec_or_plan: IndexSpec | StorePlan,
    *,
    num_tokens: SupportsIndex | None = None,
    out: Tree | None = None,
) -> Tree:
    """The row at each token's slot: the read that undoes the store, without a host sync.

    Args:
      cache: as for `store_single_`, a tree too. Left alone.
      index_spec_or_plan: any of the three forms, or a `plan`, whatever its backend.
      num_tokens: rows to load; any integer. `None`: as many as the plan or `out` has, or the spec
        tells by its shapes: a `SlotMapping`, a decode step.
      out: where to, `(num_tokens or more, kv_heads, head_dim)` of the cache's dtype, any strides
        that do not overlap (C20), or a tree of them with the keys of `cache`. The rows of tokens
        that are not stored, and those past `num_tokens`, are left alone. `None`: new tensors.

    Returns:
      The very object given as `out`; else states `(num_tokens, kv_heads, head_dim)` a cache, bit
      for bit, with zeros for tokens that are not stored.

    Raises:
      SpecError: as `store_single_`, with `out` in the place of states; C11 where the number of rows
        is missing, or is not the plan's. Nothing is written then.

    Example:
      >>> cache = torch.arange(4.0).reshape(2, 1, 2, 1)
      >>> load_single(cache, SlotMapping(torch.tensor([3, -1]))).flatten().tolist()
      [3.0, 0.0]
    """
    caches, given = leaves_of(cache), index_spec_or_plan
    if not isinstance(given, StorePlan):
        internal.check_index_spec(internal.TORCH_STORE, given)
    for leaf in caches.values():
        internal.check_cache(internal.TORCH_STORE, leaf)
    if not caches:
        paired("cache", cache, "out", () if out is None else out)
        return cache if out is None else out
    num_tokens = _num_tokens(given, num_tokens, out)
    if isinstance(given, StorePlan):
        to = given
    else:
        first = next(iter(caches.values()))
        internal.check_devices({"cache": first, **given.arrays()})
        check_untransformed(cache=first, **given.arrays())
        to = token_slots(given, first, num_tokens)
    if out is None:
        out = mapped(lambda leaf: leaf.new_zeros((num_tokens, *leaf.shape[1::2])), cache)
    leaves = paired("cache", cache, "out", out)
    check_leaves(to, leaves, "out")
    _load_op([rows for _, _, rows in leaves], [one for _, one, _ in leaves], to.slots)
    return out


def transfer_(
    dst: Tree,
    dst_spec_or_plan: IndexSpec | StorePlan,
    src: Tree,
    src_spec_or_plan: IndexSpec | StorePlan,
    *,
    num_tokens: SupportsIndex | None = None,
) -> Tree:
    """Copy rows from cache to cache: `store_single_(dst, load_single(src, src_spec), dst_spec)`.

    For another block size, other tables, another layout, a copy of a block that is shared. All
    reads come before all writes, so `dst` may be `src`.

    Args:
      dst: where to; as for `store_single_`. Stored slots are written.
      dst_spec_or_plan: where each token's row goes.
      src: where from, a tree with the keys of `dst`. Left alone, but for what it shares with `dst`.
      src_spec_or_plan: where each token's row is. One that is not stored arrives as zeros.
      num_tokens: rows to copy. `None`: as for `load_single`, by either spec.

    Returns:
      The very object given as `dst`.

    Raises:
      SpecError, BackendUnsupported: as `load_single` and `store_single_`. Nothing is written then.

    Example:
      >>> cache = torch.arange(4.0).reshape(2, 1, 2, 1)  # copy block 1 to block 0
      >>> old, new = SlotMapping(torch.tensor([2, 3])), SlotMapping(torch.tensor([0, 1]))
      >>> transfer_(cache, new, cache, old).flatten().tolist()
      [2.0, 3.0, 2.0, 3.0]
    """
    if num_tokens is None:
        told = [_tells(given) for given in (src_spec_or_plan, dst_spec_or_plan)]
        num_tokens = next((size for size in told if size is not None), None)
    rows = load_single(src, src_spec_or_plan, num_tokens=num_tokens)
    return store_single_(dst, rows, dst_spec_or_plan)


def _num_tokens(given: IndexSpec | StorePlan, asked: SupportsIndex | None, out: Tree | None) -> int:
    told = _tells(given)
    if asked is not None:
        asked = internal.as_size("num_tokens", asked)
        if isinstance(given, StorePlan) and asked != told:
            raise SpecError("C11", f"num_tokens = {asked} must be the plan's = {told}")
        return asked
    if out is not None and not isinstance(given, StorePlan):
        rows = next(iter(leaves_of(out).values()), None)
        told = len(rows) if isinstance(rows, torch.Tensor) and rows.ndim else 0  # or it is refused
    if told is None:
        raise SpecError(
            "C11",
            "num_tokens must be given for a prefill or a ChunkPlan, whose values alone tell it",
        )
    return told


def _tells(given: IndexSpec | StorePlan) -> int | None:
    """The number of tokens that shapes tell."""
    if isinstance(given, StorePlan):
        return given.num_tokens
    if isinstance(given, SlotMapping):
        return given.slots.shape[0]
    if isinstance(given, BlockTable) and given.cu_q_lens is None:
        return given.block_table.shape[0]
    return None


def _load(out: Sequence[torch.Tensor], caches: Sequence[torch.Tensor], slots: torch.Tensor) -> None:
    for rows, cache in zip(out, caches, strict=True):
        if cache.shape[0] == 0:
            continue  # C18
        bits = BITS.get(cache.itemsize, cache.dtype)  # some dtypes cannot be indexed
        rows, by_slot = rows[: len(slots)].view(bits), cache.view(bits).transpose(1, 2)
        stored, slot = (slots >= 0)[:, None, None], slots.to(torch.int64).clamp(min=0)
        found = by_slot[slot // cache.shape[2], slot % cache.shape[2]]
        rows.copy_(torch.where(stored, found, rows))


_load_op = register_operator(
    "load_rows(Tensor(a!)[] out, Tensor[] cache, Tensor slots) -> ()", _load
)
