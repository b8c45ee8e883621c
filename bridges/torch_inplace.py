"""The portable backend: one registered operator of plain torch, on any device and any strides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch

from ._backend import BITS, BackendUnsupported
from ._operator import register_operator

if TYPE_CHECKING:
    from functional_paged import IndexSpec


@dataclass(frozen=True)
class RowWrites:
    """Which row of states goes where.

    On a device there is one write a token, so that shapes are static: a token that is not stored
    repeats the write of one that is. On the CPU only stored tokens are left.

    Attributes:
      rows: row of states to write. int64[num_writes]
      blocks: block to write to. int64[num_writes]
      offsets: position in the block. int64[num_writes]
      any_stored: whether any token is stored; if none is, each write repeats what is there.
        bool[]; `None` where only stored tokens are left.
    """

    route: ClassVar[str] = "index_put"
    rows: torch.Tensor
    blocks: torch.Tensor
    offsets: torch.Tensor
    any_stored: torch.Tensor | None

    def write_(self, caches: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]) -> None:
        """Write the rows through the registered operator."""
        for cache in caches:
            if cache.dtype.itemsize not in BITS:
                raise BackendUnsupported(
                    f"the torch backend moves elements of 1, 2, 4 or 8 bytes, got {cache.dtype}"
                )
        for cache, rows in zip(caches, states, strict=True):
            _store_op(cache, rows, self.rows, self.blocks, self.offsets, self.any_stored)


class TorchBackend:
    """Plain torch: what runs where there is no vendor kernel, and what those are compared with."""

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
        # On the CPU there is nothing to wait for, and half the work of a masked write. What is
        # traced, or of a class of its own, may have no values.
        at_hand = type(slots) is torch.Tensor and slots.device.type == "cpu"
        if slots.shape[0] == 0:
            rows, any_stored = torch.arange(0, device=slots.device), None
        elif at_hand and not torch.compiler.is_compiling():
            rows, any_stored = torch.nonzero(stored)[:, 0], None
        else:
            token = torch.arange(slots.shape[0], device=slots.device)
            some_token = torch.argmax(stored.to(torch.int8)).reshape(1)
            rows, any_stored = torch.where(stored, token, some_token), stored.any()
        slots = slots[rows].to(torch.int64).clamp(min=0)
        block_size = cache.shape[2]
        return RowWrites(rows, slots // block_size, slots % block_size, any_stored)


def _write_rows(
    cache: torch.Tensor,
    states: torch.Tensor,
    rows: torch.Tensor,
    blocks: torch.Tensor,
    offsets: torch.Tensor,
    any_stored: torch.Tensor | None,
) -> None:
    # As integers: some dtypes have no index_put_, and floats may lose NaN payloads (C16).
    bits = BITS[cache.dtype.itemsize]
    by_slot = cache.view(bits).permute(0, 2, 1, 3)
    written = states.view(bits).index_select(0, rows)
    if any_stored is not None:
        written = torch.where(any_stored, written, by_slot[blocks[:1], offsets[:1]])
    by_slot.index_put_((blocks, offsets), written)


_store_op = register_operator(
    "write_rows(Tensor(a!) cache, Tensor states, Tensor rows, Tensor blocks, Tensor offsets, "
    "Tensor? any_stored) -> ()",
    _write_rows,
)
