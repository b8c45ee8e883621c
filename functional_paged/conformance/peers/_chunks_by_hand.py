"""A chunk plan as indices, one a token, as a caller of an indexed store expands it on the host."""

from __future__ import annotations

import numpy as np

from functional_paged import ChunkPlan


def expand(plan: ChunkPlan, block_size: int) -> tuple[np.ndarray, np.ndarray]:
    """The tokens that a plan of NumPy arrays names, and the slot of each; int64[num_named].

    Nothing is masked: a chunk that leaves its block goes on in the next.
    """
    tokens, slots = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, block, offset, length in plan.chunks.tolist():
        tokens.append(start + np.arange(length))
        slots.append(block * block_size + offset + np.arange(length))
    return np.concatenate(tokens), np.concatenate(slots)
