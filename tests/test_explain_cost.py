"""Explaining and drawing a spec costs by its size, however its entries lie."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping, explain
from functional_paged._explain import explanation as _explanation
from functional_paged._explain.model import Explanation
from functional_paged._explain.sources import LEAST_TOLD
from functional_paged._explain.text import render


def plan(*columns: Any) -> ChunkPlan:
    return ChunkPlan(np.stack(np.broadcast_arrays(*columns), axis=1).astype(np.int32))


def numbers(n: int) -> np.ndarray:
    return np.arange(n, dtype=np.int32)


# A spec of n entries, its number of tokens, and the cache's blocks and block size.
SPECS: dict[str, Callable[[int], tuple[IndexSpec, int, int, int]]] = {
    "broken chunks": lambda n: (plan(numbers(n), 1, 3, 9), n, 7, 4),
    "broken chunks that each name all": lambda n: (plan(np.zeros(n), 1, 1, n), n, 7, n),
    "whole chunks that each name all": lambda n: (plan(np.zeros(n), 1, 0, n), n, 7, n),
    "chunks that name one token": lambda n: (plan(np.zeros(n), 1, 0, 1), n, 7, 4),
    "one contested slot": lambda n: (SlotMapping(0 * numbers(n)), n, 7, 4),
    "no two neighbours in order": lambda n: (SlotMapping(numbers(n)[::-1].copy()), n, n, 4),
    "slots past the states": lambda n: (SlotMapping(numbers(n) % 2 - 1), 0, 7, 4),
    "rows of a table": lambda n: (BlockTable(np.zeros((n, 3), np.int32), 0 * numbers(n)), n, n, 4),
    "one row of a table": lambda n: (
        BlockTable(numbers(n)[None], np.zeros(1, np.int32), np.int32([0, n])),
        n,
        n,
        1,
    ),
}


def explained(name: str, n: int) -> Explanation:
    spec, num_tokens, num_blocks, block_size = SPECS[name](n)
    return explain(spec, cache_shape=(num_blocks, 1, block_size, 1), num_tokens=num_tokens)


def calls(function: Callable[[], object]) -> int:
    """How many calls of any function this one makes."""
    count = 0

    def on_event(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(on_event)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("name", SPECS)
def test_the_work_grows_with_the_spec_and_not_faster(name: str) -> None:
    def all_of_it(n: int) -> None:
        made = explained(name, n)
        Console(file=io.StringIO(), width=80).print(render(made))
        made.to_svg()

    small, large = (calls(lambda n=n: all_of_it(n)) for n in (400, 1600))
    assert large <= 4.5 * small


@pytest.mark.parametrize("name", SPECS)
def test_an_explanation_grows_with_the_spec_and_not_faster(name: str) -> None:
    def characters(n: int) -> int:
        sources = explained(name, n).sources
        return sum(len(token.why) + 1 for source in sources for token in source.tokens) + sum(
            len(source.detail + source.note) for source in sources
        )

    # From where the limit on what is told is reached.
    assert characters(LEAST_TOLD // 2) <= 2.5 * characters(LEAST_TOLD // 4)


def test_the_values_are_checked_once_however_many_chunks_are_broken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checked, check = [], _explanation.check_spec
    monkeypatch.setattr(
        _explanation, "check_spec", lambda spec, **sizes: (checked.append(1), check(spec, **sizes))
    )
    made = explained("broken chunks", 100)
    assert len(checked) == 1
    assert (
        made.sources[99].tokens[0].why == "chunks[99, 2] + chunk_len = 12 must be <= block_size = 4"
    )


def test_c13_what_is_left_out_of_a_plan_is_counted() -> None:
    made = explained("whole chunks that each name all", 200)
    told = sum(len(source.tokens) for source in made.sources)
    left_out = sum(
        int(source.note.split()[0]) for source in made.sources if source.note.endswith("not told")
    )
    assert told == LEAST_TOLD
    assert told + left_out == 200 * 200
    assert made.sources[-1].note == "200 tokens not told"
    assert made.tokens[0].why == "200 chunks name it"
