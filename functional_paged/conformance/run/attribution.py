"""What a failure is charged to: one cause, one red clause."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from ..cases.case import Case
from ..cases.suite import find_case
from .run_case import Result

FAILED = ("fail", "xfail")


def attributed(results: Iterable[Result]) -> list[Result]:
    """The results of one backend's run, each failure charged to the clause that caused it.

    Where a control of a case failed, the case is charged with what that one is: it tells nothing
    of its own clause. A control that was not run says nothing, but its own controls do. Otherwise
    the kind of error decides, as `Mismatch.clause` has it: an input or the type of the result, in
    any case; rows that came, and yet not bit for bit, where a case asks only where they go (C5).
    Else it is the case's subject.
    """
    results = list(results)
    by_id = {result.case.id: result for result in results}
    return [
        replace(result, clause=_charged(result, by_id)) if result.status in FAILED else result
        for result in results
    ]


def _charged(result: Result, by_id: Mapping[str, Result]) -> str:
    clauses = result.case.clauses
    before = _charged_before(result.case, by_id)
    if before is not None:
        return before
    if clauses[0].startswith("Q"):
        return result.clause
    found = (result.mismatch and result.mismatch.clause) or result.clause
    known = found == "C17" or (found == "C16" and clauses == ("C5",))
    return found if known else clauses[0]


def _charged_before(case: Case, by_id: Mapping[str, Result]) -> str | None:
    """What the first of a case's controls that failed is charged to."""
    for control in case.controls:
        result = by_id.get(control)
        if result is not None and result.status in FAILED:
            return _charged(result, by_id)
        if result is None or result.status != "pass":
            before = _charged_before(find_case(control), by_id)
            if before is not None:
                return before
    return None
