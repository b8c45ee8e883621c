"""Where tokens go, computed in torch as a caller of an indexed store does it by hand.

Nothing is masked: what a negative index or one past the end does is left to torch. That is what the
scoreboard is about, so nothing here uses `to_slots`.
"""

from __future__ import annotations

import torch

from functional_paged import BlockTable, ChunkPlan, IndexSpec

from ._chunks_by_hand import expand


def tokens_and_slots(index_spec: IndexSpec, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The tokens that a spec of NumPy arrays names, and the slot of each; int64[num_named]."""
    if isinstance(index_spec, BlockTable):
        return _of_table(index_spec, block_size)
    if isinstance(index_spec, ChunkPlan):
        tokens, slots = expand(index_spec, block_size)
        return torch.from_numpy(tokens), torch.from_numpy(slots)
    slots = torch.from_numpy(index_spec.slots)
    return torch.arange(len(slots)), slots


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
