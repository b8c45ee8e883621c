"""What `explain` tells agrees with the definition, the value check, and lists made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from functional_paged import (
    PAD,
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    explain,
    reference,
)
from functional_paged._explain.model import Explanation, Fate, Run, Source, Token
from functional_paged.conformance import strategies
from functional_paged.conformance.strategies import Sizes
from tests.helpers import i32


@st.composite
def explained(draw: st.DrawFn) -> tuple[Sizes, IndexSpec, Explanation]:
    size = draw(strategies.sizes())
    spec = draw(strategies.index_specs(size, hostile=draw(st.booleans())))
    return (
        size,
        spec,
        explain(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens),
    )


@given(explained())
def test_stored_tokens_are_those_of_the_reference(
    case: tuple[Sizes, IndexSpec, Explanation],
) -> None:
    size, spec, explanation = case
    want = sorted(reference.stored_tokens(spec, size.cache_shape(), size.num_tokens))
    stored = [token for token in explanation.tokens if token.slot is not None]
    assert sorted((token.token, token.block, token.offset) for token in stored) == want
    for token in stored:
        assert token.block is not None
        assert token.offset is not None
        assert token.slot == token.block * size.block_size + token.offset
        assert token.fate in (Fate.STORED, Fate.CONTESTED)


@given(explained())
def test_every_token_is_told_and_one_that_is_not_stored_has_its_clause(
    case: tuple[Sizes, IndexSpec, Explanation],
) -> None:
    size, _, explanation = case
    assert {token.token for token in explanation.tokens} == set(range(size.num_tokens))
    for token in explanation.tokens:
        assert (token.clause is None) == (token.fate is Fate.STORED)
        if token.slot is None:
            assert token.clause is not None
            assert token.why


@given(explained())
def test_what_breaks_a_clause_is_what_the_value_check_refuses(
    case: tuple[Sizes, IndexSpec, Explanation],
) -> None:
    broken = {fate.clause for fate in case[2].fates if fate.breaks}
    problem = case[2].problem
    assert (problem is None) == (not broken)
    if problem is not None:
        assert problem.split(":")[0] in broken


@given(explained())
def test_runs_give_back_the_tokens_that_they_join(
    case: tuple[Sizes, IndexSpec, Explanation],
) -> None:
    for source in case[2].sources:
        runs, left_out = Source(source.title, "", tokens=source.tokens).runs(case[0].num_tokens)
        assert tuple(run[index] for run in runs for index in range(run.length)) == source.tokens
        assert left_out == 0


@given(st.data())
def test_c5_position_is_column_and_offset(data: st.DataObject) -> None:
    size = data.draw(strategies.sizes())
    spec = data.draw(strategies.block_tables(size, hostile=False))
    explanation = explain(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
    for token in explanation.tokens:
        if token.column is not None:
            assert token.offset is not None
            assert token.position == token.column * size.block_size + token.offset


# Cache of 6 blocks of 2: the spec, num_tokens, and (token, slot, fate) worked out by hand.
TOLD = {
    "decode": (
        BlockTable(i32([4, 2], [5, 0]), i32(1, 2)),
        2,
        [(0, 9, Fate.STORED), (1, 0, Fate.STORED)],
    ),
    "padded": (
        BlockTable(i32([4, 2], [5, 0]), i32(-1, 2), i32(0, 2, 3)),
        3,
        [(0, None, Fate.PADDED), (1, None, Fate.PADDED), (2, 0, Fate.STORED)],
    ),
    "hole": (
        BlockTable(i32([4, PAD, 2]), i32(1), i32(0, 4)),
        4,
        [(0, 9, Fate.STORED), (1, None, Fate.HOLE), (2, None, Fate.HOLE), (3, 4, Fate.STORED)],
    ),
    "past_table": (
        BlockTable(i32([4]), i32(2**31 - 1), i32(0, 2)),
        2,
        [(0, None, Fate.PAST_TABLE), (1, None, Fate.PAST_TABLE)],
    ),
    "no_columns": (
        BlockTable(np.zeros((1, 0), np.int32), i32(0)),
        1,
        [(0, None, Fate.PAST_TABLE)],
    ),
    "no_rows": (
        BlockTable(np.zeros((0, 2), np.int32), i32()),
        1,
        [(0, None, Fate.NOT_NAMED)],
    ),
    "not_named": (
        BlockTable(i32([4, 2]), i32(1), i32(0, 1)),
        3,
        [(0, 9, Fate.STORED), (1, None, Fate.NOT_NAMED), (2, None, Fate.NOT_NAMED)],
    ),
    "past_cache": (
        BlockTable(i32([4, 6]), i32(1), i32(0, 2)),
        2,
        [(0, 9, Fate.STORED), (1, None, Fate.PAST_CACHE)],
    ),
    "broken_total": (
        BlockTable(i32([4, 2], [5, 0]), i32(0, -1), i32(0, 3, 1)),
        2,
        [(0, None, Fate.BROKEN_TOTAL), (1, None, Fate.BROKEN_TOTAL)],
    ),
    "chunks": (
        ChunkPlan(i32([1, 5, 0, 2], [0, 4, 1, 1], [9, 9, 9, 0], [3, -1, 0, 1])),
        5,
        [
            (1, 10, Fate.STORED),
            (2, 11, Fate.STORED),
            (0, 9, Fate.STORED),
            (3, None, Fate.NO_BLOCK),
            (4, None, Fate.NOT_NAMED),
        ],
    ),
    "broken_chunk": (
        ChunkPlan(i32([0, 4, 1, 2], [2, 3, 0, 1])),
        3,
        [(0, None, Fate.BROKEN_CHUNK), (1, None, Fate.BROKEN_CHUNK), (2, 6, Fate.STORED)],
    ),
    "broken_chunk_beside_a_whole_one": (
        ChunkPlan(i32([0, 4, 1, 2], [1, 3, 0, 1])),
        2,
        [(0, None, Fate.BROKEN_CHUNK), (1, None, Fate.BROKEN_CHUNK), (1, 6, Fate.STORED)],
    ),
    "twice": (
        ChunkPlan(i32([0, 4, 0, 2], [1, 5, 0, 1])),
        2,
        [(0, 8, Fate.STORED), (1, None, Fate.NAMED_TWICE), (1, None, Fate.NAMED_TWICE)],
    ),
    "slots": (
        SlotMapping(i32(9, PAD, -7, 3, 12, 9)),
        7,
        [
            (0, 9, Fate.CONTESTED),
            (1, None, Fate.NEGATIVE_SLOT),
            (2, None, Fate.NEGATIVE_SLOT),
            (3, 3, Fate.STORED),
            (4, None, Fate.PAST_CACHE),
            (5, 9, Fate.CONTESTED),
            (6, None, Fate.NOT_NAMED),
        ],
    ),
}


def told(spec: IndexSpec, num_tokens: int) -> Explanation:
    return explain(spec, cache_shape=(6, 1, 2, 1), num_tokens=num_tokens)


@pytest.mark.parametrize("name", TOLD)
def test_fates_of_a_spec(name: str) -> None:
    spec, num_tokens, want = TOLD[name]
    got = [(token.token, token.slot, token.fate) for token in told(spec, num_tokens).tokens]
    assert got == want


def test_every_fate_of_a_token_is_worked_out_by_hand_somewhere() -> None:
    seen = {fate for _, _, tokens in TOLD.values() for _, _, fate in tokens}
    assert seen == set(Fate) - {Fate.MISSING}  # no token of `states` is missing: see below


def past(first: int, last: int, fate: Fate, why: str) -> Run:
    return Run(Token(first, fate, why), last - first + 1)


MISSING = {
    "row": (
        BlockTable(i32([4, 2]), i32(1), i32(0, 2**31 - 1)),
        [past(2, 2**31 - 2, Fate.MISSING, "num_tokens = 2")],
    ),
    "padded_row": (
        BlockTable(i32([4, 2]), i32(-5), i32(0, 3)),
        [past(2, 2, Fate.PADDED, "context_kv_lens[0] = -5")],
    ),
    "chunk": (
        ChunkPlan(i32([1, -1, 0, 2])),
        [past(2, 2, Fate.MISSING, "num_tokens = 2")],
    ),
    "slots": (
        SlotMapping(i32(0, 1, 2, -1, -2, 3)),
        [
            past(2, 2, Fate.MISSING, "num_tokens = 2"),
            past(3, 4, Fate.NEGATIVE_SLOT, "negative slots"),
            past(5, 5, Fate.MISSING, "num_tokens = 2"),
        ],
    ),
}


@pytest.mark.parametrize("name", MISSING)
def test_c11_tokens_past_states(name: str) -> None:
    spec, want = MISSING[name]
    explanation = told(spec, 2)
    assert [beyond for source in explanation.sources for beyond in source.beyond] == want
    assert (explanation.problem is None) == all(run.first.fate is not Fate.MISSING for run in want)


def test_rows_without_tokens_say_why() -> None:
    table = BlockTable(i32([4, 2], [5, 0], [1, 1]), i32(-1, 2, 0), i32(0, 0, 0, 1))
    assert [(source.title, source.note) for source in told(table, 1).sources] == [
        ("row 0", "padded row (C6)"),
        ("row 1", "no query token (C7)"),
        ("row 2", ""),
    ]
    plan = told(ChunkPlan(i32([0, 4, 0, 1], [9, 9, 9, 0], [0, 0, 0, -3])), 1)
    assert [(source.title, source.note) for source in plan.sources] == [
        ("chunk 0", ""),
        ("chunk 1", "padding (C13)"),
        ("chunk 2", "C13: chunks[2, 3] = -3 must be a chunk_len >= 0"),
    ]


def test_the_reason_names_the_entry_that_decides() -> None:
    table = BlockTable(i32([4, -3], [6, 0]), i32(1, 0), i32(0, 2, 3))
    assert [token.why for token in told(table, 3).tokens] == [
        "block_table[0, 0] = 4",
        "block_table[0, 1] = -3",
        "block_table[1, 0] = 6 must be < num_blocks = 6",
    ]
    twice = ChunkPlan(i32([0, 4, 0, 1], [0, 5, 0, 1], [0, 5, 1, 9]))
    assert [token.why for token in told(twice, 1).tokens] == [
        "2 chunks name it",
        "2 chunks name it",
        "chunks[2, 2] + chunk_len = 10 must be <= block_size = 2",
    ]
    contested = told(SlotMapping(i32(9, 9, 0)), 3)
    assert contested.tokens[0].why == "tokens 0 and 1 share slot 9"


def test_c5_positions_go_on_in_each_row_and_past_the_table() -> None:
    spec = BlockTable(i32([4, 2], [5, 0]), i32(1, 3), i32(0, 2, 5))
    assert [token.position for token in told(spec, 5).tokens] == [1, 2, 3, 4, 5]
    far = BlockTable(i32([4]), i32(2**31 - 1), i32(0, 2))
    assert [token.position for token in told(far, 2).tokens] == [2**31 - 1, 2**31]


def test_summary_counts_a_token_in_two_chunks_once() -> None:
    spec = ChunkPlan(i32([0, 4, 1, 2], [1, 3, 0, 1]))
    assert told(spec, 3).summary == "3 tokens: 1 stored, 1 not named, 1 broken chunk"


def test_arrays_of_torch_are_explained_too() -> None:
    torch = pytest.importorskip("torch")
    spec = SlotMapping(torch.tensor([9, -1]))
    assert [token.slot for token in told(spec, 2).tokens] == [9, None]


def test_shapes_and_dtypes_are_refused() -> None:
    with pytest.raises(SpecError, match=r"^C4: slots must be int32 or int64, got float64$"):
        told(SlotMapping(np.zeros(2)), 2)
    with pytest.raises(SpecError, match=r"^C1: context_kv_lens\.shape\[0\] = 2 must equal batch"):
        told(BlockTable(i32([4, 2]), i32(0, 0)), 1)
