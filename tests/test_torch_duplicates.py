"""C15: of two tokens with one slot, each head's row there is one of theirs, whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import bridges
from bridges.conformance_adapters import tensor_over as tensor
from bridges.torch_inplace import RowWrites, TorchBackend
from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, reference
from functional_paged.conformance.bits import DTYPES, as_bits, pattern

pytestmark = pytest.mark.usefixtures("cpu_backend")

# So many elements that torch writes from several threads; a small store runs on one.
SHAPE = (32, 3, 48, 64)
NUM_TOKENS = 4096


def big_specs() -> dict[str, IndexSpec]:
    num_slots = SHAPE[0] * SHAPE[2]
    token = np.arange(NUM_TOKENS)
    blocks = np.arange(NUM_TOKENS // 16) * 7 % 5  # rows that all share five blocks
    cu_q_lens = np.arange(0, NUM_TOKENS + 1, 16)
    chunks = np.stack([cu_q_lens[:-1], blocks, blocks, np.full_like(blocks, 16)], axis=1)
    contested = np.where(token % 3 == 0, token % 11, token * 5 % num_slots)
    return {
        "slots": SlotMapping(np.int32(contested)),
        "one slot": SlotMapping(np.int32(np.where(token % 100 == 99, PAD, 50))),
        "chunks": ChunkPlan(np.int32(chunks)),
        "table": BlockTable(np.int32(blocks[:, None]), np.int32(blocks), np.int32(cu_q_lens)),
        "decode": BlockTable(np.int32(token[:, None] % 7), np.int32(token % 5), None),
    }


BIG_SPECS = big_specs()


def problem(dtype: str, num_tokens: int, shape: tuple = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    cache = pattern(int(np.prod(shape)), DTYPES[dtype], salt=1, payloads=True).reshape(shape)
    rows = (num_tokens, shape[1], shape[3])
    return cache, pattern(int(np.prod(rows)), DTYPES[dtype], salt=2, payloads=True).reshape(rows)


def wrong_rows(
    before: np.ndarray, after: np.ndarray, states: np.ndarray, spec: IndexSpec
) -> list[tuple[int, int, int]]:
    """`(block, head, offset)` of each row that is neither a candidate's nor, if it has no
    candidate, what it was."""
    candidates: dict[tuple[int, int], list[int]] = {}
    for token, block, offset in reference.stored_tokens(spec, before.shape, len(states)):
        candidates.setdefault((block, offset), []).append(token)
    rows, written, was = as_bits(states), as_bits(after), as_bits(before).copy()
    wrong = []
    for (block, offset), tokens in candidates.items():
        row = written[block, :, offset]
        is_candidate = (rows[tokens] == row).all(axis=2).any(axis=0)
        wrong += [(block, int(head), offset) for head in np.flatnonzero(~is_candidate)]
        was[block, :, offset] = row
    wrong += [tuple(map(int, row)) for row in np.argwhere((was != written).any(axis=3))]
    return wrong


@pytest.mark.parametrize("dtype", ["bf16", "f32", "i8"])
@pytest.mark.parametrize("name", BIG_SPECS)
def test_c15_contested_rows_are_whole(name, dtype):
    spec = BIG_SPECS[name]
    cache, states = problem(dtype, NUM_TOKENS)
    before = cache.copy()
    bridges.store_single_(tensor(cache), tensor(states), spec.map(torch.from_numpy))
    assert wrong_rows(before, cache, states, spec) == []


@pytest.mark.parametrize("name", BIG_SPECS)
def test_the_big_specs_contest_slots(name):
    places = reference.stored_tokens(BIG_SPECS[name], SHAPE, NUM_TOKENS)
    slots = [(block, offset) for _, block, offset in places]
    assert len(slots) > NUM_TOKENS * 0.9
    assert len(set(slots)) < len(slots) * 0.8


@settings(deadline=None, max_examples=100)
@given(slots=st.lists(st.integers(-2, 21), max_size=12), dtype=st.sampled_from(["i8", "bf16"]))
def test_c15_any_mapping(slots, dtype):
    cache, states = problem(dtype, len(slots), (5, 2, 4, 3))
    before, spec = cache.copy(), SlotMapping(np.int32(slots))
    bridges.store_single_(tensor(cache), tensor(states), spec.map(torch.from_numpy))
    assert wrong_rows(before, cache, states, spec) == []


def test_every_plan_names_a_slot_once():
    # Which is how a row stays whole, however a backend's writers race.
    seen: list[torch.Tensor] = []

    class Watching(TorchBackend):
        def lower(self, index_spec: IndexSpec, slots: torch.Tensor, *args: Any, **options: Any):
            seen.append(slots)
            return super().lower(index_spec, slots, *args, **options)

    cache = torch.zeros(SHAPE, dtype=torch.int8)
    for spec in BIG_SPECS.values():
        bridges.plan(
            spec.map(torch.from_numpy), cache=cache, num_tokens=NUM_TOKENS, backend=Watching()
        )
        stored = seen[-1][seen[-1] >= 0]
        named = [b * SHAPE[2] + o for _, b, o in reference.stored_tokens(spec, SHAPE, NUM_TOKENS)]
        assert sorted(stored.tolist()) == sorted(set(named))


def torn_dim(cache: np.ndarray, states: np.ndarray) -> None:
    cache[1, 0, 2, : SHAPE[3] // 2] = states[0, 0, : SHAPE[3] // 2]


def torn_element(cache: np.ndarray, states: np.ndarray) -> None:
    cache[1, 2, 2, -1] = states[0, 2, -1]


def row_of_a_stranger(cache: np.ndarray, states: np.ndarray) -> None:
    cache[1, 1, 2] = states[1, 1]


def no_write(cache: np.ndarray, states: np.ndarray) -> None:
    cache[1, 0, 2] = cache[0, 0, 0]


def neighbour(cache: np.ndarray, states: np.ndarray) -> None:
    cache[1, 0, 3] = states[0, 0]


@pytest.mark.parametrize("spoil", [torn_dim, torn_element, row_of_a_stranger, no_write, neighbour])
def test_c15_a_torn_or_stray_row_is_found(spoil):
    slot = SHAPE[2] + 2
    spec = SlotMapping(np.int32([slot, 9, slot]))
    cache, states = problem("bf16", 3)
    before = cache.copy()

    class Planted(TorchBackend):
        def lower(self, *args: Any, **options: Any) -> bridges.Lowered:
            return PlantedWrites(**vars(super().lower(*args, **options)))

    class PlantedWrites(RowWrites):
        def write_(self, caches: tuple[torch.Tensor, ...], states: tuple[torch.Tensor, ...]):
            super().write_(caches, states)
            spoil(*(tensor.view(torch.int16).numpy() for (tensor,) in (caches, states)))

    bridges.store_single_(
        tensor(cache), tensor(states), spec.map(torch.from_numpy), backend=Planted()
    )
    assert len(wrong_rows(before, cache, states, spec)) == 1


def test_c15_heads_of_different_tokens_are_allowed():
    # The clause promises whole rows a head, not one winner for all heads.
    slot = SHAPE[2] + 2
    spec = SlotMapping(np.int32([slot, 9, slot]))
    before, states = problem("bf16", 3)
    after = before.copy()
    after[0, :, 9], after[1, 0, 2], after[1, 1:, 2] = states[1], states[0, 0], states[2, 1:]
    assert wrong_rows(before, after, states, spec) == []
