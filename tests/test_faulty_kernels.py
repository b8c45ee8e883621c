"""Kernels with the faults of published ones: each gets the verdict it deserves, run after run."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from functional_paged.conformance import Case, Result, all_cases, run_backend

# A store as a loop in C is one: it computes an address and writes there, whatever is there.
KERNELS = """
import ctypes
import numpy as np
from functional_paged import SlotMapping, check_spec

class Kernel:
    name = "kernel"
    def unsupported(self, case):
        self.case = case.id
        return None if case.build().index_spec.form == "slots" else "it takes slots"
    def store(self, cache, states, index_spec):
        slots = index_spec.slots
        if states.dtype != cache.dtype or slots.dtype not in (np.int32, np.int64):
            raise TypeError("dtype")
        if states.shape[1:] != (cache.shape[1], cache.shape[3]) or slots.ndim != 1:
            raise ValueError("shape")
        for token, slot in enumerate(slots[: len(states)].tolist()):
            self.visit(cache, states, token, slot)
        return cache
    def visit(self, cache, states, token, slot):
        if 0 <= slot < cache.shape[0] * cache.shape[2]:
            self.write(cache, states, token, slot)
    def write(self, cache, states, token, slot):
        block, offset = divmod(slot, cache.shape[2])
        for head in range(cache.shape[1]):
            to = cache.ctypes.data + block * cache.strides[0] + head * cache.strides[1]
            of = states.ctypes.data + token * states.strides[0] + head * states.strides[1]
            num_bytes = cache.shape[3] * cache.itemsize
            ctypes.memmove(to + offset * cache.strides[2], of, num_bytes)

class WritesBelowTheCache(Kernel):
    def visit(self, cache, states, token, slot):
        if slot < cache.shape[0] * cache.shape[2]:
            self.write(cache, states, token, slot)

class WritesPastTheCache(Kernel):
    def visit(self, cache, states, token, slot):
        if slot >= 0:
            self.write(cache, states, token, slot)

class CorruptsTheHeap(Kernel):
    def write(self, cache, states, token, slot):
        held = [np.full(7, 1) for _ in range(999)]
        for array in held[::3] if self.case.startswith("c14") else ():
            ctypes.memset(array.ctypes.data - 48, 0x41, 200)  # headers of malloc and of objects
        del held
        super().write(cache, states, token, slot)

class ErrorThatSticks(Kernel):
    isolation = "process"
    broken = False
    def store(self, cache, states, index_spec):
        self.broken |= bool((index_spec.slots >= cache.shape[0] * cache.shape[2]).any())
        if self.broken:
            raise RuntimeError("an illegal memory access was encountered")
        return super().store(cache, states, index_spec)

class RefusesWhatIsInvalid(Kernel):
    def store(self, cache, states, index_spec):
        if states.shape[1:] == (cache.shape[1], cache.shape[3]) and index_spec.slots.ndim == 1:
            if index_spec.slots.dtype.kind == "i":
                check_spec(index_spec, cache_shape=cache.shape, num_tokens=len(states))
        return super().store(cache, states, index_spec)

class RefusesWhatIsValid(Kernel):
    def store(self, cache, states, index_spec):
        if len(index_spec.slots) < len(states):
            raise ValueError("as many slots as states")
        return super().store(cache, states, index_spec)

class RaisesMidway(Kernel):
    def write(self, cache, states, token, slot):
        if token and "c5_" in self.case:
            raise IndexError("index 9 is out of bounds")
        super().write(cache, states, token, slot)

class KnowsMinusOneOnly(Kernel):
    def visit(self, cache, states, token, slot):
        super().visit(cache, states, token, 0 if slot < -1 else slot)

class CutsSlotsTo32Bits(Kernel):
    def visit(self, cache, states, token, slot):
        super().visit(cache, states, token, int(np.int64(slot).astype(np.int32)))

class ReadsPastItsSlots(Kernel):
    def store(self, cache, states, index_spec):
        slots = index_spec.slots
        if slots.dtype.kind == "i" and len(slots) < len(states):
            for token in range(len(slots), len(states)):
                ctypes.string_at(slots.ctypes.data + token * slots.itemsize, slots.itemsize)
        return super().store(cache, states, index_spec)
