"""Each clause on an example worked out by hand, so that not even the reference is trusted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, SpecError
from functional_paged.conformance import find_adapter
from functional_paged.conformance.bits import DTYPES, as_bits, pattern
from tests.helpers import i32

NUM_BLOCKS, KV_HEADS, BLOCK_SIZE, HEAD_DIM = 6, 3, 2, 5
SHAPE = (NUM_BLOCKS, KV_HEADS, BLOCK_SIZE, HEAD_DIM)
BF16 = DTYPES["bf16"]


@pytest.fixture(params=["reference", "jax", "jax-donated", "torch"])
def adapter(request: pytest.FixtureRequest) -> Any:
    return find_adapter(request.param)


def assert_stored(adapter: Any, spec: IndexSpec, num_tokens: int, expected: dict[int, int]) -> None:
    """Slot `s` must hold the row of token `expected[s]`, and every other slot what it held."""
    before = pattern(
        NUM_BLOCKS * KV_HEADS * BLOCK_SIZE * HEAD_DIM, BF16, salt=1, payloads=True
    ).reshape(SHAPE)
    states = pattern(num_tokens * KV_HEADS * HEAD_DIM, BF16, salt=2, payloads=True)
    states = states.reshape(num_tokens, KV_HEADS, HEAD_DIM)
    after = as_bits(adapter.store(before.copy(), states, spec))
    for slot in range(NUM_BLOCKS * BLOCK_SIZE):
        block, offset = divmod(slot, BLOCK_SIZE)
        want = states[expected[slot]] if slot in expected else before[block, :, offset]
        np.testing.assert_array_equal(after[block, :, offset], as_bits(want), f"slot {slot}")


def test_c1_ranks_and_shapes(adapter: Any) -> None:
    cache = np.zeros(SHAPE, np.float32)
    for shape in ((1, KV_HEADS + 1, HEAD_DIM), (1, KV_HEADS, HEAD_DIM - 1), (1, HEAD_DIM)):
        with pytest.raises(SpecError, match=r"^C1: states"):
            adapter.store(cache, np.ones(shape, np.float32), SlotMapping(i32(0)))
    assert not cache.any()
    adapter.store(cache, np.ones((1, KV_HEADS, HEAD_DIM), np.float32), SlotMapping(i32(0)))


def test_c2_a_store_never_casts(adapter: Any) -> None:
    cache = np.zeros(SHAPE, BF16)
    states = np.ones((1, KV_HEADS, HEAD_DIM), np.float32)
    with pytest.raises(SpecError, match=r"^C2: .* cache\.dtype = bfloat16, got float32"):
        adapter.store(cache, states, SlotMapping(i32(0)))
    assert not as_bits(cache).any()
    adapter.store(cache, states.astype(BF16), SlotMapping(i32(0)))


@pytest.mark.parametrize("name", ["jax", "jax-donated", "torch"])
def test_c3_one_device(name: str) -> None:
    cache, states = np.zeros(SHAPE, BF16), np.ones((1, KV_HEADS, HEAD_DIM), BF16)
    with pytest.raises(SpecError, match=r"^C3: states must be on the device of cache"):
        find_adapter(name).store_apart(cache, states, SlotMapping(i32(0)))


def test_c4_index_dtypes(adapter: Any) -> None:
    cache, states = np.zeros(SHAPE, BF16), np.ones((1, KV_HEADS, HEAD_DIM), BF16)
    wide = {
        "block_table": BlockTable(np.int64([[0]]), i32(0)),
        "context_kv_lens": BlockTable(i32([0]), np.int64([0])),
        "cu_q_lens": BlockTable(i32([0]), i32(0), np.int64([0, 1])),
        "chunks": ChunkPlan(np.int64([[0, 0, 0, 1]])),
        "slots": SlotMapping(np.int16([0])),
    }
    for name, spec in wide.items():
        with pytest.raises(SpecError, match=f"^C4: {name} must be int32"):
            adapter.store(cache, states, spec)
    assert not as_bits(cache).any()
    assert_stored(adapter, SlotMapping(np.int64([7])), 1, {7: 0})


def test_c5_position_and_slot(adapter: Any) -> None:
    prefill = BlockTable(i32([4, 2, 1], [5, 0, 3]), i32(1, 2), i32(0, 4, 5))
    assert_stored(adapter, prefill, 5, {9: 0, 4: 1, 5: 2, 2: 3, 0: 4})
    assert_stored(adapter, BlockTable(i32([4, 2], [5, 0]), i32(1, 2)), 2, {9: 0, 0: 1})


def test_c5_c9_a_position_past_32_bits_does_not_wrap(adapter: Any) -> None:
    spec = BlockTable(i32([4, 2], [5, 0]), i32(2**31 - 1, 1), i32(0, 3, 4))
    assert_stored(adapter, spec, 4, {11: 3})


def test_c6_padded_row_stores_nothing(adapter: Any) -> None:
    spec = BlockTable(i32([4, 2], [5, 0], [1, 3]), i32(-1, 2, -(2**31)), i32(0, 3, 4, 5))
    assert_stored(adapter, spec, 5, {0: 3})
    assert_stored(adapter, BlockTable(i32([4], [5]), i32(-1, 1)), 2, {11: 1})


def test_c7_empty_row_stores_nothing(adapter: Any) -> None:
    spec = BlockTable(i32([4, 2], [5, 0], [1, 3]), i32(1, 2, 0), i32(0, 0, 1, 1))
    assert_stored(adapter, spec, 1, {0: 0})


def test_c8_hole_is_skipped(adapter: Any) -> None:
    spec = BlockTable(i32([4, PAD, 2, -9, 0]), i32(1), i32(0, 8))
    assert_stored(adapter, spec, 8, {9: 0, 4: 3, 5: 4, 0: 7})


def test_c9_past_the_table(adapter: Any) -> None:
    spec = BlockTable(i32([4, 2], [5, 0]), i32(3, 0), i32(0, 3, 4))
    assert_stored(adapter, spec, 4, {5: 0, 10: 3})
    assert_stored(adapter, BlockTable(i32([4, 2], [5, 0]), i32(4, 3)), 2, {1: 1})


def test_c10_more_states_than_named(adapter: Any) -> None:
    assert_stored(adapter, BlockTable(i32([4, 2]), i32(1), i32(0, 2)), 4, {9: 0, 4: 1})
    assert_stored(adapter, BlockTable(i32([4, 2]), i32(1)), 3, {9: 0})
    assert_stored(adapter, ChunkPlan(i32([1, 2, 0, 1])), 3, {4: 1})
    assert_stored(adapter, SlotMapping(i32(7)), 3, {7: 0})


def test_c11_token_past_states(adapter: Any) -> None:
    assert_stored(adapter, BlockTable(i32([4, 2]), i32(1), i32(0, 3)), 2, {9: 0, 4: 1})
    assert_stored(adapter, BlockTable(i32([4], [2]), i32(1, 0)), 1, {9: 0})
    assert_stored(adapter, ChunkPlan(i32([1, 2, 0, 2])), 2, {4: 1})
    assert_stored(adapter, SlotMapping(i32(7, 3, 1)), 2, {7: 0, 3: 1})


def test_c12_past_the_cache(adapter: Any) -> None:
    far = 2**31 - 1
    assert_stored(adapter, BlockTable(i32([6, 2, far]), i32(1), i32(0, 4)), 4, {4: 1, 5: 2})
    assert_stored(adapter, ChunkPlan(i32([0, 6, 0, 1], [1, far, 0, 1], [2, 5, 1, 1])), 3, {11: 2})
    assert_stored(adapter, SlotMapping(i32(12, 11, 13, far)), 4, {11: 1})
    assert_stored(adapter, SlotMapping(np.int64([2**32 + 1, 11, 2**40])), 3, {11: 1})


def test_c13_chunks(adapter: Any) -> None:
    plan = ChunkPlan(i32([9, 9, 9, 0], [1, 5, 0, 2], [3, PAD, 0, 1], [0, 4, 1, 1]))
    assert_stored(adapter, plan, 4, {9: 0, 10: 1, 11: 2})
    broken = ([0, 4, 1, 2], [0, 4, -1, 1], [-1, 4, 0, 2], [0, 4, 0, -1], [0, 4, 0, 2**31 - 1])
    for chunk in broken:
        assert_stored(adapter, ChunkPlan(i32(chunk, [2, 3, 0, 1])), 3, {6: 2})
    twice = ChunkPlan(i32([0, 4, 0, 2], [1, 2, 0, 1], [2, 3, 0, 1]))
    assert_stored(adapter, twice, 3, {8: 0, 6: 2})


def test_c14_negative_slot_is_not_stored(adapter: Any) -> None:
    assert_stored(adapter, SlotMapping(i32(9, PAD, -12, -(2**31), 0)), 5, {9: 0, 0: 4})
    assert_stored(adapter, SlotMapping(np.int64([-(2**32), -(2**63), 3])), 3, {3: 2})


def test_c15_one_of_the_candidates(adapter: Any) -> None:
    cache = np.zeros(SHAPE, np.int32)
    states = np.arange(1, 4 * KV_HEADS * HEAD_DIM + 1, dtype=np.int32)
    states = states.reshape(4, KV_HEADS, HEAD_DIM)
    after = adapter.store(cache, states, SlotMapping(i32(3, 3, 7, 3)))
    for head in range(KV_HEADS):
        assert any(np.array_equal(after[1, head, 1], states[token, head]) for token in (0, 1, 3))
    np.testing.assert_array_equal(after[3, :, 1], states[2])
    assert np.count_nonzero(after) == 2 * KV_HEADS * HEAD_DIM


@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_c16_every_bit_is_kept(adapter: Any, dtype: np.dtype) -> None:
    bits = np.arange(KV_HEADS * HEAD_DIM * 256, dtype=np.uint32) * np.uint32(65_521)
    states = bits.astype(f"u{dtype.itemsize}").view(dtype).reshape(256, KV_HEADS, HEAD_DIM)
    cache = np.repeat(states[::-1], 2, axis=0).reshape(256, 2, KV_HEADS, HEAD_DIM).swapaxes(1, 2)
    cache = np.ascontiguousarray(cache)
    want = as_bits(cache).copy()
    want[:128, :, 1] = as_bits(states[:128])
    slots = np.arange(256, dtype=np.int32) * 2 + 1
    slots[128:] = PAD
    after = adapter.store(cache, states, SlotMapping(slots))
    np.testing.assert_array_equal(as_bits(after), want)


@pytest.mark.parametrize("name", ["reference", "jax"])
def test_c17_functional_forms_keep_their_inputs(name: str) -> None:
    cache, states = np.zeros(SHAPE, np.float32), np.ones((1, KV_HEADS, HEAD_DIM), np.float32)
    spec = SlotMapping(i32(3))
    after = find_adapter(name).store(cache, states, spec)
    assert after.sum() == KV_HEADS * HEAD_DIM
    assert not cache.any()
    assert states.all()
    assert spec.slots.tolist() == [3]


def test_c17_inputs_and_identity() -> None:
    torch = pytest.importorskip("torch")
    import bridges

    cache, states = torch.zeros(SHAPE), torch.ones(1, KV_HEADS, HEAD_DIM)
    spec = SlotMapping(torch.tensor([3]))
    assert bridges.store_single_(cache, states, spec) is cache
    assert (
        bridges.store_single_(cache, states, bridges.plan(spec, cache=cache, num_tokens=1)) is cache
    )
    assert cache.sum() == KV_HEADS * HEAD_DIM
    assert states.sum() == KV_HEADS * HEAD_DIM
    assert spec.slots.tolist() == [3]


def test_c18_empty_inputs(adapter: Any) -> None:
    empty = np.zeros(0, np.int32)
    assert_stored(adapter, SlotMapping(empty), 0, {})
    assert_stored(adapter, SlotMapping(empty), 2, {})
    assert_stored(adapter, ChunkPlan(np.zeros((0, 4), np.int32)), 2, {})
    assert_stored(adapter, BlockTable(np.zeros((0, 2), np.int32), empty, i32(0)), 2, {})
    assert_stored(adapter, BlockTable(np.zeros((0, 2), np.int32), empty), 2, {})
    assert_stored(adapter, BlockTable(np.zeros((2, 0), np.int32), i32(0, 3)), 2, {})
    assert_stored(adapter, BlockTable(i32([1]), i32(0), i32(0, 0)), 0, {})


def test_c20_strided_caches_and_states() -> None:
    torch = pytest.importorskip("torch")
    import bridges

    packed = torch.zeros(NUM_BLOCKS, BLOCK_SIZE, KV_HEADS, 2 * HEAD_DIM)
    fused = torch.arange(1.0, 2 * 9 * HEAD_DIM + 1).reshape(2, 9, HEAD_DIM)
    keys = packed[..., :HEAD_DIM].transpose(1, 2)
    bridges.store_single_(keys, fused[:, 3:6], SlotMapping(torch.tensor([7, 2])))
    want = torch.zeros_like(packed)
    want[3, 1, :, :HEAD_DIM] = fused[0, 3:6]
    want[1, 0, :, :HEAD_DIM] = fused[1, 3:6]
    assert torch.equal(packed, want)


def test_c21_running_total(adapter: Any) -> None:
    table = i32([4, 2], [5, 0])
    for cu_q_lens in ([1, 2, 3], [-1, 2, 3], [0, 3, 1], [0, -1, 3]):
        assert_stored(adapter, BlockTable(table, i32(0, 0), i32(*cu_q_lens)), 3, {})
    assert_stored(adapter, BlockTable(table, i32(0, 0), i32(0, 2, 3)), 3, {8: 0, 9: 1, 10: 2})


def test_c22_derivative() -> None:
    jax = pytest.importorskip("jax")
    import jax.numpy as jnp

    from functional_paged import store_single

    def store(cache: Any, states: Any) -> Any:
        return store_single(cache, states, SlotMapping(jnp.array([3, -1, 99, 0])))

    _, pull = jax.vjp(store, jnp.ones((3, 1, 2, 1)), jnp.ones((4, 1, 1)))
    d_cache, d_states = pull(jnp.arange(1.0, 7.0).reshape(3, 1, 2, 1))
    assert d_cache.ravel().tolist() == [0, 2, 3, 0, 5, 6]
    assert d_states.ravel().tolist() == [4, 0, 0, 1]
    tangents = (jnp.full((3, 1, 2, 1), 7.0), jnp.arange(1.0, 5.0).reshape(4, 1, 1))
    _, pushed = jax.jvp(store, (jnp.ones((3, 1, 2, 1)), jnp.ones((4, 1, 1))), tangents)
    assert pushed.ravel().tolist() == [4, 7, 7, 1, 7, 7]
