"""Every message of the static and the value checks, each beside a valid twin one change away."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from functional_paged import (
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    check_spec,
    reference,
    to_slots,
)

SHAPE = (6, 3, 4, 5)  # num_blocks, kv_heads, block_size, head_dim


def i32(*values: Any) -> np.ndarray:
    return np.array(values, np.int32)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


GOOD_CALL = {"cache": zeros(*SHAPE), "states": zeros(2, 3, 5), "index_spec": SlotMapping(i32(0, 1))}

STATIC = {
    "cache_type": ({"cache": [0]}, "C1: cache must be an array, got list"),
    "cache_rank": (
        {"cache": zeros(6, 4, 5)},
        "C1: cache must have 4 axes (num_blocks, kv_heads, block_size, head_dim), got 3: (6, 4, 5)",
    ),
    "block_size": (
        {"cache": zeros(6, 3, 0, 5)},
        "C1: block_size = cache.shape[2] must be in 1..2**30, got 0",
    ),
    "states_type": ({"states": 3.0}, "C1: states must be an array, got float"),
    "states_rank": (
        {"states": zeros(2, 15)},
        "C1: states must have 3 axes (num_tokens, kv_heads, head_dim), got (2, 15)",
    ),
    "kv_heads": (
        {"states": zeros(2, 4, 5)},
        "C1: states.shape[1] = 4 must equal kv_heads = 3 of cache",
    ),
    "head_dim": (
        {"states": zeros(2, 3, 6)},
        "C1: states.shape[2] = 6 must equal head_dim = 5 of cache",
    ),
    "dtype": (
        {"states": zeros(2, 3, 5, dtype=np.float16)},
        "C2: states.dtype must equal cache.dtype = float32, got float16; a store never casts",
    ),
    "spec_type": (
        {"index_spec": i32(0, 1)},
        "C1: index_spec must be a BlockTable, ChunkPlan or SlotMapping, got numpy.ndarray",
    ),
    "slots_type": (
        {"index_spec": SlotMapping([0, 1])},  # type: ignore[arg-type]
        "C4: slots must be an int32 array, got list",
    ),
    "slots_dtype": (
        {"index_spec": SlotMapping(np.uint32([0, 1]))},
        "C4: slots must be int32 or int64, got uint32",
    ),
    "slots_rank": (
        {"index_spec": SlotMapping(i32([0], [1]))},
        "C1: slots must have 1 axes, got 2: (2, 1)",
    ),
    "chunks_columns": (
        {"index_spec": ChunkPlan(i32([0, 0, 1]))},
        "C1: chunks must have 4 columns (src_token_start, dst_block_id, dst_block_offset, "
        "chunk_len), got 3",
    ),
    "chunks_dtype": (
        {"index_spec": ChunkPlan(np.int64([[0, 0, 0, 1]]))},
        "C4: chunks must be int32, got int64",
    ),
    "table_rank": (
        {"index_spec": BlockTable(i32(0, 1), i32(0, 0))},
        "C1: block_table must have 2 axes, got 1: (2,)",
    ),
    "contexts_length": (
        {"index_spec": BlockTable(i32([0], [1]), i32(0))},
        "C1: context_kv_lens.shape[0] = 1 must equal batch = 2",
    ),
    "cu_q_lens_length": (
        {"index_spec": BlockTable(i32([0], [1]), i32(0, 0), i32(0, 2))},
        "C1: cu_q_lens.shape[0] = 2 must equal batch + 1 = 3",
    ),
}


@pytest.mark.parametrize(("change", "message"), STATIC.values(), ids=STATIC)
def test_static_messages(change: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecError) as caught:
        reference.store_single(**{**GOOD_CALL, **change})
    assert str(caught.value) == message
    assert caught.value.clause == message.split(":")[0]


@pytest.mark.parametrize(
    "index_spec",
    [
        SlotMapping(i32(0, 1)),
        SlotMapping(np.int64([0, 1])),
        ChunkPlan(i32([0, 0, 0, 1])),
        BlockTable(i32([0], [1]), i32(0, 0)),
        BlockTable(i32([0], [1]), i32(0, 0), i32(0, 1, 2)),
    ],
)
def test_valid_twins_of_the_static_messages(index_spec: IndexSpec) -> None:
    reference.store_single(zeros(*SHAPE), zeros(2, 3, 5), index_spec)


def table(
    rows: Any = ((2, 3), (0, 1)), contexts: Any = (3, 1), cu_q_lens: Any = (0, 3, 4)
) -> BlockTable:
    totals = None if cu_q_lens is None else i32(*cu_q_lens)
    return BlockTable(i32(*rows), i32(*contexts), totals)


def chunks(*rows: tuple[int, int, int, int]) -> ChunkPlan:
    return ChunkPlan(i32((0, 1, 3, 1), *rows))


# Each: what is wrong, the message, and the twin that differs in one value.
VALUES = {
    "total_starts": (
        table(cu_q_lens=(1, 3, 4)),
        "C21: cu_q_lens[0] must be 0, got 1",
        table(cu_q_lens=(0, 3, 4)),
    ),
    "total_decreases": (
        table(cu_q_lens=(0, 4, 3)),
        "C21: cu_q_lens[2] = 3 must be >= cu_q_lens[1] = 4",
        table(cu_q_lens=(0, 4, 4)),
    ),
    "total_past_states": (
        table(cu_q_lens=(0, 3, 5)),
        "C11: cu_q_lens[2] = 5 must be <= num_tokens = 4",
        table(cu_q_lens=(0, 3, 4)),
    ),
    "total_of_padding_past_states": (
        table(cu_q_lens=(0, 3, 9)),
        "C11: cu_q_lens[2] = 9 must be <= num_tokens = 4",
        table(contexts=(3, -1), cu_q_lens=(0, 3, 9)),
    ),
    "decode_row_past_states": (
        table(rows=[[0]] * 5, contexts=(-1, -1, -1, -1, 1), cu_q_lens=None),
        "C11: context_kv_lens[4] = 1 names token 4, which must be < num_tokens = 4",
        table(rows=[[0]] * 5, contexts=(-1, -1, -1, 1, -1), cu_q_lens=None),
    ),
    "block_of_a_table": (
        table(rows=((2, 6), (0, 1))),
        "C12: block_table[0, 1] = 6 must be < num_blocks = 6",
        table(rows=((2, 5), (0, 1))),
    ),
    "block_of_a_table_that_no_token_reaches": (
        table(rows=((2, 3), (6, 1))),
        "C12: block_table[1, 0] = 6 must be < num_blocks = 6",
        table(rows=((2, 3), (1, 6))),
    ),
    "block_of_a_chunk": (
        chunks((1, 6, 0, 2)),
        "C12: chunks[1, 1] = 6 must be < num_blocks = 6",
        chunks((1, 5, 0, 2)),
    ),
    "slot": (
        SlotMapping(i32(3, 24)),
        "C12: slots[1] = 24 must be < num_blocks * block_size = 24",
        SlotMapping(i32(3, 23)),
    ),
    "slot_past_states": (
        SlotMapping(i32(0, 1, 2, 3, 4)),
        "C11: slots[4] = 4 names token 4, which must be < num_tokens = 4",
        SlotMapping(i32(0, 1, 2, 3, -1)),
    ),
    "chunk_length": (
        chunks((1, 2, 0, -1)),
        "C13: chunks[1, 3] = -1 must be a chunk_len >= 0",
        chunks((1, 2, 0, 0)),
    ),
    "chunk_source": (
        chunks((-1, 2, 0, 1)),
        "C13: chunks[1, 0] = -1 must be a token >= 0",
        chunks((1, 2, 0, 1)),
    ),
    "chunk_offset": (
        chunks((1, 2, -1, 1)),
        "C13: chunks[1, 2] = -1 must be an offset >= 0",
        chunks((1, 2, 0, 1)),
    ),
    "chunk_end": (
        chunks((1, 2, 2, 3)),
        "C13: chunks[1, 2] + chunk_len = 5 must be <= block_size = 4",
        chunks((1, 2, 1, 3)),
    ),
    "chunk_past_states": (
        chunks((2, 2, 0, 3)),
        "C11: chunks[1, 0] + chunk_len = 5 must be <= num_tokens = 4",
        chunks((1, 2, 0, 3)),
    ),
    "chunk_past_32_bits": (
        chunks((2**31 - 1, 2, 0, 1)),
        "C11: chunks[1, 0] + chunk_len = 2147483648 must be <= num_tokens = 4",
        chunks((3, 2, 0, 1)),
    ),
    "chunks_overlap": (
        chunks((1, 2, 0, 3), (3, 3, 0, 1)),
        "C13: chunks[2] must not name token 3, which chunks[1] names",
        chunks((1, 2, 0, 2), (3, 3, 0, 1)),
    ),
    "one_slot_twice": (
        SlotMapping(i32(5, 9, 5)),
        "C15: tokens 0 and 2 must not share slot 5 (block 1, offset 1)",
        SlotMapping(i32(5, 9, 6)),
    ),
    "rows_share_a_block": (
        table(rows=((2, 3), (3, 1)), contexts=(3, 0)),
        "C15: tokens 1 and 3 must not share slot 12 (block 3, offset 0)",
        table(rows=((2, 3), (3, 1)), contexts=(3, 2)),
    ),
}


@pytest.mark.parametrize(("wrong", "message", "twin"), VALUES.values(), ids=VALUES)
def test_value_messages(wrong: IndexSpec, message: str, twin: IndexSpec) -> None:
    with pytest.raises(SpecError) as caught:
        check_spec(wrong, cache_shape=SHAPE, num_tokens=4)
    assert str(caught.value) == message
    assert caught.value.clause == message.split(":")[0]
    check_spec(twin, cache_shape=SHAPE, num_tokens=4)


def test_c3_arrays_of_two_devices() -> None:
    torch = pytest.importorskip("torch")
    here, away = (torch.zeros(1, dtype=torch.int32, device=place) for place in ("cpu", "meta"))
    with pytest.raises(SpecError) as caught:
        to_slots(BlockTable(here.reshape(1, 1), away), cache_shape=SHAPE, num_tokens=1)
    assert str(caught.value) == (
        "C3: context_kv_lens must be on the device of block_table = cpu, got meta"
    )
    to_slots(BlockTable(here.reshape(1, 1), here), cache_shape=SHAPE, num_tokens=1)


def test_c3_arrays_of_two_jax_devices() -> None:
    jax = pytest.importorskip("jax")
    here, away = (jax.device_put(i32(0), place) for place in jax.devices()[:2])
    with pytest.raises(SpecError) as caught:
        to_slots(BlockTable(here[None], away), cache_shape=SHAPE, num_tokens=1)
    assert str(caught.value) == (
        f"C3: context_kv_lens must be on the device of block_table = {jax.devices()[0]}, "
        f"got {jax.devices()[1]}"
    )
    to_slots(BlockTable(here[None], here), cache_shape=SHAPE, num_tokens=1)


def test_c3_arrays_of_two_frameworks() -> None:
    torch = pytest.importorskip("torch")
    mixed = BlockTable(i32([0]), torch.zeros(1, dtype=torch.int32))
    with pytest.raises(SpecError) as caught:
        to_slots(mixed, cache_shape=SHAPE, num_tokens=1)
    assert str(caught.value) == (
        "C3: all arrays must be of one framework, got block_table of numpy, "
        "context_kv_lens of torch"
    )
