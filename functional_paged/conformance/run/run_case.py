"""Running cases against a backend: one result a case, whatever the backend does."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from functional_paged import reference

from ..adapter import Adapter, CaseUnsupported
from ..bits import overwrite
from ..cases.case import Case, CaseKind
from ..cases.problem import Problem
from .compare import Mismatch, compare, judge_large, judge_store
from .words import in_words

Status: TypeAlias = Literal[
    "pass", "fail", "xfail", "not-promised", "no-such-member", "cannot-express", "not-run"
]
"""What came of a case, of those that were asked for.

`xfail`: a failure that the backend's ledger knows. `not-promised`: a clause that the caller of this
kernel must see to. `no-such-member`: the adapter lacks the method that the case asks for.
`cannot-express`: the adapter says why the kernel cannot be given such a case. `not-run`: the ledger
or this machine says why not.
"""
RAN: frozenset[Status] = frozenset({"pass", "fail", "xfail"})

LARGE_CASE_BYTES = 8 * 2**30


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
    """

    case: Case
    status: Status
    reason: str = ""
    mismatch: Mismatch | None = None
    ledger: str = ""
    clause: str = ""

    def __post_init__(self) -> None:
        if not self.clause:
            object.__setattr__(self, "clause", self.case.clauses[0])


def run_case(adapter: Adapter, case: Case) -> Result:
    """Run one case. An exception of the backend is a failure of the case, not of the run."""
    problem = case.build()
    try:
        reason = adapter.unsupported(case)
        if not isinstance(reason, str | None):
            return Result(case, "fail", f"unsupported() must return a str or None, got {reason!r}")
        member, judge = _JUDGES[case.kind]
        if reason is not None:
            return Result(case, "cannot-express", reason)
        if getattr(adapter, member, None) is None:
            return Result(case, "no-such-member", f"the adapter has no {member}")
        reason = _no_room(case)
        if reason is not None:
            return Result(case, "not-run", reason)
        wrong = judge(getattr(adapter, member), case, problem)
    except CaseUnsupported as error:
        return Result(case, "cannot-express", str(error))
    except (Exception, SystemExit) as error:  # whatever a backend raises is its result
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"({place.name}, line {place.lineno})"
        return Result(case, "fail", f"raised {in_words(error)} {where}")
    if wrong is None:
        return Result(case, "pass")
    mismatch = wrong if isinstance(wrong, Mismatch) else None
    return Result(case, "fail", str(wrong), mismatch)


def _store(store: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given, cache = problem.copy(), problem.guarded_cache()
    before = cache.buffer.copy()
    returned = store(cache.cache, given.states, given.index_spec)
    wrong = _overwritten(problem, given)
    if isinstance(returned, np.ndarray):
        return wrong or judge_store(problem, cache, before, returned)
    if not hasattr(returned, "__array__"):
        return f"must return a NumPy array, got {type(returned).__qualname__}"
    wrong = wrong or compare("given cache", cache.buffer, before, before)
    if wrong is not None:
        return wrong
    overwrite(cache.buffer)  # C17: a result that is computed only now must not need it
    returned, cache.buffer[...] = np.asarray(returned), before
    return judge_store(problem, cache, before, returned)


def _refuse(store: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given, cache = problem.copy(), problem.guarded_cache()
    before = cache.buffer.copy()
    wrong = _raises_for(case, lambda: store(cache.cache, given.states, given.index_spec))
    wrong = wrong or compare("buffer", cache.buffer, before, before)
    return wrong or _overwritten(problem, given)


def _raises_for(case: Case, call: Callable[[], object]) -> str | None:
    clause = case.clauses[0]
    try:
        call()
    except CaseUnsupported:
        raise
    except Exception as error:  # must be for the clause
        named = getattr(error, "clause", None) or str(error).partition(":")[0]
        return None if named == clause else f"must raise for {clause}, raised {in_words(error)}"
    return f"must raise for {clause}, raised nothing"


def _check(check: Any, case: Case, problem: Problem) -> str | None:
    return _raises_for(case, lambda: _accept(check, case, problem))


def _accept(check: Any, case: Case, problem: Problem) -> str | None:
    given = problem.copy()
    check(given.index_spec, problem.cache_shape, problem.states.shape[0])
    return _overwritten(problem, given)


def _load(load: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given, cache = problem.copy(), problem.guarded_cache()
    want = reference.load_single(cache.cache, problem.index_spec, len(problem.states))
    got = load(cache.cache, given.index_spec, len(problem.states))
    wrong = _overwritten(problem, given)
    overwrite(cache.buffer)
    return wrong or compare("loaded", np.asarray(got), want, np.zeros_like(want))


def _vjp(vjp: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given, cache = problem.copy(), problem.guarded_cache().cache
    # Plain numbers: what arithmetic does to a NaN's payload is not what is tested.
    cotangent = (np.arange(cache.size) % 251 + 1).astype(problem.dtype).reshape(cache.shape)
    d_cache, d_states = vjp(cache, given.states, given.index_spec, cotangent.copy())
    wrong = _overwritten(problem, given)
    # C22: stored slots keep nothing of the old cache, and their tokens take it.
    zeros = np.zeros_like(problem.states)
    want_cache = reference.store_single(cotangent, zeros, problem.index_spec)
    want_states = reference.load_single(cotangent, problem.index_spec, len(zeros))
    wrong = wrong or compare("d_cache", np.asarray(d_cache), want_cache, cotangent)
    return wrong or compare("d_states", np.asarray(d_states), want_states, zeros)


def _large(store: Any, case: Case, problem: Problem) -> Mismatch | str | None:
    given, cache = problem.copy(), np.zeros(problem.cache_shape, problem.dtype)
    returned = store(cache, given.states, given.index_spec)
    return _overwritten(problem, given) or judge_large(problem, np.asarray(returned))


def _small(store: Any, case: Case, problem: Problem) -> str | None:
    for spec in (problem.index_spec, *problem.others):
        try:
            wrong = _store(store, case, replace(problem, index_spec=spec))
        except CaseUnsupported:
            raise
        except Exception as error:  # as in `run_case`, with the spec
            wrong = f"raised {in_words(error)}"
        if wrong is not None:
            fields = (f"{name} {array.tolist()}" for name, array in spec.arrays().items())
            return f"{', '.join(fields)}: {wrong}"
    return None


def _overwritten(problem: Problem, given: Problem) -> str | None:
    """Overwrite the states and the index spec that an adapter was given (C17).

    Returns:
      What the adapter changed of them before, in words.
    """
    changed = given.bits() != problem.bits()
    given.overwrite()
    return "changed its states, what lies around them, or its index spec (C17)" if changed else None


_JUDGES: dict[CaseKind, tuple[str, Callable[[Any, Case, Problem], Mismatch | str | None]]] = {
    "store": ("store", _store),
    "refuse": ("store", _refuse),
    "apart": ("store_apart", _refuse),
    "check": ("check", _check),
    "accept": ("check", _accept),
    "load": ("load", _load),
    "vjp": ("vjp", _vjp),
    "large": ("store", _large),
    "small": ("store", _small),
}
"""The member of the adapter that a kind of case needs, and what is wrong with what that does."""


def _no_room(case: Case) -> str | None:
    """The reason why a cache of more than 2 GiB, and a backend's copies of it, do not fit."""
    free = free_bytes()
    if case.kind != "large" or free >= LARGE_CASE_BYTES:
        return None
    return f"needs {LARGE_CASE_BYTES >> 30} GiB of free memory, there are {free / 2**30:.1f}"


def free_bytes() -> int:
    """Memory that nothing uses."""
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
