"""The suite is tested: each planted bug turns a case red that names the clause it breaks."""

from __future__ import annotations

import numpy as np
import pytest

from functional_paged.conformance import Case, all_cases, run_case
from functional_paged.conformance.cases.suite import large_cases
from tests.planted import BUGS, Bug, Loop

# What has gone wrong in stores before, and must be found at the least.
LEAST = {
    "OffByOneBlock": "off by one block",
    "SwapsHeadsAndHeadDim": "swapped axes",
    "NegativeSlotCountsFromTheEnd": "negative wrap",
    "WritesEverything": "writes everything",
    "WritesNothing": "writes nothing",
    "WritesANeighbourToo": "a neighbour write",
    "StopsAtAHole": "stop at hole",
    "ElementOffsetsIn32Bits": "truncated int32 offset",
    "WritesTheKeyToTheValueCache": "K written to V",
    "DropsTheLastColumn": "dropped last column",
    "RowsPassThroughFloats": "float round trip",
}


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_bug_is_caught_by_its_clause(bug: Bug) -> None:
    with np.errstate(all="ignore"):  # a warning must not be what fails the case
        results = [run_case(bug.loop, case) for case in cases_of(bug.clause)]
    failed = [result for result in results if result.status == "fail"]
    # Elsewhere, an exception is a fault of the planted code.
    caught = [r for r in failed if bug.raises or not r.reason.startswith("raised")]
    assert caught, f"no case of {bug.clause} catches {bug}"


def cases_of(clause: str) -> list[Case]:
    cases = [case for case in all_cases() if case.clauses[0] == clause]
    return cases or [case for case in large_cases() if case.clauses[0] == clause][:1]


def test_an_unbroken_copy_stays_green() -> None:
    loop = Loop()
    results = [run_case(loop, case) for case in all_cases()]
    failed = [result for result in results if result.status == "fail"]
    assert [(r.case.id, r.reason) for r in failed] == []


def test_every_clause_has_a_bug() -> None:
    assert {bug.clause for bug in BUGS} == {f"C{number}" for number in range(1, 23)}


def test_the_least_bugs_are_planted() -> None:
    assert LEAST.keys() <= {str(bug) for bug in BUGS}
