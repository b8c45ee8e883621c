"""A trial: one store into memory full of canaries, compared bit for bit with the reference."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch

from functional_paged import BlockTable, reference

from ..._backend import BITS
from ..._overlap import reach
from ..library import Store
from .canvas import ALIGNMENT, Canvas
from .finding import Finding, attempt, kernel_errors

MAX_TRIAL_ELEMENTS = 2**28


class TensorKind(NamedTuple):
    """What two calls have in common when a trial of one proves the other.

    Attributes:
      dtype: of cache and states.
      kv_heads: heads of both.
      block_size: positions in a block.
      head_dim: elements of a head's row.
      cache_strides: in elements; `None` if contiguous.
      states_strides: in elements; `None` if contiguous.
      cache_shift: bytes that the cache's address is past a multiple of `ALIGNMENT`.
      states_shift: the same for the states.
    """

    dtype: torch.dtype
    kv_heads: int
    block_size: int
    head_dim: int
    cache_strides: tuple[int, ...] | None = None
    states_strides: tuple[int, ...] | None = None
    cache_shift: int = 0
    states_shift: int = 0

    def __str__(self) -> str:
        text = (
            f"{self.dtype} rows of kv_heads = {self.kv_heads}, head_dim = {self.head_dim} "
            f"in blocks of block_size = {self.block_size}"
        )
        if self.cache_strides is not None:
            text += f", cache strides {self.cache_strides}"
        if self.cache_shift:
            text += f", cache {self.cache_shift} bytes past a multiple of {ALIGNMENT}"
        return text


class Trial(NamedTuple):
    """What to store in a trial.

    Attributes:
      spec: of NumPy arrays. The last block of the cache must be one that it names nowhere:
        what follows its table in memory names that block.
      num_blocks: of the cache.
      num_tokens: rows of states.
      index_dtype: of the index arrays that the kernel gets.
    """

    spec: BlockTable
    num_blocks: int
    num_tokens: int
    index_dtype: torch.dtype = torch.int32


def try_store(
    store: Store, kind: TensorKind, trial: Trial, device: torch.device, sides: int = 1
) -> Finding:
    """Run a trial: proven if every bit is as the reference has it, in the cache and around it.

    With two sides the store gets pairs of tensors, whose rows differ in every element. Every tensor
    that the kernel gets lies inside a larger one, so that a block of -1, a context of -1, a read
    past a row or past the states stays inside memory that belongs to the trial.
    """
    obstacle = _obstacle(kind, trial.num_blocks)
    if obstacle is not None:
        return Finding("not tried", obstacle)

    def once() -> Finding:
        pairs = [canvases(kind, trial, device, side) for side in range(sides)]
        caches, states = zip(*pairs, strict=True)
        indices = index_arrays(trial, device)
        with kernel_errors():
            rows, blocks = ([canvas.tensor for canvas in of] for of in (states, caches))
            store(*((rows, blocks) if sides > 1 else (rows[0], blocks[0])), *indices)
            memories = [cache.memory.cpu().numpy() for cache in caches]
        findings = [
            _compare(memory, cache, expected(cache, rows, trial), trial.num_tokens)
            for memory, (cache, rows) in zip(memories, pairs, strict=True)
        ]
        return next((found for found in findings if found.status != "proven"), findings[0])

    return attempt(once)


def canvases(
    kind: TensorKind, trial: Trial, device: torch.device, side: int = 0
) -> tuple[Canvas, Canvas]:
    """A cache and states to try, full of canaries."""
    head = (kind.kv_heads, kind.block_size, kind.head_dim)
    block, row = math.prod(head), kind.kv_heads * kind.head_dim
    around = (kind.cache_strides or (block,))[0] + block + ALIGNMENT
    place = kind.cache_strides, kind.cache_shift
    cache = Canvas((trial.num_blocks, *head), kind.dtype, device, around, *place)
    place = kind.states_strides, kind.states_shift
    shape = (trial.num_tokens, kind.kv_heads, kind.head_dim)
    states = Canvas(shape, kind.dtype, device, 16 * row + ALIGNMENT, *place)
    seeds = 4 + 2 * side, 3 + 2 * side
    return cache.fill_with_canaries_(seeds[0]), states.fill_with_canaries_(seeds[1])


def index_arrays(
    trial: Trial, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Block table, cu_q_lens and contexts, each inside a longer memory of harmless values."""

    def inside(values: np.ndarray, around: int) -> torch.Tensor:
        dtype = trial.index_dtype
        # Hardly aligned, as the indices of a caller may be.
        canvas = Canvas(values.shape, dtype, device, values.shape[-1] + 16, shift=dtype.itemsize)
        return canvas.fill_around_(values, around).tensor

    spec = trial.spec
    return (
        inside(spec.block_table, trial.num_blocks - 1),
        None if spec.cu_q_lens is None else inside(spec.cu_q_lens, spec.cu_q_lens[-1]),
        inside(spec.context_kv_lens, 0),
    )


def expected(cache: Canvas, states: Canvas, trial: Trial) -> np.ndarray:
    """The memory of the cache after the store, as the reference has it."""
    memory = cache.host.copy()
    here = cache.view_of(memory)
    here[...] = reference.store_single(here.copy(), states.view_of(states.host), trial.spec)
    return memory


def _obstacle(kind: TensorKind, num_blocks: int) -> str | None:
    item = kind.dtype.itemsize
    if item not in BITS:
        return f"elements of {item} bytes"
    if kind.cache_shift % item or kind.states_shift % item:
        return "an address that is no multiple of the element size"
    head = (kind.kv_heads, kind.block_size, kind.head_dim)
    step = math.prod(head)
    if kind.cache_strides is not None:
        step, *inner = kind.cache_strides
        # The margins are whole blocks, so blocks must lie one after the other.
        if reach(head, inner) > step:
            return "blocks that do not lie one after the other leave no room to see a wrong write"
    states = max(kind.states_strides or (0,)) * 2**14
    if max(step * (num_blocks + 4), states) > MAX_TRIAL_ELEMENTS:
        return f"it would take more than {MAX_TRIAL_ELEMENTS} elements"
    return None


def _compare(memory: np.ndarray, cache: Canvas, stored: np.ndarray, num_tokens: int) -> Finding:
    wrong = memory != stored
    count = int(np.count_nonzero(wrong))
    if not count:
        return Finding("proven", f"bit for bit, {num_tokens} rows of states")
    inside = np.argwhere(cache.view_of(wrong))
    text = f"{count} elements differ from the reference, {count - len(inside)} outside the cache"
    if len(inside):
        text += f"; the first at [block, head, offset, dim] = {inside[0].tolist()}"
    return Finding("disproven", text)
