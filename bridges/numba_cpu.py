"""The backend for CPUs: one loop over the bytes of rows, compiled by numba."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from ._backend import BackendUnsupported
from ._compiler import is_traced
from ._host import compiled, has_numba
from ._operator import register_operator

if TYPE_CHECKING:
    from functional_paged import IndexSpec

BYTES_A_THREAD = 2**23
"""What each thread gets to copy at least. Where torch's own threads spin for work of theirs,
another one gets a core so late that less does not pay; see docs/performance.md."""

SLOTS_A_GROUP = 16
"""Slots that one thread takes together: neighbours, whose rows it reads and writes in sequence."""


def _copy_rows(
    cache, states, slots,
    num_tokens, num_blocks, kv_heads, block_size, head_dim,
    block_stride, head_stride, offset_stride, cache_stride,
    token_stride, states_head_stride, states_stride,
    size, part, parts,
):  # fmt: skip
    """Copy the rows of one of some parts of the cache: of every `parts`-th group of slots.

    Tokens come in order, and all of one slot are of one part, so that the last one's row stays
    (C15). The heads of a token come inside, so that its states are read straight through.
    """
    pieces, piece_bytes = head_dim, size
    if head_dim == 1 or (cache_stride == 1 and states_stride == 1):
        pieces, piece_bytes = 1, head_dim * size
    for token in range(num_tokens):
        slot = slots[token]
        if slot < 0 or slot >= num_blocks * block_size:  # C8, C12, C14
            continue
        if slot // SLOTS_A_GROUP % parts != part:
            continue
        block = slot // block_size
        row = block * block_stride + (slot - block * block_size) * offset_stride
        for head in range(kv_heads):
            for piece in range(pieces):
                to = size * (row + head * head_stride + piece * cache_stride)
                of = size * (
                    token * token_stride + head * states_head_stride + piece * states_stride
                )
                for i in range(piece_bytes):
                    cache[to + i] = states[of + i]


@functools.cache
def _compiled_for(slot_dtype: torch.dtype) -> Callable[..., None]:
    """`_copy_rows` as a C function, which is called without the interpreter's lock."""
    from numba import cfunc, types

    num_pointers, num_sizes = 3, 15
    byte = types.CPointer(types.uint8)
    slot = types.CPointer({torch.int32: types.int32, torch.int64: types.int64}[slot_dtype])
    signature = types.void(byte, byte, slot, *[types.int64] * num_sizes)
    code = compiled(cfunc, signature, _copy_rows)
    kinds = [ctypes.c_void_p] * num_pointers + [ctypes.c_int64] * num_sizes
    function: Any = ctypes.CFUNCTYPE(None, *kinds)(code.address)
    function.code = code  # which owns the memory of the function
    return function


@dataclass(frozen=True)
class SlotWrites:
    """The slot of each token.

    Attributes:
      slots: negative where a token is not stored. int32 or int64[num_tokens], contiguous
    """

    route: ClassVar[str] = "rows"
    slots: torch.Tensor

    def write_(self, caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor]) -> None:
        """Write the rows through the registered operator."""
        _store_op(caches, states, self.slots)


class NumbaBackend:
    """A compiled loop in the caller's thread, shared among a few where there is much to copy.

    At most as many threads as torch uses, `torch.get_num_threads()`, a part of the slots each. They
    are no threads of numba's, whose layers end a process that calls twice at once or after a fork.

    Raises:
      BackendUnsupported: numba is not installed.
    """

    name = "numba"
    in_order = True

    def __init__(self) -> None:
        if not has_numba():
            raise BackendUnsupported("no numba; pip install 'functional-paged[cpu]'")

    def serves(self, device: torch.device) -> str | None:
        """CPU tensors alone."""
        return None if device.type == "cpu" else f"it writes to CPU tensors, got {device}"

    def lower(
        self, index_spec: IndexSpec, slots: torch.Tensor, cache: torch.Tensor, *, checked: bool
    ) -> SlotWrites:
        """Keep the slots, and compile what writes them unless that is done."""
        del index_spec, checked
        if not is_traced(slots, cache):
            _compiled_for(slots.dtype)
        return SlotWrites(slots)


def _store(
    caches: Sequence[torch.Tensor], states: Sequence[torch.Tensor], slots: torch.Tensor
) -> None:
    slots = slots.contiguous()
    for cache, rows in zip(caches, states, strict=True):
        _store_one(cache, rows, slots)


def _store_one(cache: torch.Tensor, states: torch.Tensor, slots: torch.Tensor) -> None:
    num_rows, kv_heads, head_dim = states.shape
    num_tokens, size = min(slots.shape[0], num_rows), cache.element_size()
    sizes = (num_tokens, *cache.shape, *cache.stride(), *states.stride(), size)
    total_bytes = num_tokens * kv_heads * head_dim * size
    parts = min(torch.get_num_threads(), total_bytes // BYTES_A_THREAD)
    function = _compiled_for(slots.dtype)

    def copy(part: int, parts: int) -> None:  # holds the tensors as long as it runs
        pointers = (cache.data_ptr(), states.data_ptr(), slots.data_ptr())
        function(*pointers, *sizes, part, parts)

    _in_parts(copy, parts) if parts > 1 else copy(0, 1)


def _in_parts(copy: Callable[[int, int], None], parts: int) -> None:
    """Call `copy(part, parts)` for each part, in this thread and in others.

    Each takes parts until none is left, and this one waits for those alone that have begun: a
    thread that gets no core, or is none after a fork, holds up nothing.
    """
    left = list(range(parts))

    def take() -> None:
        with suppress(IndexError):
            while True:
                copy(left.pop(), parts)

    threads, others = _threads(), list[Future[None]]()
    try:
        while len(others) < parts - 1:
            others.append(threads.submit(take))
    except RuntimeError:  # the interpreter is ending, or there is no thread to be had
        threads.shutdown(cancel_futures=True)  # or what was submitted might begin past the end
        _threads.cache_clear()
    take()
    for other in others:
        if not other.cancel():
            other.result()


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(thread_name_prefix="functional-paged-store")


os.register_at_fork(after_in_child=_threads.cache_clear)

_store_op = register_operator(
    "store_rows(Tensor(a!)[] cache, Tensor[] states, Tensor slots) -> ()", _store
)
