"""A transformers `Cache` whose keys and values live in paged caches written by `bridges`.

`model.generate` runs unchanged: each layer's `update` stores the new tokens, then reads every token
of the batch back through the block table, as the padded tensors that attention expects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from functional_paged import PAD, BlockTable

from ._plan import plan
from ._store import store_single_

try:
    from transformers.cache_utils import Cache, CacheLayerMixin
except ImportError as error:
    raise ImportError(
        "bridges.transformers needs transformers: pip install 'functional-paged[torch,demo]'"
    ) from error

Listener = Callable[[str, torch.Tensor, BlockTable], None]


class PagedBatch:
    """Which tokens each row has and where they are, as a serving engine keeps it.

    A padded batch has *columns*; those that hold a real token are stored, at the position that
    counts the row's real tokens only. So either padding side works, and no padding is stored.

    Attributes:
      is_token: columns that hold a stored token. bool[batch, columns]
      block_table: blocks are taken one at a time, as rows grow. int32[batch, max_blocks_per_seq]
      finished: rows that store nothing any more. bool[batch]
      steps: model steps begun.
    """

    def __init__(
        self,
        attention_mask: torch.Tensor,
        free_blocks: list[int],
        block_size: int,
        max_blocks_per_seq: int,
    ) -> None:
        batch = attention_mask.shape[0]
        self.prompt = attention_mask.bool()
        self.is_token = self.prompt[:, :0]
        self.block_table = torch.full((batch, max_blocks_per_seq), PAD, dtype=torch.int32)
        self.finished = torch.zeros(batch, dtype=torch.bool)
        self.free_blocks = free_blocks
        self.block_size = block_size
        self.steps = 0

    def begin_step(self, num_columns: int, cache: torch.Tensor) -> None:
        """Take blocks for the new columns, and plan their store once for all layers, K and V."""
        stored, columns = self.is_token.sum(dim=1), self.is_token.shape[1]
        cu_q_lens, num_tokens = None, len(self.block_table)
        if columns < self.prompt.shape[1]:
            self._new = self.prompt[:, columns : columns + num_columns]
            q_lens = self._new.sum(dim=1)
            cu_q_lens = torch.nn.functional.pad(q_lens.cumsum(dim=0), (1, 0)).int()
            num_tokens = int(q_lens.sum())
        elif num_columns == 1:
            self._new = ~self.finished[:, None]
        else:
            raise ValueError(f"a step after the prompt must have 1 column, got {num_columns}")
        self.is_token = torch.cat([self.is_token, self._new], dim=1)
        self._take_blocks()

        context = torch.where(self.finished, PAD, stored).int()
        # A copy, as the table grows and whoever keeps the spec must not see that.
        self.spec = BlockTable(self.block_table.clone(), context, cu_q_lens)
        self.plan = plan(self.spec, cache=cache, num_tokens=num_tokens, check=True)
        self.steps += 1

        # Columns without a token read somewhere, and `read` drops what they read.
        position = (self.is_token.cumsum(dim=1) - 1).clamp(min=0)
        self._block = self.block_table.long().gather(1, position // self.block_size)
        self._offset = position % self.block_size

    def _take_blocks(self) -> None:
        capacity = self.block_table.shape[1] * self.block_size
        for row, length in zip(self.block_table, self.is_token.sum(dim=1).tolist(), strict=True):
            if length > capacity:
                raise ValueError(f"a row must have at most {capacity} tokens, got {length}")
            for block in range(-(-length // self.block_size)):
                if row[block] == PAD:
                    row[block] = self.free_blocks.pop()

    def pack(self, padded: torch.Tensor) -> torch.Tensor:
        """Return the states[num_tokens, kv_heads, head_dim] to store.

        `padded` is [batch, kv_heads, columns, head_dim].

        A prefill packs its real tokens, row after row. A decode step passes a token a row, also for
        finished rows: the spec keeps them out (C6).
        """
        if self.spec.cu_q_lens is None:
            return padded[:, :, 0]
        return padded.transpose(1, 2)[self._new]

    def read(self, cache: torch.Tensor) -> torch.Tensor:
        """Return all tokens so far as padded[batch, kv_heads, columns, head_dim], 0 elsewhere."""
        padded = cache[self._block, :, self._offset].transpose(1, 2)
        # Attention gives masked columns weight 0, and 0 * NaN would still be NaN.
        return torch.where(self.is_token[:, None, :, None], padded, 0)


class PagedLayer(CacheLayerMixin):
    """One layer's key cache and value cache, each (num_blocks, kv_heads, block_size, head_dim)."""

    def __init__(
        self,
        name: str,
        batch: PagedBatch,
        keys: torch.Tensor,
        values: torch.Tensor,
        listener: Listener | None,
    ) -> None:
        super().__init__()
        self.name, self.batch, self.listener = name, batch, listener
        self.keys, self.values = keys, values
        self._caches = {"k": keys, "v": values}
        self.is_initialized = True

    def update(self, key_states, value_states, *args, **kwargs):
        """Store the new columns and return all columns so far, as `DynamicCache` does."""
        return self._store("k", key_states), self._store("v", value_states)

    def _store(self, kind: str, padded: torch.Tensor) -> torch.Tensor:
        cache, states = self._caches[kind], self.batch.pack(padded)
        store_single_(cache, states, self.batch.plan)
        if self.listener is not None:
            self.listener(f"{self.name}/{kind}", states, self.batch.spec)
        return self.batch.read(cache)

    def lazy_initialization(self, key_states, value_states) -> None:
        """Nothing to do: the caches are made with the layer."""

    def get_seq_length(self) -> int:
        """Return the columns so far, padding included: what attention masks are made from."""
        return self.batch.is_token.shape[1]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Return the columns that attention will see, and the first one's number."""
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Return -1: rows are bound by their blocks, not by columns."""
        return -1

    def reset(self) -> None:
        """Refuse: rows keep their blocks for the life of the cache."""
        raise NotImplementedError("a paged cache must be made anew for each batch; got reset()")

    def reorder_cache(self, beam_idx) -> None:
        """Refuse: beams would share blocks."""
        raise NotImplementedError("a paged cache must serve one row a sequence; got beam search")


class PagedCache(Cache):
    """Paged key and value caches of all layers, and the batch that they hold."""

    def __init__(
        self,
        batch: PagedBatch,
        caches: dict[str, torch.Tensor],
        listener: Listener | None = None,
    ) -> None:
        """Make a cache for one batch.

        Args:
          batch: the rows and their blocks; nothing is stored yet.
          caches: for each layer, in order, `<layer>/k` and `<layer>/v`. Written in place; what no
            token maps to is left alone and never reaches attention.
          listener: called after each store with the cache's name, the states and the index spec.
        """
        names = [name.removesuffix("/k") for name in caches if name.endswith("/k")]
        layers: list[Any] = [
            PagedLayer(name, batch, caches[f"{name}/k"], caches[f"{name}/v"], listener)
            for name in names
        ]
        super().__init__(layers=layers)
        self.batch, self.caches = batch, caches

    def update(self, key_states, value_states, layer_idx, *args, **kwargs):
        """Plan the step at its first layer, then let the layer store and read."""
        if layer_idx == 0:
            self.batch.begin_step(key_states.shape[2], next(iter(self.caches.values())))
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    def finish(self, rows: torch.Tensor) -> None:
        """Store nothing more for rows, bool[batch]; they stay in the batch as padding."""
        self.batch.finished |= rows
