"""The program of a donated store on CPU: one scatter, one thread, and rows that are whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

jax = pytest.importorskip("jax")

import functional_paged
from functional_paged import BlockTable, SlotMapping, store_single, store_single_donated
from functional_paged.conformance.bits import DTYPES, as_bits
from tests.helpers import filled, i32, jax_stores, on_cpu, on_device

WAYS = jax_stores()
PREFILL = BlockTable(i32(range(256)), i32(0), i32(0, 4096))
SHARED_OUT = "outer_dimension_partitions"


def program(jitted: Any) -> str:
    cache = jax.ShapeDtypeStruct((256, 8, 16, 128), DTYPES["bf16"])
    states = jax.ShapeDtypeStruct((4096, 8, 128), DTYPES["bf16"])
    return jitted.lower(cache, states, PREFILL).compile().as_text()


@on_cpu
@pytest.mark.skipif(not hasattr(jax, "make_user_context"), reason="older XLA has another scatter")
def test_a_donated_store_is_one_scatter_on_one_thread():
    text = program(store_single_donated)
    assert text.count(" scatter(") == 1
    assert " while(" not in text
    assert SHARED_OUT not in text


@on_cpu
@pytest.mark.skipif(jax.local_device_count() < 2, reason="XLA has one thread")
def test_a_step_of_your_own_is_shared_out_as_ever():
    # That the assertion above can fail, and that only the store's own program is confined.
    assert SHARED_OUT in program(functional_paged.jit(store_single, donate_argnums=0))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", ["bf16", "f32", "i8"])
@on_cpu
def test_c15_a_contested_row_is_whole(dtype, way):
    cache, states = filled((5, 2, 3, 64), dtype, 1), filled((300, 2, 64), dtype, 2)
    # The first and the last slot of the cache, and some that are not stored, with no other near.
    slots = np.random.default_rng(0).choice(i32(0, 4, 7, 14, -1, 15, 2**31 - 1), 300)
    got = as_bits(np.asarray(WAYS[way](*on_device((cache, states, SlotMapping(slots))))))
    rows, before = as_bits(states), as_bits(cache)
    for slot in range(15):
        row, old = (bits[slot // 3, :, slot % 3] for bits in (got, before))
        candidates = rows[slots == slot] if slot in slots else old[None]
        assert any(np.array_equal(row, candidate) for candidate in candidates), slot
