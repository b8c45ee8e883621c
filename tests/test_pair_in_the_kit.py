"""A pair of caches in one call, through the quick cases of the kit: each side is judged."""

import pytest

from functional_paged.conformance import all_cases, run_backend


@pytest.mark.parametrize("backend", ["torch", "numba"])
def test_a_pair_in_the_quick_cases_of_the_kit(backend):
    cases = [case for case in all_cases() if case.quick]
    run = run_backend(f"bridges.conformance_adapters:{backend}_pair", cases)
    assert {result.case.id for result in run.results if result.status == "pass"} == {
        case.id for case in cases if case.kind != "vjp"
    }
