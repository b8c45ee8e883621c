"""Memory between walls: pages beyond which nothing can be read or written."""

from __future__ import annotations

import ctypes
import mmap
import sys
from contextlib import suppress
from typing import Any

import numpy as np

_REACHES = (2**40, 2**34, 2**30, 2**24)
"""Bytes of each wall, the first that the system grants. It takes addresses, no memory."""
_NORESERVE = 0x4000 if sys.platform == "linux" else 0
_READ_WRITE = 1 | 2

RUBBISH = 0x5F
"""What fills the bytes that belong to nobody: as an index, far past the end of anything."""


def walled(num_bytes: int, *, shared: bool = True) -> np.ndarray:
    """Zeros between two walls.

    Args:
      num_bytes: the least number of bytes; rounded up to whole pages, so that no byte lies between
        the last of them and the wall.
      shared: whether forks of this process see what another writes. Memory that is not shared costs
        nothing where it is only read.

    Returns:
      uint8[bytes], the first of which lies at the start of a page.

    Example:
      >>> walled(10).size == mmap.PAGESIZE
      True
    """
    size = -(-max(1, num_bytes) // mmap.PAGESIZE) * mmap.PAGESIZE
    pages, reach = _reserve(size, mmap.MAP_SHARED if shared else mmap.MAP_PRIVATE)
    start = np.frombuffer(pages, np.uint8).ctypes.data + reach
    _allow(start, size)
    if not shared and hasattr(mmap, "MADV_HUGEPAGE"):  # as NumPy does, or gigabytes take seconds
        pages.madvise(mmap.MADV_HUGEPAGE, reach, size)
    memory: Any = (ctypes.c_ubyte * size).from_address(start)
    memory.pages = pages  # they live as long as the array
    return np.frombuffer(memory, np.uint8)


def before_a_wall(array: np.ndarray, alignment: int) -> np.ndarray:
    """A copy of a contiguous array with a wall less than `alignment` bytes behind its last one.

    Args:
      array: any shape and dtype.
      alignment: of its first byte; 1 for none but the element's.
    """
    memory = walled(array.nbytes)
    memory.fill(RUBBISH)
    start = (memory.size - array.nbytes) // alignment * alignment
    copy = np.ndarray(array.shape, array.dtype, memory, start)
    copy[...] = array
    return copy


def _reserve(size: int, kind: int) -> tuple[mmap.mmap, int]:
    """Addresses of `size` bytes and two walls, and the bytes of each wall."""
    flags = kind | mmap.MAP_ANONYMOUS | _NORESERVE
    for reach in _REACHES:
        with suppress(OSError):  # a limit on addresses
            return mmap.mmap(-1, size + 2 * reach, flags=flags, prot=0), reach
    raise MemoryError(f"no addresses for {size} bytes between two walls")


def _allow(start: int, size: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    if libc.mprotect(start, size, _READ_WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")
