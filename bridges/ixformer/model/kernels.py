"""A software model of ixformer's store kernel, with everything unknown about them as a choice.

It stands in for the vendor's library in tests. Addresses are worked out as a kernel would, over
the whole memory that a tensor is a view of; an address outside it wraps around, so that a wrong
write is seen and does no harm.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import torch

from ..._backend import BITS
from .semantics import KernelSemantics

_ALIGNMENT = 16
Pair: TypeAlias = tuple[torch.Tensor, torch.Tensor]
Writes: TypeAlias = list[tuple[int, int, int]]
"""The token, block and offset of each row that a kernel moves, in its order."""


class ModelFunctions:
    """Has the kernel that the semantics say, as the vendor's `functions` module has it.

    It writes in place, on CPU tensors: states `(num_tokens, kv_heads, head_dim)`, caches
    `(num_blocks, kv_heads, block_size, head_dim)`, index arrays int32.

    Attributes:
      semantics: which of the plausible libraries this is.

    Example:
      >>> cache, states = torch.zeros(3, 1, 2, 1), torch.ones(1, 1, 1)
      >>> table, contexts = torch.tensor([[2]]).int(), torch.tensor([1]).int()
      >>> store = ModelFunctions().paged_store_kv_cache_with_block_table
      >>> store(states, states, cache, cache, table, None, contexts, store_mode=1)
      >>> cache.flatten().tolist()
      [0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    """

    paged_store_kv_cache_with_block_table: Any

    def __init__(self, semantics: KernelSemantics | None = None):
        self.semantics = semantics or KernelSemantics()
        if self.semantics.block_table_kernel:
            self.paged_store_kv_cache_with_block_table = self._with_block_table

    def _with_block_table(
        self, key_states, value_states, key_cache, value_cache, table, cu, contexts, **mode
    ):
        if mode and (self.semantics.store_mode == "missing" or set(mode) != {"store_mode"}):
            raise TypeError(f"unexpected keyword argument {next(iter(mode))!r}")
        sides = self.semantics.store_mode if mode.get("store_mode") == 1 else "both"
        writes = self._table_writes(table, cu, contexts, len(key_states), key_cache.shape)
        return self._write((key_states, value_states), (key_cache, value_cache), writes, sides)

    def _table_writes(
        self,
        block_table: torch.Tensor,
        cu_q_lens: torch.Tensor | None,
        context_kv_lens: torch.Tensor,
        num_tokens: int,
        cache_shape: tuple[int, ...],
    ) -> Writes:
        semantics = self.semantics
        decode = cu_q_lens is None
        (batch, width), table = block_table.shape, self._index_memory(block_table)
        contexts = self._index_memory(context_kv_lens)
        num_blocks, _, block_size, _ = cache_shape
        if not semantics.served("block_sizes", block_size):
            block_size = 1 << (block_size.bit_length() - 1)
        negative = semantics.negative_decode if decode else semantics.negative_prefill
        bounds = range(batch + 1) if decode else self._index_memory(cu_q_lens)[: batch + 1]
        bounds = [int(bound) for bound in bounds]
        if batch and num_tokens > bounds[-1]:
            if semantics.spare_states == "raises":
                raise RuntimeError("the number of states must be that of the query tokens")
            if semantics.spare_states == "append":
                bounds[-1] = num_tokens
        writes = []
        for row in range(semantics.rows_done(batch)):
            context = int(contexts[row])
            if context < 0 and negative == "skip":
                continue
            if negative == "zero":
                context = max(context, 0)
            first, length = bounds[row], bounds[row + 1] - bounds[row]
            if semantics.empty_row == "one":
                length = max(length, 1)
            for in_row in range(semantics.rows_done(length)):
                column, offset = divmod(abs(context + in_row), block_size)
                if context + in_row < 0:  # division in C is towards zero
                    column, offset = -column, -offset
                if column >= width and semantics.short_table == "skip":
                    continue
                block = int(table[(row * width + column) % table.size])
                if block < 0 and semantics.hole != "before":
                    if semantics.hole == "skip":
                        continue
                    if semantics.hole == "stop":
                        break
                    block = num_blocks - 1
                writes.append((first + in_row, block, offset))
        return writes

    def _index_memory(self, array: torch.Tensor) -> np.ndarray:
        """The memory from an index array's first element on, as a kernel that wants int32."""
        if array.dtype == torch.int64 and self.semantics.int64_indices == "raises":
            raise RuntimeError("index tensors must be int32")
        memory = _memory(array)[array.storage_offset() :]
        return memory.view(np.int32) if self.semantics.int64_indices == "misread" else memory

    def _write(self, states: Pair, caches: Pair, writes: Writes, sides: str) -> Pair | None:
        semantics = self.semantics
        at = np.array(writes, dtype=np.int64).reshape(-1, 3)
        if semantics.write_order == "backward":
            at = at[::-1]
        one_tensor = sides == "both" and caches[0].data_ptr() == caches[1].data_ptr()
        if one_tensor and semantics.aliased == "raises":
            raise RuntimeError("key_cache and value_cache must not share memory")
        stale = None
        for side in {"key": [0], "value": [1], "both": [0, 1]}.get(sides, []):
            source, target, rows, columns = self._addresses(states[side], caches[side], at)
            stale = target.copy() if stale is None else stale
            target[rows] = self._as_moved(source[columns], states[side].dtype)
            if side == 1 and one_tensor and semantics.aliased != "safe":
                half = 0 if semantics.aliased == "stale" else rows.shape[-1] // 2
                target[rows[..., half:]] = stale[rows[..., half:]]
        return caches if semantics.returns == "caches" else None

    def _addresses(self, states: torch.Tensor, cache: torch.Tensor, at: np.ndarray):
        """Both memories, and the address in each of every element to move."""
        semantics = self.semantics
        token, block, offset = (at[:, column, None, None] for column in range(3))
        _, kv_heads, _, head_dim = cache.shape
        if not semantics.served("head_dims", head_dim):
            head_dim = head_dim // 8 * 8
        head, dim = np.arange(kv_heads)[:, None], np.arange(head_dim)
        step = self._strides(states, semantics.strided_states)
        columns = self._base(states) + token * step[0] + head * step[1] + dim * step[2]
        step = self._strides(cache, semantics.strided_cache)
        rows = self._base(cache) + block * step[0] + offset * step[2] + head * step[1]
        rows = rows + dim * step[3]
        source, target = _memory(states), _memory(cache)
        return source, target, rows % target.size, columns % source.size

    def _strides(self, tensor: torch.Tensor, handling: str) -> tuple[int, ...]:
        if handling == "honoured" or tensor.is_contiguous():
            return tensor.stride()
        if handling == "raises":
            raise RuntimeError("tensors must be contiguous")
        return torch.empty(tensor.shape, device="meta").stride()

    def _base(self, tensor: torch.Tensor) -> int:
        past = tensor.data_ptr() % _ALIGNMENT
        if past and self.semantics.unaligned == "raises":
            raise RuntimeError("misaligned address")
        back = past // tensor.element_size() if self.semantics.unaligned == "rounded" else 0
        return int(tensor.storage_offset()) - back

    def _as_moved(self, bits: np.ndarray, dtype: torch.dtype) -> np.ndarray:
        if not self.semantics.served("dtypes", dtype):
            bits = bits & ~1
        if self.semantics.nan == "quieted" and dtype.is_floating_point:
            values = torch.from_numpy(np.ascontiguousarray(bits)).view(dtype)
            quiet = torch.full_like(values, float("nan"))
            values = torch.where(values == values, values, quiet)
            bits = values.view(BITS[dtype.itemsize]).numpy()
        return bits


def _memory(tensor: torch.Tensor) -> np.ndarray:
    """All the memory that a tensor is a view of, as integers of its element size."""
    size = tensor.untyped_storage().nbytes() // tensor.element_size()
    bits = tensor.detach().as_strided((size,), (1,), 0)
    return bits.view(BITS[tensor.element_size()]).numpy()
