"""The kit's strategies give what they say: valid specs unless hostile, and then of both kinds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from functional_paged import IndexSpec, SpecError, check_spec, reference
from functional_paged.conformance import Problem, strategies
from functional_paged.conformance.strategies import Sizes

FORMS: dict[str, Callable[..., st.SearchStrategy[Any]]] = {
    "block_table": strategies.block_tables,
    "chunks": strategies.chunk_plans,
    "slots": strategies.slot_mappings,
    "any": strategies.index_specs,
}
SIZE = Sizes(num_blocks=4, block_size=3, num_tokens=6)


def broken(spec: IndexSpec, size: Sizes) -> str | None:
    """The clause that a spec breaks."""
    try:
        check_spec(spec, cache_shape=size.cache_shape(), num_tokens=size.num_tokens)
    except SpecError as error:
        return error.clause
    return None


@pytest.mark.parametrize("form", FORMS)
@given(data=st.data())
def test_what_is_not_hostile_is_valid(form: str, data: st.DataObject) -> None:
    size = data.draw(strategies.sizes())
    assert broken(data.draw(FORMS[form](size, hostile=False)), size) is None


@given(strategies.problems(hostile=False))
def test_problems_that_are_not_hostile_are_valid(problem: Problem) -> None:
    num_tokens = problem.states.shape[0]
    check_spec(problem.index_spec, cache_shape=problem.cache_shape, num_tokens=num_tokens)
    reference.store_single(problem.guarded_cache().cache, problem.states, problem.index_spec)


@pytest.mark.parametrize("form", ["block_table", "chunks", "slots"])
def test_what_is_not_hostile_still_stores_and_leaves_out(form: str) -> None:
    made = Counter[str]()

    @settings(max_examples=150, database=None, derandomize=True)
    @given(FORMS[form](SIZE, hostile=False))
    def look(spec: IndexSpec) -> None:
        stored = list(reference.stored_tokens(spec, SIZE.cache_shape(), SIZE.num_tokens))
        blocks = {block for _, block, _ in stored}
        made["stores"] += bool(stored)
        made["in several blocks"] += len(blocks) > 1
        made["leaves out"] += 0 < len(stored) < SIZE.num_tokens
        made["negative"] += any((array < 0).any() for array in spec.arrays().values())

    look()
    assert len(made) == 4, made
    assert min(made.values()) > 9, made


BREAKS = {
    "block_table": {"C11", "C12", "C15", "C21"},
    "chunks": {"C11", "C12", "C13"},
    "slots": {"C11", "C12", "C15"},
}


@pytest.mark.parametrize("form", BREAKS)
def test_what_is_hostile_is_valid_or_breaks_any_clause(form: str) -> None:
    made = Counter[str | None]()

    @settings(max_examples=600, database=None, derandomize=True)
    @given(FORMS[form](SIZE))
    def look(spec: IndexSpec) -> None:
        made[broken(spec, SIZE)] += 1

    look()
    assert made.keys() >= {None, *BREAKS[form]}, made
