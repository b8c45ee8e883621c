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
from tests.bad_calls import BAD_CALLS, GOOD_CALL, SHAPE, zeros
from tests.helpers import i32


@pytest.mark.parametrize(("change", "message"), BAD_CALLS.values(), ids=BAD_CALLS)
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
    "total_of_an_empty_cache_row_past_states": (
        table(contexts=(3, 0), cu_q_lens=(0, 3, 5)),
        "C11: cu_q_lens[2] = 5 must be <= num_tokens = 4",
        table(contexts=(3, 0), cu_q_lens=(0, 3, 4)),
    ),
    "total_of_no_token_past_states": (
        table(contexts=(-1, 1), cu_q_lens=(0, 9, 10)),
        "C11: cu_q_lens[2] = 10 must be <= num_tokens = 4",
        table(contexts=(-1, 1), cu_q_lens=(0, 9, 9)),
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
        SlotMapping(i32(3, 25)),
        "C12: slots[1] = 25 must be < num_blocks * block_size = 24",
        SlotMapping(i32(3, 23)),
    ),
    "slot_past_states": (
        SlotMapping(i32(0, 1, 2, 3, 4)),
        "C11: slots[4] = 4 names token 4, which must be < num_tokens = 4",
        SlotMapping(i32(0, 1, 2, 3, -1)),
    ),
    "slot_0_past_states": (
        SlotMapping(i32(4, 1, 2, 3, 0)),
        "C11: slots[4] = 0 names token 4, which must be < num_tokens = 4",
        SlotMapping(i32(4, 1, 2, 3, -1)),
    ),
    "chunk_length": (
        chunks((1, 2, 0, -1)),
        "C13: chunks[1, 3] = -1 must be a chunk_len >= 0",
        chunks((1, 2, 0, 0)),
    ),
    "chunk_source": (
        chunks((-1, 2, 0, 1)),
        "C13: chunks[1, 0] = -1 must be a token >= 0",
        chunks((-1, 2, 0, 0)),
    ),
    "chunk_offset": (
        chunks((1, 2, -1, 1)),
        "C13: chunks[1, 2] = -1 must be an offset >= 0",
        chunks((1, 2, -1, 0)),
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
    "slot_0_twice": (
        SlotMapping(i32(0, 9, 0)),
        "C15: tokens 0 and 2 must not share slot 0 (block 0, offset 0)",
        SlotMapping(i32(0, 9, 1)),
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
