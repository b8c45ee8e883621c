"""Running cases against a backend: one result a case, whatever the backend does."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from functional_paged import IndexSpec, reference

from ..adapter import Adapter, CaseUnsupported
from ..cases.case import Case
from ..cases.problem import Problem
from .compare import Mismatch, compare, judge_large, judge_store

Status: TypeAlias = Literal["pass", "fail", "xfail", "unsupported"]
"""`xfail`: a failure that the backend's ledger knows. What was not asked for is untested."""


LARGE_CASE_BYTES = 8 * 2**30


@dataclass(frozen=True)
class Result:
    """What came of one case.

    Attributes:
      case: the case.
      status: see `Status`.
      reason: why it failed or is unsupported; empty for a pass.
      mismatch: the first wrong element, if the failure is one of bits.
      ledger: the ledger's reason and link, for a case that it names.
    """

    case: Case
    status: Status
    reason: str = ""
    mismatch: Mismatch | None = None
    ledger: str = ""


def run_cases(adapter: Adapter, cases: Iterable[Case]) -> Iterator[Result]:
    """Run each case and yield its result."""
    for case in cases:
        yield run_case(adapter, case)


def run_case(adapter: Adapter, case: Case) -> Result:
    """Run one case. An exception of the backend is a failure of the case, not of the run."""
    reason = adapter.unsupported(case) or _lacks(adapter, case) or _no_room(case)
    if reason is not None:
        return Result(case, "unsupported", reason)
    problem = case.build()
    spec_before, states_before = _bits_of(problem)
    try:
        wrong = _JUDGES[case.kind](adapter, case, problem)
    except CaseUnsupported as error:
        return Result(case, "unsupported", str(error))
    except Exception as error:  # whatever a backend raises is its result
        place = traceback.extract_tb(error.__traceback__)[-1]
        return Result(case, "fail", f"raised {error!r} ({place.name}, line {place.lineno})")
    if wrong is None and (spec_before, states_before) != _bits_of(problem):
        wrong = "changed its states, what lies around them, or its index spec (C17)"
    if wrong is None:
        return Result(case, "pass")
    mismatch = wrong if isinstance(wrong, Mismatch) else None
    return Result(case, "fail", str(wrong), mismatch)


def _store(adapter: Adapter, case: Case, problem: Problem) -> Mismatch | str | None:
    given = problem.guarded_cache()
    before = given.buffer.copy()
    returned = adapter.store(given.cache, problem.states, problem.index_spec)
    if not isinstance(returned, np.ndarray):
        return f"must return a NumPy array, got {type(returned).__qualname__}"
    return judge_store(problem, given, before, returned)


def _refuse(adapter: Adapter, case: Case, problem: Problem) -> Mismatch | str | None:
    return _refused_by(adapter.store, case, problem)


def _apart(adapter: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    return _refused_by(adapter.store_apart, case, problem)


def _refused_by(store: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given = problem.guarded_cache()
    before = given.buffer.copy()
    wrong = _raises_for(
        case.clauses[0], lambda: store(given.cache, problem.states, problem.index_spec)
    )
    return wrong or compare("buffer", given.buffer, before, before)


def _raises_for(clause: str, call: Callable[[], object]) -> str | None:
    try:
        call()
    except CaseUnsupported:
        raise
    except Exception as error:  # must be for the clause
        named = getattr(error, "clause", None) or str(error).partition(":")[0]
        return None if named == clause else f"must raise for {clause}, raised {error!r}"
    return f"must raise for {clause}, raised nothing"


def _check(adapter: Any, case: Case, problem: Problem) -> str | None:
    return _raises_for(case.clauses[0], lambda: _accept(adapter, case, problem))


def _accept(adapter: Any, case: Case, problem: Problem) -> None:
    adapter.check(problem.index_spec, problem.cache_shape, problem.states.shape[0])


def _load(adapter: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    cache, num_tokens = problem.guarded_cache().cache, problem.states.shape[0]
    got = adapter.load(cache, problem.index_spec, num_tokens)
    want = reference.load_single(cache, problem.index_spec, num_tokens)
    return compare("loaded", got, want, np.zeros_like(want))


def _vjp(adapter: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    cache = problem.guarded_cache().cache
    # Plain numbers: what arithmetic does to a NaN's payload is not what is tested.
    cotangent = (np.arange(cache.size) % 251 + 1).astype(problem.dtype).reshape(cache.shape)
    d_cache, d_states = adapter.vjp(cache, problem.states, problem.index_spec, cotangent)
    # C22: stored slots keep nothing of the old cache, and their tokens take it.
    zeros = np.zeros_like(problem.states)
    want_cache = reference.store_single(cotangent, zeros, problem.index_spec)
    want_states = reference.load_single(cotangent, problem.index_spec, len(zeros))
    return compare("d_cache", d_cache, want_cache, cotangent) or compare(
        "d_states", d_states, want_states, zeros
    )


def _large(adapter: Adapter, case: Case, problem: Problem) -> Mismatch | str | None:
    cache = np.zeros(problem.cache_shape, problem.dtype)
    return judge_large(problem, adapter.store(cache, problem.states, problem.index_spec))


_JUDGES = {
    "store": _store,
    "refuse": _refuse,
    "apart": _apart,
    "check": _check,
    "accept": _accept,
    "load": _load,
    "vjp": _vjp,
    "large": _large,
}
_NEEDS = {"apart": "store_apart", "check": "check", "accept": "check", "load": "load", "vjp": "vjp"}


def _lacks(adapter: Adapter, case: Case) -> str | None:
    member = _NEEDS.get(case.kind)
    if member is None or hasattr(adapter, member):
        return None
    return f"the adapter has no {member}"


def _no_room(case: Case) -> str | None:
    """Why a cache of more than 2 GiB, and the copies that a backend makes of it, do not fit."""
    if case.kind != "large":
        return None
    free = free_bytes()
    if free >= LARGE_CASE_BYTES:
        return None
    return f"needs {LARGE_CASE_BYTES >> 30} GiB of free memory, there are {free / 2**30:.1f}"


def free_bytes() -> int:
    """Memory that nothing uses."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _bits_of(problem: Problem) -> tuple[list[bytes], bytes]:
    spec: IndexSpec = problem.index_spec
    states = problem.states
    # Strided states have a neighbourhood, which is not a backend's to write to either.
    memory = states if states.base is None else states.base
    return [x.tobytes() for x in spec.arrays().values()], memory.tobytes()
