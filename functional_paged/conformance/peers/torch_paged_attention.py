"""`PagedAttention.assign`, the page store of torch's experimental paged attention."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn.attention.experimental._paged_attention import PagedAttention

from functional_paged import BlockTable, IndexSpec

from ..adapters.torch_memory import TorchOnCpu, tensor_over
from ..cases.case import Case


class PagedAttentionAdapter(TorchOnCpu):
    """One call a row, since a call takes as many tokens of each row; a decode batch is one call.

    Its caches are `(1, kv_heads, num_slots, head_dim)`, so they are copies.
    """

    name = "torch-paged-attention"

    def unsupported(self, case: Case) -> str | None:
        problem = case.build()
        if not isinstance(problem.index_spec, BlockTable):
            return "it takes positions in rows of a page table of its own"
        if problem.index_spec.block_table.shape[-1] > problem.cache_shape[0]:
            return "its page table has num_blocks columns"
        return None

    def store_pair(
        self,
        key_cache: np.ndarray,
        value_cache: np.ndarray,
        keys: np.ndarray,
        values: np.ndarray,
        index_spec: IndexSpec,
    ) -> tuple[np.ndarray, np.ndarray]:
        assert isinstance(index_spec, BlockTable)
        num_blocks, kv_heads, block_size, head_dim = key_cache.shape
        table = torch.from_numpy(index_spec.block_table)
        paged = PagedAttention(num_blocks, block_size, len(table), device="cpu")
        paged.page_table[:, : table.shape[1]] = table  # what `reserve` does for pages of its choice

        stored = [np.ascontiguousarray(side.swapaxes(0, 1)) for side in (key_cache, value_cache)]
        shape = (1, kv_heads, num_blocks * block_size, head_dim)
        caches = [tensor_over(side).view(shape) for side in stored]
        for batch_idx, input_pos, tokens in _calls(index_spec):
            # (batch, num_tokens, kv_heads, head_dim) to (batch, kv_heads, num_tokens, head_dim)
            rows = [tensor_over(side)[tokens].transpose(1, 2) for side in (keys, values)]
            paged.assign(batch_idx, input_pos, *rows, *caches)
        key, value = (side.swapaxes(0, 1) for side in stored)
        return key, value


def _calls(spec: BlockTable) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """`batch_idx (batch,)`, `input_pos (batch, tokens)` and the tokens of each call to make."""
    contexts = torch.from_numpy(spec.context_kv_lens)
    if spec.cu_q_lens is None:
        rows = torch.arange(len(contexts))
        yield rows, contexts[:, None], rows[:, None]
        return
    for row, (start, end) in enumerate(itertools.pairwise(spec.cu_q_lens.tolist())):
        tokens = torch.arange(start, end)
        input_pos = contexts[row] + torch.arange(len(tokens))
        yield torch.tensor([row]), input_pos[None], tokens[None]


adapter = PagedAttentionAdapter()
