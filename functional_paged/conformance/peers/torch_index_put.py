"""Plain indexed assignment in torch: `cache[blocks, :, offsets] = states`, an `index_put_`."""

from __future__ import annotations

import numpy as np
import torch

from functional_paged import IndexSpec

from ..adapters.torch_memory import TorchOnCpu, array_of, tensor_over
from ._by_hand import encoded, tokens_and_slots


class IndexPutAdapter(TorchOnCpu):
    """In place, in the memory of the case."""

    name = "torch-index-put"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        block_size = cache.shape[2]
        tokens, slots = map(torch.from_numpy, tokens_and_slots(index_spec, block_size))
        tensor_over(cache)[slots // block_size, :, slots % block_size] = tensor_over(states)[tokens]
        return cache

    def encode(
        self, states: np.ndarray, scale: np.ndarray | None, codec: str
    ) -> tuple[np.ndarray, np.ndarray]:
        given = None if scale is None else tensor_over(scale)
        payload, used = encoded(torch, tensor_over(states), given, codec)
        return array_of(payload), array_of(used)


adapter = IndexPutAdapter()
