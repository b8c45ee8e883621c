"""Running a backend of which failures are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ..cases.case import Case
from .ledger import Ledger
from .run_case import Result
from .supervise import BackendRun, run_backend


def run_with_ledger(
    backend: str, cases: Sequence[Case], ledger: Ledger, **options: Any
) -> tuple[BackendRun, list[str]]:
    """Run cases, but for those that the ledger lists as not to be run.

    Args:
      backend: as `run_backend` takes it.
      cases: what to run.
      ledger: the backend's known failures, none as well.
      options: of `run_backend`.

    Returns:
      The run, known failures as `xfail`, in the order of the cases, and what contradicts the
      ledger.

    Raises:
      BackendNotFound: the backend cannot load.
    """
    to_run = [case for case in cases if not ledger.not_to_run(case)]
    run = run_backend(backend, to_run, **options)
    done = {result.case.id: result for result in run.results}
    results = [
        done.get(case.id) or Result(case, "unsupported", "not run: see the ledger")
        for case in cases
    ]
    known, errors = ledger.apply(results)
    return replace(run, results=tuple(known)), errors
