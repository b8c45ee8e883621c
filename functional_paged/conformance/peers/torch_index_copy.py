"""`index_copy_` into a pool of slots, as an engine with a token-major cache uses it."""

from __future__ import annotations

import numpy as np
import torch

from functional_paged import IndexSpec

from ..adapters.torch_memory import TorchOnCpu, tensor_over
from ..bits import short_name
from ..cases.case import Case
from ._by_hand import tokens_and_slots


class IndexCopyAdapter(TorchOnCpu):
    """The pool is a copy of the cache: slots of the cache's own layout are no single axis."""

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


adapter = IndexCopyAdapter()
