"""C17: a store depends on its inputs as they were given, not as they are when it gets to them."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from functional_paged import PAD, IndexSpec, reference
from functional_paged.conformance import Case, run_case
from functional_paged.conformance.cases.problem import Given
from functional_paged.conformance.cases.suite import all_cases, find_case

CASE = find_case("c17_inputs/slots")


class Right:
    """A store whose result is computed from copies, when somebody looks at it."""

    name = "late"

    def unsupported(self, case: Case) -> str | None:
        return None

    def store(self, cache, states, index_spec):
        return Lazy(cache.copy(), states.copy(), index_spec.map(np.copy))

    def load(self, cache, index_spec, num_tokens):
        return LazyLoad(cache.copy(), index_spec.map(np.copy), num_tokens)


class Lazy:
    store = staticmethod(reference.store_single)

    def __init__(self, *arguments):
        self.arguments = arguments

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        return self.store(*self.arguments)


class LazyLoad(Lazy):
    store = staticmethod(reference.load_single)


class LateCache(Right):
    def store(self, cache, states, index_spec):
        return Lazy(cache, states.copy(), index_spec.map(np.copy))


class LateStates(Right):
    def store(self, cache, states, index_spec):
        return Lazy(cache.copy(), states, index_spec.map(np.copy))


class LateSpec(Right):
    def store(self, cache, states, index_spec):
        return Lazy(cache.copy(), states.copy(), index_spec)


class WritesFromAThread(Right):
    """Returns while another thread still has to read states and write the cache."""

    def store(self, cache, states, index_spec):
        def work() -> None:
            self.go_on.wait(30)
            cache[...] = reference.store_single(cache, states, index_spec)
            self.done.set()

        self.go_on, self.done = threading.Event(), threading.Event()
        threading.Thread(target=work).start()
        return cache


class WritesInPlaceAndReturnsAnother(Right):
    def store(self, cache, states, index_spec):
        cache[...] = reference.store_single(cache, states, index_spec)
        return Lazy(cache.copy(), states.copy(), index_spec.map(np.copy))


@pytest.mark.parametrize(
    "adapter", [LateCache(), LateStates(), LateSpec()], ids=lambda a: type(a).__name__
)
def test_c17_a_late_reader_is_caught(adapter: Right) -> None:
    assert run_case(Right(), CASE).status == "pass"
    result = run_case(adapter, CASE)
    assert result.status == "fail"
    assert result.mismatch is not None
    assert result.mismatch.what == "cache"


def test_c17_a_late_writer_is_caught() -> None:
    adapter = WritesFromAThread()
    assert run_case(adapter, CASE).status == "fail"
    adapter.go_on.set()  # only so that the thread ends
    assert adapter.done.wait(30)


def test_c17_a_result_that_is_computed_later_is_a_new_one() -> None:
    result = run_case(WritesInPlaceAndReturnsAnother(), CASE)
    assert result.mismatch is not None
    assert result.mismatch.what == "given cache"


@pytest.mark.parametrize("late", ["cache", "index_spec"])
def test_c16_a_late_load_is_caught(late: str) -> None:
    class Late(Right):
        def load(self, cache, index_spec, num_tokens):
            kept = cache if late == "cache" else cache.copy()
            return LazyLoad(
                kept, index_spec if late == "index_spec" else index_spec.map(np.copy), num_tokens
            )

    case = find_case("c16_load/block_table/bf16")
    assert run_case(Right(), case).status == "pass"
    assert run_case(Late(), case).status == "fail"


def test_every_case_gives_inputs_of_its_own() -> None:
    # Cases share their specs, and the recorded ones their states: overwriting must not reach them.
    for case in all_cases():
        problem = case.build()
        before = bits(problem.states, problem.index_spec)
        given = Given(problem)
        assert bits(given.states, given.index_spec) == before, case.id
        assert not given.changed(), case.id
        given.overwrite()
        assert bits(problem.states, problem.index_spec) == before, case.id
        again = case.build()
        assert bits(again.states, again.index_spec) == before, case.id
        if given.states.size:
            assert given.states.tobytes() != problem.states.tobytes(), case.id
        assert all((array == PAD).all() for array in given.index_spec.arrays().values()), case.id


def bits(states: np.ndarray, index_spec: IndexSpec) -> list[bytes]:
    return [array.tobytes() for array in (states, *index_spec.arrays().values())]
