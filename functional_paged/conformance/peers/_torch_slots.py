"""The slots of tokens, computed in torch as a caller of an indexed store does it by hand.

Nothing is masked: what a negative index or one past the end does is left to torch. That is what the
scoreboard is about, so nothing here uses `to_slots`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping

from ..cases.case import Case
from ._chunks_by_hand import expand


def tokens_and_slots(index_spec: IndexSpec, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that a spec of NumPy arrays names, and the slot of each; int64[num_named]."""
    return _BY_FORM[index_spec.form](index_spec, block_size)


def _of_table(index_spec: BlockTable, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    table = torch.from_numpy(index_spec.block_table).long()
    contexts = torch.from_numpy(index_spec.context_kv_lens).long()
    rows = torch.arange(len(table))
    if index_spec.cu_q_lens is None:
        tokens, positions = rows, contexts
    else:
        cu_q_lens = torch.from_numpy(index_spec.cu_q_lens).long()
        rows = torch.repeat_interleave(rows, torch.diff(cu_q_lens))
        tokens = torch.arange(len(rows))
        positions = contexts[rows] + tokens - cu_q_lens[rows]
    return tokens, table[rows, positions // block_size] * block_size + positions % block_size


def _of_chunks(index_spec: ChunkPlan, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, slots = expand(index_spec, block_size)
    return torch.from_numpy(tokens), torch.from_numpy(slots)


def _of_slots(index_spec: SlotMapping, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    slots = torch.from_numpy(index_spec.slots)
    return torch.arange(len(slots)), slots


_BY_FORM: dict[str, Callable[[Any, int], tuple[torch.Tensor, torch.Tensor]]] = {
    "block_table": _of_table,
    "chunks": _of_chunks,
    "slots": _of_slots,
}


class TorchPeer:
    """Base of the adapters of torch's operations: tells versions, and takes every case."""

    def info(self) -> dict[str, str]:
        return {"torch": torch.__version__, "device": "cpu"}

    def unsupported(self, case: Case) -> str | None:
        return None
