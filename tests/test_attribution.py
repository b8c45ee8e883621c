"""A failure is charged to its cause: a control that failed, the kind of error, or the subject."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from functional_paged.conformance import Mismatch, Result
from functional_paged.conformance.cases.suite import find_case
from functional_paged.conformance.run.attribution import attributed
from functional_paged.conformance.run.compare import compare

SIZE = "bf16/n7_h2_s16_d128"
PREFILL, HOLE, ROWS, MANY, HUGE = (
    find_case(f"{name}/block_table/{SIZE}")
    for name in ("c5_prefill", "c8_hole", "c6_padded_rows", "c5_many_rows", "c5_huge_context")
)
ODD = find_case("c8_hole/block_table/bf16/n5_h7_s33_d64")
SAVED = Mismatch("cache", (0,), "0x1", "0x2", written=False, count=1)


def charged(*results: Result) -> list[str]:
    return [result.clause for result in attributed(results)]


def test_a_failure_is_charged_to_the_subject_where_nothing_says_more() -> None:
    assert charged(Result(HOLE, "fail", "x")) == ["C8"]
    assert charged(Result(PREFILL, "pass"), Result(HOLE, "fail", "x")) == ["C5", "C8"]


@pytest.mark.parametrize("status", ["fail", "xfail"])
def test_a_failure_behind_a_control_that_failed_is_charged_with_it(status) -> None:
    control = Result(PREFILL, status, "x", replace(SAVED, clause="C16"))
    assert charged(Result(HOLE, "fail", "x"), control) == ["C16", "C16"]


def test_a_control_that_was_not_run_passes_its_own_controls_on() -> None:
    for between in ((), (Result(find_case(ODD.controls[0]), "cannot-express", "x"),)):
        results = (Result(PREFILL, "fail", "x"), Result(ODD, "fail", "x"), *between)
        assert charged(*results)[:2] == ["C5", "C5"]


def test_a_case_of_two_clauses_is_charged_to_the_one_that_fails_alone() -> None:
    many = Result(MANY, "fail", "x", replace(SAVED, clause="C16"))
    assert charged(many, Result(ROWS, "fail", "x")) == ["C6", "C6"]
    assert charged(many, Result(ROWS, "pass"))[0] == "C5"


def test_the_kind_of_error_decides_c17_anywhere_and_c16_where_only_places_are_asked() -> None:
    for clause, expected in (("C17", ["C17"] * 3), ("C16", ["C16", "C8", "C5"])):
        failed = [
            charged(Result(case, "fail", "x", replace(SAVED, clause=clause)))[0]
            for case in (PREFILL, HOLE, HUGE)
        ]
        assert failed == expected
    assert charged(Result(HOLE, "fail", "changed its states", clause="C17")) == ["C17"]


def test_attribution_twice_is_attribution_once() -> None:
    results = [Result(case, "fail", "x") for case in (HOLE, ROWS, MANY, PREFILL, ODD)]
    once = attributed(results)
    assert attributed(once) == once


def test_rows_that_came_for_the_most_part_are_told_from_rows_that_did_not() -> None:
    before = np.zeros((2, 2, 2, 4), np.int8)
    want = before.copy()
    want[1, :, 0], want[0, :, 1] = 5, 6
    half, stray, missing = want.copy(), want.copy(), want.copy()
    half[1, 1, 0], stray[0, 0, 0, 0], missing[1, :, 0] = 0, 7, 0
    clauses = [compare("cache", got, want, before).clause for got in (half, stray, missing)]
    assert clauses == ["C16", "C16", ""]
    half[1, 0, 0, 0] = 9  # less than half of this row
    assert compare("cache", half, want, before).clause == ""
