"""What each kind of case asks of an adapter, and what must come of it."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NoReturn

import numpy as np

from functional_paged import IndexSpec, reference

from ..adapter import Adapter, CaseUnsupported, NoSuchMember, traits_of
from ..bits import overwrite
from ..cases.case import Case, CaseKind
from ..cases.problem import Given, Problem
from ..cases.quantised import CODECS
from ..cases.walls import walled
from .call import Ask, Raised, Request, here
from .compare import Mismatch, compare, judge_large
from .sides import Side, sides_of


class Wrong(Exception):
    """Something that an adapter did, or raised, and must not have done.

    It is charged to a clause, where that is known whatever the case is about.
    """

    def __init__(self, what: Mismatch | str, clause: str = "", *, raised: bool = False):
        super().__init__(str(what))
        self.what, self.clause, self.raised = what, clause, raised


@dataclass(frozen=True)
class Trial:
    """One case, one adapter, and the way to ask it.

    Judges return where all is as it must be. They raise `Wrong`, or whatever `ask` raises; what an
    adapter raises after it has written is `Wrong`.
    """

    adapter: Adapter
    case: Case
    problem: Problem
    ask: Ask

    def call(self, member: str, *arguments: Any) -> Any:
        """Call a method, unless the adapter says that it cannot be given the case."""
        reason = self.adapter.unsupported(self.case)
        if not isinstance(reason, str | None):
            raise TypeError(f"unsupported() must return a str or None, got {reason!r}")
        if reason is not None:
            raise CaseUnsupported(reason)
        method = getattr(self.adapter, member, None)
        if method is None:
            raise NoSuchMember(f"the adapter has no {member}")
        return method(*arguments)

    def answer(
        self,
        member: str,
        *arguments: Any,
        spoil: Callable[[], None] = lambda: None,
        read: Callable[[Any], Any] = np.asarray,
    ) -> Any:
        """What a method answers, as arrays; `spoil` its inputs before they are read."""
        request = Request(lambda: self.call(member, *arguments), read=read)
        return self.ask(request, lambda _: spoil())

    def seen(self, cache: np.ndarray) -> np.ndarray:
        """A cache as the adapter sees it, and the other way round."""
        is_swapped = traits_of(self.adapter).order == "NHD" and cache.ndim == 4
        return cache.swapaxes(1, 2) if is_swapped else cache


def _store(trial: Trial) -> None:
    for sides in sides_of(trial.problem, trial.adapter):
        for side, returned in _stored(trial, "store", sides):
            _demand(side.judge(returned))


def _refuse(trial: Trial, member: str = "store") -> None:
    refusals = []
    for sides in sides_of(trial.problem, trial.adapter):
        try:
            _stored(trial, member, sides)
        except Raised as error:  # on one side; the other has to be looked at, too
            refusals.append(error)
        else:
            _raised_nothing(trial)
    raise refusals[-1]


def _transfer(trial: Trial) -> None:
    problem, order = trial.problem, traits_of(trial.adapter).order
    assert problem.source is not None
    spec, shape = problem.source
    read = Problem(shape or problem.cache_shape, problem.dtype, problem.states[:0], spec)
    # The cache to be read is a side that stores nothing; inside of one cache, a bystander.
    to, at = Side.of(problem, order, 1), Side.of(read, order, 3, "source ")
    cache, num_tokens = (at if shape else to).memory.cache, len(problem.states)
    rows = reference.load_single(cache, spec, num_tokens)
    to = replace(to, problem=replace(problem, states=rows))

    def call(dst: np.ndarray, src: np.ndarray) -> list[Any]:
        given = dst, to.given.index_spec, src if shape else dst, at.given.index_spec
        before = src.copy()
        return [trial.call("transfer", *given, num_tokens), before]

    for side, returned in _answers(trial, [to, at], call):
        _demand(side.judge(returned))


def _stored(trial: Trial, member: str, sides: list[Side]) -> list[tuple[Side, np.ndarray]]:
    """Have a step stored, by a method of one side or of two."""
    states = [side.given.states for side in sides]
    if len(sides) == 2 and member == "store":
        member = "store_pair"

    def call(*caches: np.ndarray) -> Any:
        returned = trial.call(member, *caches, *states, sides[0].given.index_spec)
        return returned if len(sides) == 2 else [returned]

    return _answers(trial, sides, call)


def _answers(
    trial: Trial, sides: list[Side], store: Callable[..., Any]
) -> list[tuple[Side, np.ndarray]]:
    """Have `store(*caches)` called; what came back for each side, its cache or another array."""
    caches = [trial.seen(side.memory.cache) for side in sides]
    is_refusal = trial.case.kind in ("refuse", "apart")

    def each(of_side: Callable[[Side, Any], Any], returned: Any) -> list[Any]:
        return [of_side(side, one) for side, one in zip(sides, returned, strict=True)]

    def between(outlines: list[Any]) -> None:
        for side, one in zip(sides, outlines, strict=True):
            if isinstance(one, str):
                raise Wrong(one, "" if is_refusal else "C17")
            if one is None:  # computed later: it must not need the cache that it was given
                _demand(side.touched("given cache"), "C17")
                overwrite(side.memory.buffer)
            _spoil(side.given)
        kept.extend(outlines)

    kept: list[Any] = []
    try:
        ways = partial(each, Side.outline), partial(each, Side.read)
        arrays = trial.ask(Request(partial(store, *caches), *ways), between)
    except (Raised, CaseUnsupported) as error:
        for side in sides:
            wrong = side.touched() or _changed(side.given)
            if wrong is not None and not kept:
                clause = "C17" if is_refusal else ""  # nothing is written that can be refused
                text = f"raised after writing: {error}; {wrong}"
                raise Wrong(text, clause, raised=True) from error
        raise
    stored = []
    for side, one, array in zip(sides, kept, arrays, strict=True):
        returned = side.rebuilt(one) if one is not None else array
        if one is None:
            side.memory.buffer[...] = side.before
        stored.append((side, trial.seen(returned)))
    return stored


def _check(trial: Trial) -> None:
    _accept(trial)
    _raised_nothing(trial)


def _accept(trial: Trial) -> None:
    given, shape = Given(trial.problem), trial.problem.cache_shape
    asked = given.index_spec, shape, len(trial.problem.states)
    trial.answer("check", *asked, spoil=lambda: _spoil(given), read=lambda _: None)


def _load(trial: Trial) -> None:
    problem, given = trial.problem, Given(trial.problem)
    memory, num_tokens = problem.guarded_cache(traits_of(trial.adapter).order), len(problem.states)
    want = reference.load_single(memory.cache, problem.index_spec, num_tokens)

    def spoil() -> None:
        _spoil(given)
        overwrite(memory.buffer)

    asked = trial.seen(memory.cache), given.index_spec, num_tokens
    loaded = trial.answer("load", *asked, spoil=spoil)
    _demand(compare("loaded", loaded, want, np.zeros_like(want)))


def _vjp(trial: Trial) -> None:
    problem, given = trial.problem, Given(trial.problem)
    cache = problem.guarded_cache(traits_of(trial.adapter).order).cache
    # Plain numbers: what arithmetic does to a NaN's payload is not what is tested.
    cotangent = (np.arange(cache.size) % 251 + 1).astype(problem.dtype).reshape(cache.shape)
    asked = trial.seen(cache), given.states, given.index_spec, trial.seen(cotangent.copy())
    d_cache, d_states = trial.answer("vjp", *asked, spoil=lambda: _spoil(given), read=_pair)
    # C22: stored slots keep nothing of the old cache, and their tokens take it.
    zeros = np.zeros_like(problem.states)
    want_cache = reference.store_single(cotangent, zeros, problem.index_spec)
    want_states = reference.load_single(cotangent, problem.index_spec, len(zeros))
    _demand(compare("d_cache", trial.seen(d_cache), want_cache, cotangent))
    _demand(compare("d_states", d_states, want_states, zeros))


def _encode(trial: Trial) -> None:
    problem, given = trial.problem, Given(trial.problem)
    codec, scale = CODECS[problem.codec], copy.copy(problem.scale)
    asked = given.states, scale, problem.codec
    payload, used = trial.answer("encode", *asked, spoil=lambda: _spoil(given, "Q9"), read=_pair)
    want_payload, want_scale = codec.encode(problem.states, problem.scale)
    # Where nothing is special about the states, a scale that is wrong is made in a wrong way.
    made = codec.scale == "absmax" and trial.case.clauses[0] not in ("Q4", "Q5", "Q8")
    wrong = compare("scale", used, want_scale, np.zeros_like(want_scale))
    _demand(wrong, "Q7" if made else "")
    _demand(compare("payload", payload, want_payload, np.zeros_like(want_payload)))


def _decode(trial: Trial) -> None:
    codec, name, dtype = CODECS[trial.problem.codec], trial.problem.codec, trial.problem.dtype
    pair = codec.encode(trial.problem.states, trial.problem.scale)
    want = codec.decode(*pair, dtype)
    states = trial.answer("decode", *map(np.copy, pair), name, dtype)
    _demand(compare("states", states, want, np.zeros_like(want)))


def _large(trial: Trial) -> None:
    problem, given = trial.problem, Given(trial.problem)
    size = problem.dtype.itemsize * math.prod(problem.cache_shape)
    memory = walled(size, shared=False)[:size].view(problem.dtype)
    shape = trial.seen(np.broadcast_to(memory[:1], problem.cache_shape)).shape
    cache = memory.reshape(shape)

    def read(returned: Any) -> Mismatch | None:  # judged where it is, too large to be passed on
        return judge_large(problem, trial.seen(np.asarray(returned)))

    asked = cache, given.states, given.index_spec
    _demand(trial.answer("store", *asked, spoil=lambda: _spoil(given), read=read))


def _small(trial: Trial) -> None:
    def call() -> str | None:
        for spec in (trial.problem.index_spec, *trial.problem.others):
            one = replace(trial, problem=replace(trial.problem, index_spec=spec), ask=here)
            try:
                _store(one)
            except (Wrong, Raised) as error:
                wrong = f"raised {error}" if isinstance(error, Raised) else error
                return f"{_in_words(spec)}: {wrong}"
        return None

    # All specs in one fork: each in its own would take minutes.
    wrong = trial.ask(Request(call, read=lambda text: text), lambda _: None)
    if wrong is not None:
        raise Wrong(wrong)


def _in_words(spec: IndexSpec) -> str:
    return ", ".join(f"{name} {array.tolist()}" for name, array in spec.arrays().items())


def _pair(returned: Any) -> tuple[np.ndarray, ...]:
    return tuple(map(np.asarray, returned))


def _raised_nothing(trial: Trial) -> NoReturn:
    raise Wrong(f"must raise for {trial.case.clauses[0]}, raised nothing")


def _demand(wrong: Mismatch | None, clause: str = "") -> None:
    if wrong is not None:
        raise Wrong(wrong, clause)


def _changed(given: Given) -> str | None:
    changed = "changed its states, what lies around them, or its index spec (C17)"
    return changed if given.changed() else None


def _spoil(given: Given, clause: str = "C17") -> None:
    """Overwrite the states and the index spec of a call, which must have left them alone."""
    wrong = _changed(given)
    if wrong is not None:
        raise Wrong(wrong, clause)
    given.overwrite()


JUDGES: dict[CaseKind, Callable[[Trial], None]] = {
    "store": _store,
    "refuse": _refuse,
    "apart": partial(_refuse, member="store_apart"),
    "check": _check,
    "accept": _accept,
    "load": _load,
    "transfer": _transfer,
    "vjp": _vjp,
    "large": _large,
    "small": _small,
    "encode": _encode,
    "decode": _decode,
}