"""

CASES = [case for case in all_cases() if "slots" in case.id and (case.quick or "c5_p" in case.id)]

# By kernel: each clause that it must fail, and what is said of it, as a pattern.
FAULTS: dict[str, dict[str, str]] = {
    "Kernel": {},
    # The first: a row of one block, which lies below the cache and in its guard.
    "WritesBelowTheCache": {
        "C14": r"guard\[\d+\] was to be left alone|crashed: .* SIGSEGV in write, faulty_kernels"
    },
    "WritesPastTheCache": {
        "C12": r"guard\[\d+\] was to be left alone|crashed: .* SIGSEGV in write"
    },
    "CorruptsTheHeap": {"C14": "crashed: the process died of SIG"},
    "ErrorThatSticks": {
        "C12": "refused as invalid: RuntimeError: an illegal .* it sticks: after it c5_prefill/s"
    },
    "RefusesWhatIsInvalid": {},
    "RefusesWhatIsValid": {"C10": "raised with nothing written: ValueError: as many slots"},
    "RaisesMidway": {"C5": "raised after writing: IndexError: index 9 .* was to be left alone"},
    "KnowsMinusOneOnly": {"C14": r"cache\[0, 0, 0, 0\] was to be left alone"},
    "CutsSlotsTo32Bits": {"C12": r"cache\[\d, 0, \d+, 0\] was to be left alone"},
    "ReadsPastItsSlots": {"C10": "crashed: the process died of SIG"},
}


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[Result]]:
    (tmp_path / "faulty_kernels.py").write_text(KERNELS)
    monkeypatch.chdir(tmp_path)

    def run(kernel: str, cases: Sequence[Case] = CASES) -> list[Result]:
        jobs = 2 if len(cases) > 9 else 1
        return list(run_backend(f"faulty_kernels:{kernel}", cases, jobs=jobs).results)

    return run


@pytest.mark.parametrize("kernel", FAULTS)
def test_a_fault_is_named_and_charged_to_its_clause(
    kernel: str, results: Callable[..., list[Result]]
) -> None:
    failed = [result for result in results(kernel) if result.status == "fail"]
    assert {result.clause for result in failed} == FAULTS[kernel].keys()
    for result in failed:
        assert re.match(FAULTS[kernel][result.clause], result.reason), result.reason


def test_c14_minus_one_is_told_from_other_negatives(results: Callable[..., list[Result]]) -> None:
    by_name = {r.case.id.split("/")[0]: r.status for r in results("KnowsMinusOneOnly")}
    assert by_name["c14_pad"] == "pass"
    assert by_name["c14_negative_slots"] == "fail"


def test_c4_slots_of_64_bits_are_told_from_slots_past_32(
    results: Callable[..., list[Result]],
) -> None:
    done = results("CutsSlotsTo32Bits", [c for c in all_cases() if "slots" in c.id])
    long = [r for r in done if r.case.build().index_spec.arrays()["slots"].dtype == "int64"]
    assert {r.clause for r in long if r.status == "fail"} == {"C12"}
    assert any(r.status == "pass" and r.case.kind == "store" for r in long)


def test_a_refusal_of_what_is_invalid_is_a_pass_that_says_so(
    results: Callable[..., list[Result]],
) -> None:
    done = results("RefusesWhatIsInvalid")
    refused = {r.clause: r.reason for r in done if r.status == "pass" and r.reason}
    assert refused.keys() >= {"C1", "C2", "C4", "C11", "C12", "C15"}
    assert refused["C2"].startswith("refused without naming C2: TypeError: dtype (store, faulty_")
    assert refused["C12"].startswith("refused as invalid: SpecError: C12: slots[")


NAMES = ("c2_states_of_f16_for", "c5_p", "c10_f", "c12_slot_past", "c14_negative_slots")
SOME = [next(case for case in CASES if case.id.startswith(name)) for name in NAMES]


@pytest.mark.parametrize(
    "kernel", ["WritesBelowTheCache", "WritesPastTheCache", "CorruptsTheHeap", "ErrorThatSticks"]
)
def test_ten_runs_give_ten_times_the_same(
    kernel: str, results: Callable[..., list[Result]]
) -> None:
    runs = {
        tuple((r.case.id, r.status, r.clause) for r in results(kernel, SOME)) for _ in "0123456789"
    }
    assert len(runs) == 1
    assert {"pass", "fail"} <= {status for _, status, _ in next(iter(runs))}
