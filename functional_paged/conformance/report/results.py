"""The results of a run as data, to the published schema `report.schema.json`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from functional_paged.internal import CLAUSES, SPEC_VERSION

from ..cases.case import Case
from ..run.run_case import Result
from ..run.supervise import BackendRun

SCHEMA_VERSION = 3


def report(runs: Sequence[BackendRun]) -> dict[str, Any]:
    """The results of runs over the same cases, one a backend, ready for JSON."""
    cases = [result.case for result in runs[0].results] if runs else []
    return {
        "schema_version": SCHEMA_VERSION,
        "suite_version": version("functional-paged"),
        "spec_version": SPEC_VERSION,
        "clauses": [asdict(clause) for clause in CLAUSES],
        "cases": [_case(case) for case in cases],
        "backends": [_backend(run) for run in runs],
    }


TWINS, TWINS_TITLE = "twins", "valid, and one change away from an invalid case"
"""The row of such cases, and what it says in place of a clause's title."""


def row_of(result: Result) -> str:
    """Where a result counts: for its clause, but for a twin that did not fail."""
    failed = result.status in ("fail", "xfail")
    return TWINS if result.case.twin and not failed else result.clause


def counts_of(results: Iterable[Result], row: str | None = None) -> dict[str, int]:
    """How many results have each status, of one row or of all."""
    return dict(Counter(r.status for r in results if row is None or row_of(r) == row))


def _backend(run: BackendRun) -> dict[str, Any]:
    return {
        "name": run.name,
        "info": run.info,
        "promises": [{"of": of, "caller": caller} for of, caller in run.promises.items()],
        "counts": counts_of(run.results),
        "by_clause": {clause.id: counts_of(run.results, clause.id) for clause in CLAUSES},
        TWINS: counts_of(run.results, TWINS),
        "results": [_result(result) for result in run.results],
    }


def _case(case: Case) -> dict[str, Any]:
    told = {name: getattr(case, name) for name in ("id", "about", "link", "kind", "twin")}
    shape = list(case.build().cache_shape)
    return {**told, "clauses": list(case.clauses), "cache_shape": shape}


def _result(result: Result) -> dict[str, Any]:
    names = ("status", "clause", "ending", "reason", "ledger")
    told = {name: getattr(result, name) for name in names}
    return {"id": result.case.id, **told, "mismatch": result.mismatch and asdict(result.mismatch)}
