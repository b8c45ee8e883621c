"""Running cases against a backend: one result a case, whatever the backend does."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, TypeAlias

from functional_paged import SlotMapping

from ..adapter import Adapter, CaseUnsupported, NoSuchMember, Traits, traits_of
from ..cases.case import Case
from ..cases.problem import Problem
from .call import Ask, Ended, Raised, here
from .compare import Mismatch
from .judges import JUDGES, Trial, Wrong

Status: TypeAlias = Literal[
    "pass", "fail", "xfail", "not-promised", "no-such-member", "cannot-express", "not-run"
]
"""What came of a case, of those that were asked for.

`xfail`: a failure that the backend's ledger knows. `not-promised`: a clause that the caller of this
kernel must see to. `no-such-member`: the adapter lacks the method that the case asks for.
`cannot-express`: the adapter says why the kernel cannot be given such a case. `not-run`: the ledger
or this machine says why not.
"""
Ending: TypeAlias = Literal["crashed", "hung", "raised after writing", "returned", "refused"]
"""How the call of a case ended, worst first. `refused`: it raised, and nothing was written."""

RAN: frozenset[Status] = frozenset({"pass", "fail", "xfail"})

LARGE_CASE_BYTES = 8 * 2**30
_REFUSALS = ("refuse", "apart", "check")


@dataclass(frozen=True)
class Result:
    """The result of one case.

    Attributes:
      case: the case.
      status: see `Status`.
      reason: why it failed or did not run. For a pass, what else is to be said of it, if anything.
      mismatch: the first wrong element, if the failure is one of bits.
      ledger: the ledger's reason and link, for a case that it names.
      clause: what a failure is charged to; the case's subject where that is not known better.
      ending: see `Ending`.
      suspect: whether what the backend did may outlast the case in its process: it raised an error
        that no check raises, or wrote where nobody may.
    """

    case: Case
    status: Status
    reason: str = ""
    mismatch: Mismatch | None = None
    ledger: str = ""
    clause: str = ""
    ending: Ending = "returned"
    suspect: bool = False

    def __post_init__(self) -> None:
        if not self.clause:
            object.__setattr__(self, "clause", self.case.clauses[0])


def run_case(adapter: Adapter, case: Case, *, ask: Ask = here) -> Result:
    """Run one case: in this process (`here`), or `in_a_fork` of it.

    An exception of the backend is a result of the case, not of the run.
    """
    traits = traits_of(adapter)
    left_to_the_caller = traits.left_to_the_caller(case)
    if left_to_the_caller is not None:
        return Result(case, "not-promised", left_to_the_caller)
    problem = case.build()
    free = free_bytes()
    if case.kind == "large" and free < LARGE_CASE_BYTES:  # the cache, and a backend's copies of it
        must = f"needs {LARGE_CASE_BYTES >> 30} GiB of free memory"
        return Result(case, "not-run", f"{must}, there are {free / 2**30:.1f}")
    reason = _other_slots(problem, traits)
    if reason is not None:
        return Result(case, "cannot-express", reason)
    try:
        JUDGES[case.kind](Trial(adapter, case, problem, ask))
    except CaseUnsupported as error:
        return Result(case, "cannot-express", str(error))
    except NoSuchMember as error:
        return Result(case, "no-such-member", str(error))
    except Ended as error:
        return Result(case, "fail", str(error), ending=error.ending)
    except Raised as error:
        return _refused(error, traits, case, problem)
    except Wrong as error:
        mismatch = error.what if isinstance(error.what, Mismatch) else None
        outside = mismatch is not None and mismatch.what.endswith(("guard", "buffer"))
        return Result(
            case,
            "fail",
            str(error),
            mismatch,
            clause=error.clause,
            ending="raised after writing" if error.raised else "returned",
            suspect=error.raised or outside,
        )
    return Result(case, "pass")


def _refused(error: Raised, traits: Traits, case: Case, problem: Problem) -> Result:
    """What an error means that was raised with nothing written."""
    clause = case.clauses[0]
    refusal = partial(Result, case, ending="refused", suspect=not error.is_spec_error)
    if case.kind in _REFUSALS:
        named = error.clause == clause
        if traits.strict and not named:
            return refusal("fail", f"must raise for {clause}, raised {error}")
        return refusal("pass", "" if named else f"refused without naming {clause}: {error}")
    by_value = case.kind in ("store", "large") and problem.invalid_by_value() is not None
    if by_value and not traits.strict:  # the caller's fault: not to store it, or to refuse it
        return refusal("pass", f"refused as invalid: {error}")
    return refusal("fail", f"raised with nothing written: {error}")


def _other_slots(problem: Problem, traits: Traits) -> str | None:
    if not isinstance(problem.index_spec, SlotMapping):
        return None
    dtype = problem.index_spec.slots.dtype.name
    if dtype not in ("int32", "int64") or dtype in traits.slot_dtypes:
        return None
    return f"its slots are {' or '.join(traits.slot_dtypes)}"


def free_bytes() -> int:
    """Memory that can be had: on Linux, that of cached files too."""
    told = Path("/proc/meminfo")
    found = re.search(r"MemAvailable:\s+(\d+) kB", told.read_text()) if told.exists() else None
    unused = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return int(found[1]) * 1024 if found else unused
