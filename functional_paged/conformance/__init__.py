"""The check that a backend does what `docs/spec.md` says, bit for bit."""

from ._adapter import Adapter, BackendNotFound, CaseUnsupported, find_adapter
from ._case import Case
from ._cases import all_cases
from ._problem import Problem
from ._run import Result, run_case, run_cases
from ._supervise import BackendRun, run_backend
from ._verdict import Mismatch

__all__ = [
    "Adapter",
    "BackendNotFound",
    "BackendRun",
    "Case",
    "CaseUnsupported",
    "Mismatch",
    "Problem",
    "Result",
    "all_cases",
    "find_adapter",
    "run_backend",
    "run_case",
    "run_cases",
]
