"""The check that a backend does what `docs/spec.md` says, bit for bit."""

from .adapter import (
    Adapter,
    BackendNotFound,
    CaseUnsupported,
    FullAdapter,
    Traits,
    find_adapter,
)
from .cases.case import Case
from .cases.guarded_cache import LAYOUTS, GuardedCache
from .cases.problem import Problem
from .cases.scenarios import example_steps
from .cases.steps import Step
from .cases.suite import all_cases
from .run.compare import Mismatch
from .run.run_case import Result, run_case
from .run.supervise import BackendRun, run_backend

__all__ = [
    "LAYOUTS",
    "Adapter",
    "BackendNotFound",
    "BackendRun",
    "Case",
    "CaseUnsupported",
    "FullAdapter",
    "GuardedCache",
    "Mismatch",
    "Problem",
    "Result",
    "Step",
    "Traits",
    "all_cases",
    "example_steps",
    "find_adapter",
    "run_backend",
    "run_case",
]
