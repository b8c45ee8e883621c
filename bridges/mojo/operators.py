"""mojo_opset's operators on paged caches by their calls: arguments in, an index spec, a store."""

from __future__ import annotations

from typing import TYPE_CHECKING, SupportsIndex

import torch

from functional_paged import PAD, BlockTable, SlotMapping, internal
from functional_paged.codecs import INT8_PER_CHANNEL
from functional_paged.internal import Int32, Integer, Shaped

from .._encode import encoded
from .._fit import check_axes
from .._load import load_single
from .._plan import plan
from .._store import store_single_
from .arguments import index_spec, rows_of_contexts

if TYPE_CHECKING:
    from .._backend import Backend


class _Store(torch.nn.Module):
    backend: str | Backend | None = None

    def __init__(self, backend: str | Backend | None = None):
        super().__init__()
        if backend is not None:
            self.backend = backend


class MojoStorePagedSingleCache(_Store):
    """Stores one tensor into one paged cache, called as mojo_opset's operators are.

    Args:
      backend: a name, a backend object, or `None`, as for `bridges.store_single_`.

    Example:
      >>> cache, states = torch.zeros(2, 1, 2, 1), torch.ones(1, 1, 1)
      >>> table, contexts = torch.tensor([[1]]).int(), torch.tensor([1]).int()
      >>> store = MojoStorePagedSingleCache()
      >>> store(states, cache, table, None, contexts).flatten().tolist()
      [0.0, 0.0, 0.0, 1.0]
    """

    def forward(
        self,
        states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"] | None = None,
        cu_q_lens: Int32[torch.Tensor, " batch+1"] | None = None,
        context_kv_lens: Int32[torch.Tensor, " batch"] | None = None,
        *,
        chunk_metadata: Int32[torch.Tensor, "num_chunks 4"] | None = None,
    ) -> Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"]:
        """Write each stored token's row of `states` into `cache`, in place.

        Args:
          states: `(num_tokens, kv_heads, head_dim)` of the cache's dtype. Left alone.
          cache: `(num_blocks, kv_heads, block_size, head_dim)`. Stored slots are written.
          block_table: see `BlockTable`. int32[batch, max_blocks_per_seq]
          cu_q_lens: see `BlockTable`; `None` is decode. int32[batch + 1]
          context_kv_lens: see `BlockTable`. int32[batch]
          chunk_metadata: see `ChunkPlan`; instead of the other three. int32[num_chunks, 4]

        Returns:
          The very object given as `cache`.

        Raises:
          SpecError, BackendUnsupported: as `bridges.store_single_`; C1 where both kinds of index
            arguments are given, or neither is whole.
        """
        spec = index_spec(block_table, cu_q_lens, context_kv_lens, chunk_metadata)
        return store_single_(cache, states, spec, backend=self.backend)


