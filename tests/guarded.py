"""Specs by clause, caches inside memory that must not change, and a store that is checked."""

from __future__ import annotations

import numpy as np
import torch

import bridges
from bridges import BackendUnsupported
from functional_paged import BlockTable, ChunkPlan, SlotMapping, reference
from tests.helpers import i32

HUGE = 2**31 - 1
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32}


def valid_specs(s, n):
    """Valid specs of up to 7 tokens for block_size `s` and num_blocks `n` >= 9, by clause."""
    table = i32([3, 7, 1], [0, 5, 2], [8, 4, 6])
    stale = i32([3, 7, n], [0, HUGE, -9], [8, 4, n + 5])
    cu = i32(0, 4, 5, 7)
    return {
        "c5_decode": (BlockTable(table, i32(s, 0, 3 * s - 1)), 3),
        "c5_prefill": (BlockTable(table, i32(s - 1, 0, 2 * s), cu), 7),
        "c6_decode": (BlockTable(table, i32(1, -1, 2)), 3),
        "c6_prefill": (BlockTable(table, i32(s - 1, -7, 2 * s), cu), 7),
        "c6_names_anything": (BlockTable(table, i32(0, 1, -1), i32(0, 2, 3, HUGE)), 3),
        "c7_empty_rows": (BlockTable(table, i32(1, s, 0), i32(0, 0, 3, 3)), 3),
        "c8_decode": (BlockTable(i32([3, -1], [-1, 5], [8, 4]), i32(s, s + 1, 0)), 3),
        "c8_prefill": (BlockTable(i32([-1, 7], [5, -1], [8, 4]), i32(s - 2, s - 1, 0), cu), 7),
        "c9_decode": (BlockTable(table, i32(3 * s, HUGE, 0)), 3),
        "c9_prefill": (BlockTable(table, i32(3 * s - 2, 3 * s, HUGE), cu), 7),
        "c10_spare_states": (BlockTable(table, i32(0, s, 1), i32(0, 1, 2, 3)), 6),
        "c10_slots": (SlotMapping(i32(4, 2)), 5),
        "c12_stale_ids": (BlockTable(stale, i32(s - 1, 1, 0), i32(0, 2, 2, 4)), 4),
        "c13_chunks": (
            ChunkPlan(i32([2, 8, 0, 1], [0, 3, s - 2, 2], [5, 1, 0, 0], [3, -1, 0, 2])),
            6,
        ),
        "c14_slots": (SlotMapping(i32(-1, n * s - 1, -HUGE, 0)), 4),
        "c14_long_slots": (SlotMapping(np.array([-(2**32) + 1, 5, 2 * s], np.int64)), 3),
        "c18_no_tokens": (SlotMapping(i32()), 0),
        "c18_no_rows": (BlockTable(np.zeros((0, 3), np.int32), i32(), i32(0)), 2),
        "c18_no_columns": (BlockTable(np.zeros((2, 0), np.int32), i32(0, 0)), 2),
    }


def invalid_specs(s, n):
    """Specs with an offending token, which is not stored while the others are."""
    table = i32([3, n, 1], [n + 2, 5, 2], [8, 4, HUGE])
    good = i32([3, 7, 1], [0, 5, 2], [8, 4, 6])
    return {
        "c11_decode": (BlockTable(good, i32(0, 1, 2)), 2),
        "c11_prefill": (BlockTable(good, i32(0, 1, 2), i32(0, 2, 3, 9)), 5),
        "c12_decode": (BlockTable(table, i32(s, 0, 0)), 3),
        "c12_prefill": (BlockTable(table, i32(s - 1, s - 1, 2 * s), i32(0, 3, 5, 7)), 7),
        "c12_slots": (SlotMapping(np.array([n * s, 1, 2**32 + 1, HUGE], np.int64)), 4),
        "c13_chunks": (
            ChunkPlan(i32([0, 1, s - 1, 2], [2, 3, 0, 2], [3, 4, 0, 1], [-1, 2, 0, 1])),
            4,
        ),
        "c21_start": (BlockTable(good, i32(0, 0, 0), i32(1, 2, 3, 4)), 4),
        "c21_decreasing": (BlockTable(good, i32(0, 0, 0), i32(0, 3, 2, 4)), 4),
    }


class Guarded:
    """A cache of canaries with any strides, inside canaries that must not change either."""

    def __init__(self, shape, dtype, strides=None, shift=0):
        rng = np.random.default_rng(7)
        strides = strides or tuple(np.cumprod([1, *shape[:0:-1]])[::-1].tolist())
        margin = 2 * strides[0] + 64 // dtype.itemsize
        size = margin * 2 + sum((n - 1) * k for n, k in zip(shape, strides, strict=True)) + 1
        item = BITS[dtype.itemsize]
        info = torch.iinfo(item)
        bits = rng.integers(info.min, info.max, size + 64, f"int{item.itemsize * 8}")
        self.memory = torch.from_numpy(bits)
        self.at = -self.memory.data_ptr() % 64 // item.itemsize + margin // 64 * 64 + shift
        bits[:] = np.roll(bits, self.at)  # the same cache, wherever it lies
        self.before = bits.copy()
        self.tensor = self.memory.view(dtype).as_strided(shape, strides, self.at)
        self.shape, self.strides = shape, [k * item.itemsize for k in strides]

    def view_of(self, memory):
        return np.lib.stride_tricks.as_strided(memory[self.at :], self.shape, self.strides)

    def check(self, states, *specs):
        """The memory is as the reference leaves it, for one of the specs."""
        bits = states.view(self.memory.dtype).numpy()
        for spec in specs:
            expected = self.before.copy()
            here = self.view_of(expected)
            here[...] = reference.store_single(here.copy(), bits, spec)
            if (expected == self.memory.numpy()).all():
                return
        raise AssertionError("the cache, or what is around it, is not as the reference has it")


def a_states(num_tokens, shape, dtype):
    rng = np.random.default_rng(11)
    info = torch.iinfo(BITS[dtype.itemsize])
    size = (num_tokens, shape[1], shape[3])
    bits = rng.integers(info.min, info.max, size, f"int{dtype.itemsize * 8}")
    return torch.from_numpy(bits).view(dtype)


def store(backend, cache, states, spec, alternatives=(), check=False):
    """Store and compare; returns the route, or `None` where the store was refused."""
    given, cache_given = spec.map(torch.from_numpy), cache.tensor
    try:
        plan = bridges.plan(
            given, cache=cache_given, num_tokens=len(states), backend=backend, check=check
        )
        out = bridges.store_single_(cache_given, states, plan)
    except BackendUnsupported as refused:
        refusal = str(refused)
    else:
        refusal = None
    if refusal is not None:
        assert len(refusal) > 80, "a refusal says what was found and what to do"
        assert (cache.memory.numpy() == cache.before).all()
        return None
    assert out is cache.tensor  # C17
    cache.check(states, spec, *alternatives)
    return plan.route


PLAIN = ((9, 2, 16, 16), torch.bfloat16)
ODD = ((10, 3, 3, 5), torch.bfloat16)
