"""C19: element offsets past 2^31, in caches of that size and in shapes alone."""

from __future__ import annotations

import numpy as np
import pytest

from functional_paged import BlockTable, SlotMapping, SpecError, to_slots
from functional_paged.conformance.run.run_case import free_bytes

# (2**15 + 1) * 2**16 elements: the last block begins past 2**31.
SHAPE = (2**15 + 1, 16, 32, 128)
LAST = SHAPE[0] - 1


needs_memory = pytest.mark.skipif(
    free_bytes() < 6 * 2**30, reason="needs 6 GiB of free memory for caches of 2 GiB"
)


def spec() -> BlockTable:
    return BlockTable(np.int32([[LAST, 0]]), np.int32([31]), np.int32([0, 2]))


@needs_memory
def test_c19_past_two_to_the_31() -> None:
    torch = pytest.importorskip("torch")
    import bridges

    cache = torch.zeros(SHAPE, dtype=torch.int8)
    states = torch.ones(2, SHAPE[1], SHAPE[3], dtype=torch.int8)
    bridges.store_single_(cache, states, spec().map(torch.from_numpy))
    assert bool(cache[LAST, :, 31].all())
    assert bool(cache[0, :, 0].all())
    assert int(np.count_nonzero(cache.numpy().view(np.int64))) == 2 * SHAPE[1] * SHAPE[3] // 8


@needs_memory
def test_c19_past_two_to_the_31_in_jax() -> None:
    import jax.numpy as jnp

    import functional_paged

    cache = jnp.zeros(SHAPE, jnp.int8)
    states = jnp.ones((2, SHAPE[1], SHAPE[3]), jnp.int8)
    after = np.asarray(functional_paged.store_single_donated(cache, states, spec()))
    assert after[LAST, :, 31].all()
    assert after[0, :, 0].all()
    assert np.count_nonzero(after.view(np.int64)) == 2 * SHAPE[1] * SHAPE[3] // 8


def test_c19_slots_past_two_to_the_31_take_64_bits() -> None:
    shape = (2**26, 1, 64, 1)
    table = BlockTable(np.int32([[2**26 - 1]]), np.int32([63]))
    slots = to_slots(table, cache_shape=shape, num_tokens=1).slots
    assert slots.dtype == np.int64
    assert slots.tolist() == [2**32 - 1]


def test_c5_slots_that_jax_cannot_hold_are_refused() -> None:
    import jax.numpy as jnp

    table = BlockTable(jnp.zeros((1, 1), jnp.int32), jnp.zeros(1, jnp.int32))
    with pytest.raises(SpecError, match=r"^C5: num_blocks \* block_size must be < 2\*\*31"):
        to_slots(table, cache_shape=(2**26, 1, 64, 1), num_tokens=1)
    to_slots(table, cache_shape=(2**24, 1, 64, 1), num_tokens=1)


def test_c12_long_slots_are_compared_in_64_bits() -> None:
    mapping = SlotMapping(np.int64([2**32 + 1, 2**31, 5]))
    assert to_slots(mapping, cache_shape=(6, 1, 2, 1), num_tokens=3).slots.tolist() == [-1, -1, 5]
