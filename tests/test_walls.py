"""Memory between walls: what touches them ends, and guards are wide enough to be seen."""

from __future__ import annotations

import ctypes
import faulthandler
import os

import numpy as np
import pytest

from functional_paged.conformance.cases.guarded_cache import GuardedCache
from functional_paged.conformance.cases.walls import before_a_wall, walled

# JAX warns where another test of this process has used it; these forks do nothing but end.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")


def dies(read) -> bool:
    """Whether a fork of this process ends by a signal."""
    pid = os.fork()
    if pid == 0:
        faulthandler.disable()  # the end is what is asked for
        read()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


def test_walls_end_what_touches_them() -> None:
    memory = walled(5000)
    start, size = memory.ctypes.data, memory.size
    assert size % 4096 == 0
    assert not memory.any()
    for inside in (start, start + size - 1):
        assert not dies(lambda at=inside: ctypes.memset(at, 1, 1))
    for outside in (start - 1, start + size, start - 2**24 + 1, start + size + 2**24 - 1):
        assert dies(lambda at=outside: ctypes.string_at(at, 1))
        assert dies(lambda at=outside: ctypes.memset(at, 1, 1))
    assert memory[0] == memory[-1] == 1  # forks share it


def test_an_array_before_a_wall_ends_at_it() -> None:
    array = np.arange(7, dtype=np.int32)
    copy = before_a_wall(array, 1)
    assert np.array_equal(copy, array)
    end = copy.ctypes.data + copy.nbytes
    assert dies(lambda: ctypes.string_at(end, 1))
    aligned = before_a_wall(array, 16)
    assert aligned.ctypes.data % 16 == 0
    assert dies(lambda: ctypes.string_at(aligned.ctypes.data + aligned.nbytes + 16, 1))


@pytest.mark.parametrize("shape", [(7, 3, 16, 46), (9, 2, 1, 128), (64, 5, 3, 1)])
@pytest.mark.parametrize("layout", ["contiguous", "packed_kv", "kv_pair", "token_major"])
def test_a_cache_has_two_blocks_of_guard_on_either_side(shape, layout) -> None:
    memory = GuardedCache.laid_out(shape, np.dtype(np.int8), layout)
    block = memory.strides[0]
    first = memory.cache.ctypes.data - memory.buffer.ctypes.data
    assert first >= 2 * block
    last = sum((size - 1) * stride for size, stride in zip(shape, memory.strides, strict=True))
    assert memory.buffer.size - first - last - 1 >= 2 * block
    assert dies(lambda: ctypes.memset(memory.buffer.ctypes.data - 1, 0, 1))
    assert dies(lambda: ctypes.memset(memory.buffer.ctypes.data + memory.buffer.nbytes, 0, 1))
