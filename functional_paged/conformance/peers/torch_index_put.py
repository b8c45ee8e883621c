"""Plain indexed assignment in torch: `cache[blocks, :, offsets] = states`, an `index_put_`."""

from __future__ import annotations

import numpy as np
import torch

from functional_paged import IndexSpec

from ..adapters.torch_memory import TorchOnCpu, tensor_over
from ._by_hand import tokens_and_slots


class IndexPutAdapter(TorchOnCpu):
    """In place, in the memory of the case."""

    name = "torch-index-put"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        block_size = cache.shape[2]
        tokens, slots = map(torch.from_numpy, tokens_and_slots(index_spec, block_size))
        tensor_over(cache)[slots // block_size, :, slots % block_size] = tensor_over(states)[tokens]
        return cache


adapter = IndexPutAdapter()
