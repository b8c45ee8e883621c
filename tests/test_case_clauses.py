"""A case puts one clause to the test; what else a store needs to pass it, the case says."""

from __future__ import annotations

import numpy as np
import pytest

from functional_paged import BlockTable, ChunkPlan, SlotMapping, SpecError, check_spec, reference
from functional_paged.conformance import Case, all_cases
from functional_paged.conformance.bits import DTYPES, as_bits, short_name
from functional_paged.conformance.cases.suite import find_case, large_cases, shape_cases

CASES = (*all_cases(), *large_cases())
VALID_KINDS = ("store", "accept", "load", "transfer", "vjp", "large")
CODEC_KINDS = ("encode", "decode")
SHAPES_ASKED_FOR = [(1, 1, 1), (2, 16, 64), (8, 64, 80), (3, 2, 7), (1, 257, 5)]


def decided(spec, shape, num_tokens) -> set[str]:
    """The clauses that decide something of a store, counted apart from the kit's own way."""
    num_blocks, _, block_size, _ = shape
    found, named = set(), []

    def name(token, block, offset, negative):
        if token >= num_tokens:
            found.add("C11")
        elif block < 0:
            found.add(negative)
        elif block >= num_blocks:
            found.add("C12")
        named.append(token)

    if isinstance(spec, BlockTable):
        contexts = spec.context_kv_lens.tolist()
        cu = range(len(contexts) + 1) if spec.cu_q_lens is None else spec.cu_q_lens.tolist()
        if cu[0] != 0 or any(cu[row + 1] < cu[row] for row in range(len(contexts))):
            return {"C21"}
        for row, context in enumerate(contexts):
            found |= {"C6"} if context < 0 else set()
            found |= {"C7"} if cu[row] == cu[row + 1] else set()
            for token in range(cu[row], cu[row + 1]):
                column, offset = divmod(context + token - cu[row], block_size)
                if context < 0:
                    named.append(token)
                elif column >= spec.block_table.shape[1] and token < num_tokens:
                    found.add("C9")
                    named.append(token)
                else:
                    past = column >= spec.block_table.shape[1]
                    name(token, 0 if past else int(spec.block_table[row, column]), offset, "C8")
    elif isinstance(spec, ChunkPlan):
        for start, block, offset, length in spec.chunks.tolist():
            if min(start, offset, length) < 0 or length == 0 or offset + length > block_size:
                found.add("C13")
                tokens = range(max(start, 0), start + min(length, 300)) if length > 0 else ()
                found |= {"C11"} if start + length > num_tokens and length > 0 else set()
                named += [token for token in tokens if token < num_tokens]
            else:
                for i in range(length):
                    name(start + i, block, offset + i, "C13")
        if len(set(named)) < len(named):
            found.add("C13")
    else:
        assert isinstance(spec, SlotMapping)
        if spec.slots.dtype == np.int64:
            found.add("C4")
        for token, slot in enumerate(spec.slots.tolist()):
            found |= {"C11"} if token >= num_tokens else set()
            found |= {"C14"} if slot < 0 else set()
            name(token, slot // block_size, slot % block_size, "C14")
    if set(range(num_tokens)) - set(named):
        found.add("C10")
    if num_tokens == 0 or any(array.size == 0 for array in spec.arrays().values()):
        found.add("C18")
    places = [place[1:] for place in reference.stored_tokens(spec, shape, num_tokens)]
    return found | ({"C15"} if len(set(places)) < len(places) else set())


def problem_of(case: Case):
    problem = case.build()
    return problem.index_spec, problem.cache_shape, len(problem.states)


@pytest.mark.parametrize("asked", [None, *SHAPES_ASKED_FOR], ids=str)
def test_a_case_says_what_it_needs_besides_its_subject(asked) -> None:
    for case in CASES if asked is None else shape_cases(asked):
        subject, *others = case.clauses
        if case.kind in VALID_KINDS:
            assert set(others) == decided(*problem_of(case)) - {subject}, case.id


def test_a_spec_that_needs_nothing_stores_every_token_in_a_place_of_its_own() -> None:
    plain = [case for case in CASES if case.kind == "store" and set(case.clauses) <= {"C5", "C16"}]
    assert len(plain) > 80
    for case in plain:
        spec, shape, num_tokens = problem_of(case)
        places = list(reference.stored_tokens(spec, shape, num_tokens))
        assert sorted(token for token, _, _ in places) == list(range(num_tokens)), case.id
        assert len({place[1:] for place in places}) == num_tokens, case.id


def test_an_invalid_spec_breaks_its_subject_alone() -> None:
    for case in CASES:
        if case.kind in ("refuse", "apart"):
            continue
        spec, shape, num_tokens = problem_of(case)
        broken = None
        try:
            check_spec(spec, cache_shape=shape, num_tokens=num_tokens)
        except SpecError as error:
            broken = error.clause
        assert (broken is None) if case.twin else broken in (None, case.clauses[0]), case.id
        if case.kind == "check":
            assert broken == case.clauses[0], case.id


def test_a_name_begins_with_the_subject_but_for_forms_made_of_a_table() -> None:
    for case in CASES:
        name, form = case.id.split("/")[:2]
        if name.partition("_")[0].upper() != case.clauses[0]:
            assert form in ("chunks", "slots"), case.id
            assert case.clauses[0] in ("C5", "C10", "C14", "C15"), case.id


def test_special_bits_are_where_they_are_asked_for() -> None:
    for case in all_cases():
        problem = case.build()
        if case.kind != "store" or problem.dtype not in map(DTYPES.get, _FLOATS):
            continue
        if "smollm2" in case.id or case.id.startswith(("c16_nan_payloads", "c16_every_bit")):
            continue
        for array in (problem.states, problem.guarded_cache().cache):
            numbers = np.abs(array.astype(np.float64))
            assert np.isfinite(numbers).all(), case.id
            assert (numbers > 0).all(), case.id
            exponents = as_bits(array) & _EXPONENTS[short_name(problem.dtype)]
            assert (exponents != 0).all(), f"{case.id}: a subnormal"


_FLOATS = ("f32", "f16", "bf16", "f8e4m3fn", "f8e5m2")
_EXPONENTS = dict(zip(_FLOATS, (0x7F800000, 0x7C00, 0x7F80, 0x78, 0x7C), strict=True))


def test_nan_payloads_are_stored_and_left_alone() -> None:
    for dtype in _FLOATS:
        for form in ("block_table", "chunks", "slots"):
            problem = find_case(f"c16_nan_payloads/{form}/{dtype}").build()
            for array in (problem.states, problem.guarded_cache().cache):
                with np.errstate(invalid="ignore"):
                    assert np.isnan(array.astype(np.float64)).sum() > array.size // 4


def test_controls_are_more_basic_cases_of_the_same_form() -> None:
    by_id = {case.id: case for case in CASES}
    for sizes in SHAPES_ASKED_FOR:
        by_id |= {case.id: case for case in shape_cases(sizes)}

    def chain(case: Case, behind: tuple[str, ...] = ()) -> set[str]:
        assert case.id not in behind, f"a circle: {behind}"
        found = {case.id}
        for control in case.controls:
            found |= chain(by_id[control], (*behind, case.id))
        return found

    for case in by_id.values():
        form = case.id.split("/")[1]
        basic = chain(case) - {case.id}
        assert all(control.split("/")[1] == form for control in basic), case.id
        if case.kind in ("store", "load", "transfer", "vjp", "large"):
            first = f"c5_prefill/{form}/bf16/n7_h2_s16_d128"
            assert first in basic or case.id == first, case.id
        needed = {by_id[control].clauses[0] for control in basic} | {"C11", "C18", "C12", "C13"}
        if case.kind == "store":
            assert set(case.clauses[1:]) <= needed, case.id
        for control in basic:
            valid = by_id[control].kind in (*VALID_KINDS, *CODEC_KINDS)
            assert valid, f"{case.id}: {control} is not of a kind that a store can pass"


def test_ids_of_any_shape_are_found_without_a_list() -> None:
    for case in shape_cases((2, 16, 80)):
        assert find_case(case.id).clauses == case.clauses
    assert find_case("c8_hole/block_table/i8/n9_h1_s2_d3").build().cache_shape == (9, 1, 2, 3)
    for wrong in ("c8_hole/block_table/i9/n9_h1_s2_d3", "c8_hole/slots/i8/n9_h1_s2", "c99/a/i8/b"):
        with pytest.raises(KeyError):
            find_case(wrong)
