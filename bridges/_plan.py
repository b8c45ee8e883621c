"""A plan: an index spec checked and lowered once, for all stores that share it."""

from __future__ import annotations

import logging
from typing import SupportsIndex

import array_api_compat.torch as xp
import numpy as np
import torch

from functional_paged import PAD, IndexSpec, check_spec, internal
from functional_paged.internal import CacheShape, Shaped, slots_in

from . import _registry as registry
from ._backend import Backend, BackendUnsupported, StorePlan, TokenSlots
from ._compiler import is_traced
from ._host import slots_on_host
from ._transforms import check_untransformed

_log = logging.getLogger("bridges")


def plan(
    index_spec: IndexSpec,
    *,
    cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
    num_tokens: SupportsIndex,
    backend: str | Backend | None = None,
    check: bool = False,
) -> StorePlan:
    """Check and lower an index spec once, for all stores of one step.

    Nothing is written. Without `check` nothing waits for the device either, but for the trials that
    the ixformer backend makes before its first call of a kind.

    Args:
      index_spec: any of the three forms, of torch tensors on the device of `cache`.
      cache: one of the caches to be written, `(num_blocks, kv_heads, block_size, head_dim)`.
        The plan fits every cache with its num_blocks, block_size and device.
      num_tokens: rows of the states to be stored; any integer.
      backend: a name, a backend object, or `None` for the variable `FUNCTIONAL_PAGED_BACKEND`,
        else the first of `available_backends(cache.device)` that serves this spec.
      check: also run `check_spec`, which reads the values on the host. Fake and meta tensors,
        which have none, are refused then.

    Returns:
      A plan for `store_single_`.

    Raises:
      SpecError: C1, C3, C4 and, with `check`, what is invalid by value; C22 inside a derivative
        that follows `cache`.
      TypeError: `backend` is of another type.
      BackendUnsupported: the backend cannot load or cannot serve this device or spec.

    Example:
      >>> import torch
      >>> from functional_paged import SlotMapping
      >>> cache = torch.zeros(2, 1, 2, 1)
      >>> spec = SlotMapping(torch.tensor([3]))
      >>> plan(spec, cache=cache, num_tokens=1, backend="torch").num_blocks
      2
    """
    internal.check_load(internal.TORCH_STORE, cache, index_spec)
    return checked_plan(index_spec, cache, num_tokens, backend, check)


def checked_plan(
    index_spec: IndexSpec,
    cache: torch.Tensor,
    num_tokens: SupportsIndex,
    backend: str | Backend | None,
    check: bool = False,
) -> StorePlan:
    """`plan` for arguments that have passed the static checks (C1-C4)."""
    check_untransformed(cache=cache, **index_spec.arrays())
    num_tokens = internal.as_size("num_tokens", num_tokens)
    if check:
        check_spec(index_spec, cache_shape=_shape_of(cache), num_tokens=num_tokens)
    choices = registry.choices(backend, cache.device)
    to = token_slots(index_spec, cache, num_tokens)
    for name, chosen in choices:
        given = to.slots if chosen.in_order else _one_token_a_slot(to.slots)
        try:
            lowered = chosen.lower(index_spec, given, cache, checked=check)
        except BackendUnsupported as refusal:
            if name == choices[-1][0]:
                raise
            _log.info("backend %r refuses, the next one is tried: %s", name, refusal)
        else:
            return StorePlan(**vars(to), backend=name, lowered=lowered)
    raise AssertionError("there is a choice, and the last one is taken or refuses")


def token_slots(index_spec: IndexSpec, cache: torch.Tensor, num_tokens: int) -> TokenSlots:
    """The slot of each token in caches like this one, for a checked spec, without a host sync."""
    num_blocks, _, block_size, _ = shape = _shape_of(cache)
    if cache.device.type == "cpu" and not is_traced(cache, *index_spec.arrays().values()):
        slots = slots_on_host(index_spec, shape, num_tokens)
    else:
        slots = slots_in(xp, index_spec, shape, num_tokens)
    return TokenSlots(num_blocks, block_size, num_tokens, cache.device, slots)


def _shape_of(cache: torch.Tensor) -> CacheShape:
    num_blocks, kv_heads, block_size, head_dim = cache.shape
    return num_blocks, kv_heads, block_size, head_dim


def _one_token_a_slot(slots: torch.Tensor) -> torch.Tensor:
    """Keep the last token of each slot (C15), since racing writers may tear a row."""
    if slots.device.type == "cpu" and not is_traced(slots):
        in_order = np.sort(slots.numpy())
        if not ((in_order[1:] == in_order[:-1]) & (in_order[1:] >= 0)).any():
            return slots
    by_slot, order = torch.sort(slots, stable=True)
    # Rolled, not sliced: of two tokens a slice has one, a size that torch.export keeps apart.
    is_last = by_slot != by_slot.roll(-1)
    is_last[-1:] = True
    return torch.where(torch.empty_like(is_last).scatter(0, order, is_last), slots, PAD)
