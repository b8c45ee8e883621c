"""The tokens and slots of a spec, as a caller of an indexed store computes them on the host.

Nothing is masked: what a negative index or one past the end does is left to NumPy, and then to the
store. That is what the scoreboard is about, so nothing here uses `to_slots`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping

from ..cases.quantised import CODECS

TokensAndSlots: TypeAlias = tuple[np.ndarray, np.ndarray]


def tokens_and_slots(index_spec: IndexSpec, block_size: int) -> TokensAndSlots:
    """The tokens that a spec of NumPy arrays names, and the slot of each; int64[num_named]."""
    if isinstance(index_spec, SlotMapping):
        return np.arange(len(index_spec.slots)), index_spec.slots
    if isinstance(index_spec, BlockTable):
        return _of_table(index_spec, block_size)
    return _of_chunks(index_spec, block_size)


def encoded(xp: Any, states: Any, scale: Any, codec: str) -> tuple[Any, Any]:
    """Payload and scale as one writes it down in torch or JAX: a division and a cast."""
    bound = CODECS[codec].high
    if scale is None:
        scale = xp.asarray(xp.amax(abs(states), -1, keepdims=True), dtype=xp.float32) / bound
    quotient, dtype = states / scale, getattr(xp, CODECS[codec].payload)
    if dtype == xp.int8:
        quotient = quotient.round().clip(-128, 127)
    return xp.asarray(quotient, dtype=dtype), scale


def _of_table(spec: BlockTable, block_size: int) -> TokensAndSlots:
    tokens = rows = np.arange(len(spec.block_table))
    positions = spec.context_kv_lens.astype(np.int64)
    if spec.cu_q_lens is not None:
        rows = np.repeat(rows, np.diff(spec.cu_q_lens))
        tokens = np.arange(len(rows))
        positions = positions[rows] + tokens - spec.cu_q_lens[rows]
    blocks = spec.block_table[rows, positions // block_size].astype(np.int64)
    return tokens, blocks * block_size + positions % block_size


def _of_chunks(spec: ChunkPlan, block_size: int) -> TokensAndSlots:
    # A chunk that leaves its block goes on in the next.
    tokens, slots = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for start, block, offset, length in spec.chunks.tolist():
        tokens.append(start + np.arange(length))
        slots.append(block * block_size + offset + np.arange(length))
    return np.concatenate(tokens), np.concatenate(slots)
