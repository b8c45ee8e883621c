"""Plain indexed assignment in torch: `cache[blocks, :, offsets] = states`, an `index_put_`."""

from __future__ import annotations

import numpy as np

from functional_paged import IndexSpec

from ..adapters.torch_memory import tensor_over
from ._torch_slots import TorchPeer, tokens_and_slots


class IndexPutAdapter(TorchPeer):
    """In place, in the memory of the case."""

    name = "torch-index-put"

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        block_size = cache.shape[2]
        tokens, slots = tokens_and_slots(index_spec, block_size)
        tensor_over(cache)[slots // block_size, :, slots % block_size] = tensor_over(states)[tokens]
        return cache


adapter = IndexPutAdapter()
