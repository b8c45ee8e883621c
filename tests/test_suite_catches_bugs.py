"""The suite is tested: each planted bug turns a case red that names the clause it breaks."""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial

import numpy as np
import pytest

from functional_paged.conformance import all_cases, run_case
from functional_paged.conformance.cases.suite import large_cases
from functional_paged.conformance.run.attribution import attributed
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


# Each problem is built once for all bugs; caches of one size have one pattern.
CASES = [replace(case, build=cache(case.build)) for case in all_cases()]
CASES.sort(key=lambda case: case.id.split("/")[2:])


@pytest.mark.parametrize("bug", BUGS, ids=str)
def test_bug_is_caught_by_its_clause_and_no_other(bug: Bug) -> None:
    large = large_cases()[:1] if bug.clause == "C19" else ()
    with np.errstate(all="ignore"):  # a warning must not be what fails the case
        results = attributed(run_case(bug.loop, case) for case in (*CASES, *large))
    failed = [result for result in results if result.status == "fail"]
    others = {result.case.id: result.clause for result in failed if result.clause != bug.clause}
    assert others == {}
    # Elsewhere, an exception is a fault of the planted code.
    caught = [r for r in failed if bug.raises or not r.reason.startswith("raised")]
    assert caught, f"no case of {bug.clause} catches {bug}"


def test_an_unbroken_copy_stays_green() -> None:
    loop = Loop()
    failed = [result for result in map(partial(run_case, loop), CASES) if result.status == "fail"]
    assert [(r.case.id, r.reason) for r in failed] == []


def test_every_clause_has_a_bug() -> None:
    assert {bug.clause for bug in BUGS} == {f"C{number}" for number in range(1, 23)}


def test_the_least_bugs_are_planted() -> None:
    assert LEAST.keys() <= {str(bug) for bug in BUGS}
