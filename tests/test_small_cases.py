"""The small cases have every small spec, each stored, and name the first wrong one."""

from __future__ import annotations

import sys
from collections import Counter

import pytest

from functional_paged import reference
from functional_paged.conformance import Case, find_adapter, run_case
from functional_paged.conformance.cases.small_scopes import SCOPES
from functional_paged.conformance.cases.suite import (
    every_case,
    find_case,
    large_cases,
    small_cases,
)
from tests.helpers import command_line

FORMS = ("block_table", "chunks", "slots")


def test_every_small_spec_is_in_one_case() -> None:
    counts = Counter[str]()
    for case in small_cases():
        problem = case.build()
        counts[problem.index_spec.form] += 1 + len(problem.others)
    assert counts == {form: sum(map(len, SCOPES[form]())) for form in FORMS}
    assert len({case.id for case in every_case()}) == len(every_case())


class Wrong:
    """Takes one spec of its form for another."""

    name = "wrong"

    def __init__(self, field: str, values: list) -> None:
        self.field, self.values, self.seen = field, values, 0

    def unsupported(self, case: Case) -> str | None:
        return None

    def store(self, cache, states, index_spec):
        self.seen += 1
        stored = reference.store_single(cache, states, index_spec)
        if index_spec.arrays()[self.field].tolist() == self.values:
            stored[-1, -1, -1] = states[0, -1]
        return stored


def a_case(form: str) -> Case:
    """A case of a form, with specs enough."""
    cases = [case for case in small_cases() if case.id.startswith(f"small/{form}/n1_s2_t2_")]
    return min(
        (c for c in cases if len(c.build().others) > 20), key=lambda c: len(c.build().others)
    )


def test_the_reference_passes_in_each_form() -> None:
    for form in FORMS:
        assert run_case(find_adapter("reference"), a_case(form)).status == "pass"


def test_the_first_wrong_spec_is_named_with_its_first_wrong_bits() -> None:
    for form, field in zip(FORMS, ("block_table", "chunks", "slots"), strict=True):
        case = a_case(form)
        specs = (case.build().index_spec, *case.build().others)
        values = specs[-1].arrays()[field].tolist()
        result = run_case(Wrong(field, values), case)
        assert result.status == "fail"
        assert f"{field} {values}" in result.reason
        assert ": cache[0, 1, 1, 0] was to be " in result.reason


def test_what_a_spec_raises_is_told_with_the_spec() -> None:
    class Raises(Wrong):
        def store(self, cache, states, index_spec):
            raise RuntimeError("no such luck")

    case = a_case("slots")
    result = run_case(Raises("slots", []), case)
    spec = case.build().index_spec
    told = f"slots {spec.arrays()['slots'].tolist()}: raised RuntimeError: no such luck (store, "
    assert result.reason.startswith(told)


def test_the_command_line_has_them_on_demand() -> None:
    listed = command_line("check", "--list", "--small", "--cases", "small/*").stdout.split()
    assert listed == [case.id for case in small_cases()]
    assert all(find_case(case_id).id == case_id for case_id in listed)
    assert command_line("check", "--list", "--cases", "small/*").stdout.split() == []


def test_a_large_case_is_not_run_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[run_case.__module__], "free_bytes", lambda: 15 * 2**29)
    result = run_case(find_adapter("reference"), large_cases()[0])
    assert (result.status, result.reason) == (
        "not-run",
        "needs 8 GiB of free memory, there are 7.5",
    )
    assert (
        run_case(find_adapter("reference"), find_case("c8_hole/slots/bf16/n5_h7_s33_d64")).status
        == "pass"
    )
