"""Indexed assignment in torch: plain, or into a pool of slots as engines use it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from functional_paged import IndexSpec

from ..adapters.torch_memory import TorchOnCpu, array_of, tensor_over
from ..bits import short_name
from ..cases.case import Case
from ._by_hand import encoded, tokens_and_slots


class IndexPutAdapter(TorchOnCpu):
    """`cache[blocks, :, offsets] = states`, an `index_put_`, in the memory of the case."""

    name = "torch-index-put"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        block_size = cache.shape[2]
        tokens, slots = map(torch.from_numpy, tokens_and_slots(index_spec, block_size))
        tensor_over(cache)[slots // block_size, :, slots % block_size] = tensor_over(states)[tokens]
        return cache

    def encode(self, states: np.ndarray, scale: np.ndarray | None, codec: str) -> Any:
        given = None if scale is None else tensor_over(scale)
        payload, used = encoded(torch, tensor_over(states), given, codec)
        return array_of(payload), array_of(used)


class IndexCopyAdapter(TorchOnCpu):
    """`index_copy_` into a pool that is a copy of the cache, whose own slots are no single axis."""

    name = "torch-index-copy"

    def unsupported(self, case: Case) -> str | None:
        is_float8 = short_name(case.build().dtype).startswith("f8")
        return "index_copy_ has no float8 on a CPU" if is_float8 else None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        num_blocks, kv_heads, block_size, head_dim = cache.shape
        token_major = np.ascontiguousarray(cache.swapaxes(1, 2))
        pool = tensor_over(token_major).view(num_blocks * block_size, kv_heads, head_dim)
        tokens, slots = map(torch.from_numpy, tokens_and_slots(index_spec, block_size))
        pool.index_copy_(0, slots.long(), tensor_over(states)[tokens])
        return token_major.swapaxes(1, 2)


index_put, index_copy = IndexPutAdapter(), IndexCopyAdapter()
