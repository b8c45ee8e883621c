"""The chunks of a block table, as mojo_opset's planner has them."""

from __future__ import annotations

from typing import SupportsIndex

import array_api_compat.torch as xp
import torch

from functional_paged import BlockTable, internal
from functional_paged.internal import Int32, destinations


def build_paged_kv_chunk_metadata(
    block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"],
    cu_q_lens: Int32[torch.Tensor, " batch+1"] | None,
    context_kv_lens: Int32[torch.Tensor, " batch"],
    block_size: SupportsIndex,
) -> Int32[torch.Tensor, "num_chunks 4"]:
    """Plan the chunks of a block table: one a row and block that has tokens and is no hole.

    Waits for the device: how many rows the plan has depends on values.

    Args:
      block_table: see `BlockTable`. int32[batch, max_blocks_per_seq]
      cu_q_lens: see `BlockTable`; `None` is decode. int32[batch + 1]
      context_kv_lens: see `BlockTable`. int32[batch]
      block_size: token positions in a block.

    Returns:
      `src_token_start`, `dst_block_id`, `dst_block_offset`, `chunk_len` of each chunk: row after
      row of the table, and within it block after block. int32[num_chunks, 4]

    Raises:
      SpecError: C1, C3, C4. A `cu_q_lens` that is invalid by value (C21) gives no chunks.

    Example:
      >>> table = torch.tensor([[4, 2]], dtype=torch.int32)
      >>> cu_q_lens, contexts = torch.tensor([0, 3]).int(), torch.tensor([15]).int()
      >>> build_paged_kv_chunk_metadata(table, cu_q_lens, contexts, 16).tolist()
      [[0, 4, 15, 1], [1, 2, 0, 2]]
    """
    spec = BlockTable(block_table, context_kv_lens, cu_q_lens)
    internal.check_index_spec(internal.TORCH_STORE, spec)
    _, _, in_block, _ = internal.as_cache_shape((0, 0, block_size, 0))
    internal.check_devices(spec.arrays())
    num_tokens = spec.context_kv_lens.shape[0]
    if spec.cu_q_lens is not None and num_tokens > 0:  # up to the last of a row that is not padding
        num_tokens = int(torch.where(spec.context_kv_lens >= 0, spec.cu_q_lens[1:], 0).max())
    to = destinations(xp, spec, in_block, num_tokens)
    stored = to.named & (to.block >= 0)  # C8; a planner does not know num_blocks (C12)
    edge = torch.ones_like(stored[:1])
    changes = stored[1:] != stored[:-1]
    changes |= (to.source[1:] != to.source[:-1]) | (to.column[1:] != to.column[:-1])
    starts = torch.nonzero(stored & torch.cat([edge, changes]))[:, 0]
    ends = torch.nonzero(stored & torch.cat([changes, edge]))[:, 0] + 1
    columns = (starts, to.block[starts], to.offset[starts], ends - starts)
    return torch.stack([column.to(torch.int32) for column in columns], dim=1)
