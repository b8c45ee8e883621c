"""The kernel of the triton backend and its launch; a module of its own, since it imports triton."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl

from ._backend import BITS

MAX_TILE = 1024
"""Elements of a token's row that one program moves at most."""


@triton.jit
def store_kernel(slots, slot_step, side, other_side, TILE: tl.constexpr):  # noqa: N803
    """One program a token, a tile of its row, and a side of the pair."""
    token = tl.program_id(0).to(tl.int64)
    slot = tl.load(slots + token * slot_step).to(tl.int64)
    if tl.program_id(2) == 0:
        _move(side, token, slot, TILE)
    else:
        _move(other_side, token, slot, TILE)


@triton.jit
def _move(side, token, slot, TILE: tl.constexpr):  # noqa: N803
    """Move this program's tile of a row; `side` is what `_side` gives."""
    cache, states, num_blocks, kv_heads, block_size, head_dim, to, origin = side
    block = slot // block_size
    offset = slot % block_size
    # C8, C12, C14: whatever the slot says, nothing outside of the cache is written.
    if (slot >= 0) & (block < num_blocks):
        element = tl.program_id(1) * TILE + tl.arange(0, TILE)
        # C19: each product has a factor of 64 bits. Numbers that the host gives may have 32.
        head = (element // head_dim).to(tl.int64)
        dim = (element % head_dim).to(tl.int64)
        source = states + token * origin[0] + head * origin[1] + dim * origin[2]
        target = cache + block * to[0] + head * to[1] + offset * to[2] + dim * to[3]
        of_row = element < kv_heads * head_dim
        tl.store(target, tl.load(source, mask=of_row), mask=of_row)


INTERPRETED = not isinstance(store_kernel, triton.JITFunction)
"""Whether the kernel runs in Python on the CPU: `TRITON_INTERPRET` was set at the import."""


def launch(
    caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor], slots: torch.Tensor
) -> None:
    """Store one tensor or a pair in one launch, on the current stream, without a host sync.

    Args:
      caches: one or two, each `(num_blocks, kv_heads, block_size, head_dim)`, of any strides.
      states: as many, each `(num_tokens or more, kv_heads, head_dim)`; none overlaps a cache.
      slots: of each token; one outside of the cache is not stored. int32 or int64[num_tokens]
    """
    pairs = [pair for pair in zip(caches, states, strict=True) if pair[0].numel()]  # C18
    tokens = min([len(slots), *(len(rows) for _, rows in pairs)])
    if not pairs or tokens == 0:
        return
    sides = [_side(*pair) for pair in pairs]
    row = max(cache.shape[1] * cache.shape[3] for cache, _ in pairs)
    tile = min(1 << (row - 1).bit_length(), MAX_TILE)
    grid = (tokens, -(-row // tile), len(sides))
    # 16 bytes a thread.
    warps = tile * max(cache.itemsize for cache, _ in pairs) // 16 // 32
    options: dict[str, Any] = {"TILE": tile, "num_warps": min(max(warps, 1), 4)}
    with torch.cuda.device_of(slots):  # where triton launches
        store_kernel[grid](slots, slots.stride(0), sides[0], sides[-1], **options)


def _side(cache: torch.Tensor, states: torch.Tensor) -> tuple[Any, ...]:
    bits = BITS[cache.itemsize]  # C16: as integers, which keep every bit
    num_blocks, kv_heads, block_size, head_dim = cache.shape
    # The last is known when the kernel is compiled: so loads are wide, and divisions cheap.
    sizes = num_blocks, kv_heads, block_size, tl.constexpr(head_dim)
    return cache.view(bits), states.view(bits), *sizes, cache.stride(), states.stride()
