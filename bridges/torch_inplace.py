"""The portable backend: one registered operator of plain torch, on any device and any strides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ._backend import BITS, BackendUnsupported
from ._compiler import is_traced
from ._operator import register_operator

if TYPE_CHECKING:
    from functional_paged import IndexSpec


@dataclass(frozen=True)
class RowWrites:
    """Which row of states goes where.

    On a device there is one write a token, so that shapes are static: a token that is not stored
    repeats the write of one that is. On the CPU only stored tokens are left.

    Attributes:
      rows: row of states to write; `None` where write i is of row i. int64[num_writes]
      blocks: block to write to. int64[num_writes]
      offsets: position in the block. int64[num_writes]
      any_stored: whether any token is stored; if none is, each write repeats what is there.
        bool[]; `None` where only stored tokens are left.
    """

    route: ClassVar[str] = "index_put"
    rows: torch.Tensor | None
    blocks: torch.Tensor
    offsets: torch.Tensor
    any_stored: torch.Tensor | None

    def write_(self, caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> None:
        """Write the rows through the registered operator."""
        for cache in caches:
            if cache.dtype.itemsize not in BITS:
                raise BackendUnsupported(
                    f"the torch backend moves elements of 1, 2, 4 or 8 bytes, got {cache.dtype}"
                )
        _store_op(caches, states, self.rows, self.blocks, self.offsets, self.any_stored)


class TorchBackend:
    """Plain torch: what runs where there is no kernel, and what those are compared with."""

    name = "torch"
    in_order = False

    def serves(self, device: torch.device) -> str | None:
        """Any device."""
        return None

    def lower(
        self, index_spec: IndexSpec, slots: torch.Tensor, cache: torch.Tensor, *, checked: bool
    ) -> RowWrites:
        """Choose the writes; see `RowWrites`."""
        del index_spec, checked
        if cache.shape[0] == 0:
            slots = slots[:0]  # C18
        stored = slots >= 0
        rows, any_stored = None, None
        # On the CPU there is nothing to wait for, and half the work of a masked write.
        if slots.device.type == "cpu" and not is_traced(slots):
            if not stored.all():
                rows = torch.nonzero(stored)[:, 0]
        elif slots.shape[0] > 0:
            token = torch.arange(slots.shape[0], device=slots.device)
            some_token = torch.argmax(stored.to(torch.int8)).reshape(1)
            rows, any_stored = torch.where(stored, token, some_token), stored.any()
        slots = (slots if rows is None else slots[rows]).to(torch.int64).clamp(min=0)
        block_size = cache.shape[2]
        return RowWrites(rows, slots // block_size, slots % block_size, any_stored)


def _write_rows(
    caches: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor],
    rows: torch.Tensor | None,
    blocks: torch.Tensor,
    offsets: torch.Tensor,
    any_stored: torch.Tensor | None,
) -> None:
    for cache, given in zip(caches, states, strict=True):
        # As integers: some dtypes have no index_put_, and floats may lose NaN payloads (C16).
        word = _word_of(cache, given)
        by_slot, given = cache.view(word).permute(0, 2, 1, 3), given.view(word)
        written = given[: len(blocks)] if rows is None else given.index_select(0, rows)
        if any_stored is not None:
            written = torch.where(any_stored, written, by_slot[blocks[:1], offsets[:1]])
        by_slot.index_put_((blocks, offsets), written)


def _word_of(cache: torch.Tensor, states: torch.Tensor) -> torch.dtype:
    """The widest integer that rows can be written as: 8 bytes where they are dense and aligned."""
    size = cache.dtype.itemsize
    in_words = all(_is_of_words(tensor, size) for tensor in (cache, states))
    return torch.int64 if in_words else BITS[size]


def _is_of_words(tensor: torch.Tensor, size: int) -> bool:
    *strides, last = tensor.stride()
    bounds = (tensor.storage_offset(), tensor.shape[-1], *strides)
    return last == 1 and all(bound * size % 8 == 0 for bound in bounds)


_store_op = register_operator(
    "write_rows(Tensor(a!)[] cache, Tensor[] states, Tensor? rows, Tensor blocks, "
    "Tensor offsets, Tensor? any_stored) -> ()",
    _write_rows,
)