class MojoStorePagedKVCache(_Store):
    """Stores keys and values into their paged caches, else as `MojoStorePagedSingleCache`."""

    def forward(
        self,
        key_states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        value_states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        key_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        value_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"] | None = None,
        cu_q_lens: Int32[torch.Tensor, " batch+1"] | None = None,
        context_kv_lens: Int32[torch.Tensor, " batch"] | None = None,
        *,
        chunk_metadata: Int32[torch.Tensor, "num_chunks 4"] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the rows of both tensors, or of none; returns the caches.

        Heads, head size and dtype of the two may differ. Both states, and both caches, may be one.
        """
        spec = index_spec(block_table, cu_q_lens, context_kv_lens, chunk_metadata)
        caches, states = (key_cache, value_cache), (key_states, value_states)
        return store_single_(caches, states, spec, backend=self.backend)


class MojoStorePagedMLAKVCache(_Store):
    """Stores MLA's latents and positional keys, which have no axis of heads."""

    def forward(
        self,
        compressed_kv_states: Shaped[torch.Tensor, "num_tokens kv_lora_rank"],
        k_pe_states: Shaped[torch.Tensor, "num_tokens qk_rope_head_dim"],
        compressed_kv_cache: Shaped[torch.Tensor, "num_blocks 1 block_size kv_lora_rank"],
        k_pe_cache: Shaped[torch.Tensor, "num_blocks 1 block_size qk_rope_head_dim"],
        block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"],
        cu_q_lens: Int32[torch.Tensor, " batch+1"] | None,
        context_kv_lens: Int32[torch.Tensor, " batch"],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the rows of both tensors, or of none; returns the caches."""
        given = {"compressed_kv_states": compressed_kv_states, "k_pe_states": k_pe_states}
        check_axes(("num_tokens", "width"), **given)
        states = tuple(rows[:, None] for rows in given.values())
        spec = BlockTable(block_table, context_kv_lens, cu_q_lens)
        return store_single_((compressed_kv_cache, k_pe_cache), states, spec, backend=self.backend)


class MojoStorePagedKVCacheC8(_Store):
    """Stores keys and values as int8 with a static scale for each channel."""

    def forward(
        self,
        key_states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        value_states: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        key_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        value_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        key_scale: Shaped[torch.Tensor, "kv_heads head_dim"],
        value_scale: Shaped[torch.Tensor, "kv_heads head_dim"],
        block_table: Int32[torch.Tensor, "batch max_blocks_per_seq"] | None = None,
        cu_q_lens: Int32[torch.Tensor, " batch+1"] | None = None,
        context_kv_lens: Int32[torch.Tensor, " batch"] | None = None,
        *,
        chunk_metadata: Int32[torch.Tensor, "num_chunks 4"] | None = None,
        slot_mapping: Integer[torch.Tensor, " num_slots"] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write the rows as `INT8_PER_CHANNEL` encodes them; returns the caches.

        Scales are made float32 (Q2). Where one is invalid by value, nothing is stored (Q6).
        """
        spec = index_spec(block_table, cu_q_lens, context_kv_lens, chunk_metadata, slot_mapping)
        check_axes(("kv_heads", "head_dim"), key_scale=key_scale, value_scale=value_scale)
        payloads, spec = encoded(
            INT8_PER_CHANNEL,
            spec,
            key_states=(key_states, key_scale.float()),
            value_states=(value_states, value_scale.float()),
        )
        return store_single_((key_cache, value_cache), payloads, spec, backend=self.backend)


class MojoStoreLowrank(_Store):
    """Stores low-rank keys, each row at a block and an offset of its own."""

    def forward(
        self,
        label_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        key_lr: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        block_idxs: Int32[torch.Tensor, " token_num"],
        token_idxs: Int32[torch.Tensor, " token_num"],
        token_num: SupportsIndex,
    ) -> Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"]:
        """Write the first `token_num` rows of `key_lr`; returns `label_cache`.

        What has a negative index, or one past the cache or its block, is not stored.
        """
        size = internal.as_size("token_num", token_num)
        check_axes((size,), True, block_idxs=block_idxs, token_idxs=token_idxs)
        # Decode rows with one block each: token i of row i goes to position `token_idxs[i]`.
        spec = BlockTable(block_idxs[:, None], token_idxs)
        return store_single_(label_cache, key_lr, spec, backend=self.backend)


class MojoDequantFromPagedKVCache(torch.nn.Module):
    """Loads the contexts of a batch from int8 caches, by plain torch."""

    def __init__(self):  # so that mojo_opset's, which takes any keyword, takes no `backend`
        super().__init__()

    def forward(
        self,
        *,
        key: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"],
        value: Shaped[torch.Tensor, "num_tokens kv_heads head_dim"] | None = None,
        key_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"],
        key_cache_scale: Shaped[torch.Tensor, "kv_heads head_dim"],
        value_cache: Shaped[torch.Tensor, "num_blocks kv_heads block_size head_dim"] | None = None,
        value_cache_scale: Shaped[torch.Tensor, "kv_heads head_dim"] | None = None,
        context_lengths: Int32[torch.Tensor, " batch"] | None = None,
        max_context_len: int,
        context_seq_offset: Int32[torch.Tensor, " batch"] | None = None,
        block_tables: Int32[torch.Tensor, "batch max_blocks_per_seq"],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Write the tokens of each row's context over `key` and `value`, which are returned.

        Tokens of no row keep their bits. `context_lengths` is required, `max_context_len` is not
        looked at. `context_seq_offset` is each row's first token; `None` for rows one after the
        other. Where rows overlap, nothing is written (C21). Scales are made float32.

        Raises:
          SpecError: as `bridges.load_single` and, for `key` and `value`, `bridges.store_single_`.
        """
        del max_context_len
        sides = [(key, key_cache, key_cache_scale), (value, value_cache, value_cache_scale)]
        if all(argument is None for argument in sides[1]):
            del sides[1]
        for name, (out, _, scale) in zip(("key", "value"), sides, strict=False):
            check_axes(("num_tokens", "kv_heads", "head_dim"), **{name: out})
            check_axes(("kv_heads", "head_dim"), **{f"{name}_cache_scale": scale})
        spec = rows_of_contexts(block_tables, context_lengths, context_seq_offset)
        read = plan(spec, cache=key_cache, num_tokens=len(key), backend="torch")
        payloads = load_single([cache for _, cache, _ in sides], read)
        rows = [
            INT8_PER_CHANNEL.decode(payload, scale.float(), out.dtype)
            for payload, (out, _, scale) in zip(payloads, sides, strict=True)
        ]
        # The outputs are a paged cache too, of blocks of one token.
        tokens = torch.where(read.slots >= 0, torch.arange(len(key), device=key.device), PAD)
        blocks = [out[:, :, None] for out, _, _ in sides]
        store_single_(blocks, rows, SlotMapping(tokens), backend="torch")
        return key, value
