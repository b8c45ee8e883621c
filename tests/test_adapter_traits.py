"""What an adapter says of its kernel: promises, slots, the order of axes, two sides, isolation."""

from __future__ import annotations

import os
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest

from functional_paged import reference
from functional_paged.conformance import (
    BackendNotFound,
    Traits,
    all_cases,
    find_adapter,
    run_backend,
    run_case,
)
from functional_paged.conformance.adapters.reference import ReferenceAdapter

QUICK = [case for case in all_cases() if case.quick]
STORES = [case for case in QUICK if case.kind in ("store", "refuse")]
STRIDED = [case for case in all_cases() if case.clauses[0] == "C20"]


class InPlace(ReferenceAdapter):
    """A right store in place, of one side."""

    def store(self, cache, states, index_spec):
        cache[...] = reference.store_single(cache, states, index_spec)
        return cache


class Pair(InPlace):
    """A right store of both sides."""

    def store_pair(self, key_cache, value_cache, keys, values, index_spec):
        assert keys.tobytes() != values.tobytes() or not keys.size
        caches = key_cache, value_cache
        stored = [  # both are checked before either is written
            reference.store_single(cache, states, index_spec)
            for cache, states in zip(caches, (keys, values), strict=True)
        ]
        for cache, new in zip(caches, stored, strict=True):
            cache[...] = new
        return caches


class ValueWithTheStridesOfTheKey(Pair):
    def store_pair(self, key_cache, value_cache, keys, values, index_spec):
        super().store_pair(key_cache, value_cache.copy(), keys, values, index_spec)
        start, memory = value_cache.ctypes.data, value_cache.base.view(value_cache.dtype)
        first = (start - memory.ctypes.data) // memory.itemsize
        strides = [stride // memory.itemsize for stride in key_cache.strides]
        for token, block, offset in self.places(index_spec, key_cache.shape, len(values)):
            for head in range(key_cache.shape[1]):
                at = first + block * strides[0] + head * strides[1] + offset * strides[2]
                memory[at : at + key_cache.shape[3]] = values[token, head]
        return key_cache, value_cache

    def places(self, index_spec, shape, num_tokens):
        return reference.stored_tokens(index_spec, shape, num_tokens)


class ValueIsTheKey(Pair):
    def store_pair(self, key_cache, value_cache, keys, values, index_spec):
        self.store(key_cache, keys, index_spec)
        return key_cache, self.store(value_cache, keys, index_spec)


class ValueIsNotStored(Pair):
    def store_pair(self, key_cache, value_cache, keys, values, index_spec):
        return self.store(key_cache, keys, index_spec), value_cache


def failures(adapter, cases) -> list[tuple[str, str]]:
    results = [run_case(adapter, case) for case in cases]
    return [(r.case.clauses[0], r.reason) for r in results if r.status == "fail"]


def test_a_right_store_of_two_sides_passes() -> None:
    assert failures(Pair(), (*STORES, *STRIDED)) == []


@pytest.mark.parametrize("adapter", [ValueIsTheKey(), ValueIsNotStored()])
def test_both_sides_are_judged(adapter: Pair) -> None:
    failed = failures(adapter, [case for case in STORES if case.clauses[0] == "C5"])
    assert failed
    assert all(reason.startswith("value cache[") for _, reason in failed)


def test_c20_a_side_addressed_with_the_strides_of_the_other_is_found() -> None:
    adapter = ValueWithTheStridesOfTheKey()
    assert {clause for clause, _ in failures(adapter, (*STORES, *STRIDED))} == {"C20"}


class ChecksTheKeyOnly(Pair):
    def store_pair(self, key_cache, value_cache, keys, values, index_spec):
        self.store(key_cache, keys, index_spec)
        cast = values.astype(value_cache.dtype).reshape(len(values), *value_cache.shape[1::2])
        return key_cache, self.store(value_cache, cast, index_spec)


def test_c2_states_that_do_not_fit_are_tried_on_each_side() -> None:
    adapter = ChecksTheKeyOnly()
    with np.errstate(all="ignore"):  # of the cast
        failed = failures(adapter, [case for case in STORES if case.clauses[0] == "C2"])
    assert failed
    assert {reason for _, reason in failed} == {"must raise for C2, raised nothing"}


class TokensOutsideHeads(InPlace):
    """A kernel of caches `(num_blocks, block_size, kv_heads, head_dim)`."""

    order = "NHD"

    def store(self, cache, states, index_spec):
        num_blocks, block_size, kv_heads, head_dim = cache.shape
        assert cache.strides[1] > cache.strides[2] or kv_heads == 1 or "token_major" in self.case
        shape = (num_blocks, kv_heads, block_size, head_dim)
        swapped = cache.swapaxes(1, 2)
        assert swapped.shape == shape
        super().store(swapped, states, index_spec)
        return cache

    def unsupported(self, case):
        self.case = case.id
        return super().unsupported(case)


def test_an_order_of_axes_is_the_one_that_the_adapter_gets() -> None:
    cases = [case for case in (*STORES, *STRIDED) if case.clauses[0] not in ("C1", "C2", "C4")]
    assert failures(TokensOutsideHeads(), cases) == []
    swapped = InPlace()
    swapped.order = "NHD"  # it takes the two axes for one another
    assert failures(swapped, cases)


def test_slots_of_a_dtype_that_a_kernel_does_not_take_cannot_be_expressed() -> None:
    class Narrow(ReferenceAdapter):
        slot_dtypes = ("int32",)

        def store(self, cache, states, index_spec):
            assert all(array.dtype != np.int64 for array in index_spec.arrays().values())
            return super().store(cache, states, index_spec)

    long = [c for c in all_cases() if "int64" in str(getattr(c.build().index_spec, "slots", ""))]
    results = [run_case(Narrow(), case) for case in all_cases() if case.kind == "store"]
    other = [result for result in results if result.status == "cannot-express"]
    assert {result.reason for result in other} == {"its slots are int32"}
    assert [result for result in results if result.status == "fail"] == []
    assert len(other) >= len(long)


class Trusting(InPlace):
    """Promises nothing of slots past the cache, or negative ones but -1."""

    not_promised: ClassVar = {
        "C12": "slots are in the cache",
        "c14_*negative_slots*": "no negative slot but -1",
    }

    def store(self, cache, states, index_spec):
        slots = index_spec.arrays().get("slots", np.zeros(0, np.int32))
        if (slots < -1).any() or (slots >= cache.shape[0] * cache.shape[2]).any():
            cache[0] = 0
        return super().store(cache, states, index_spec)


def test_what_is_not_promised_is_neither_run_nor_a_pass() -> None:
    results = [run_case(Trusting(), case) for case in STORES]
    assert not [result for result in results if result.status == "fail"]
    left = {r.case.id.split("/")[0]: r.reason for r in results if r.status == "not-promised"}
    assert left["c14_negative_slots"] == "no negative slot but -1"
    assert "c14_pad" not in left
    assert all(r.status == "not-promised" for r in results if "C12" in r.case.clauses)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("isolation = 'thread'", "for 'isolation' one of 'fork', 'process', got 'thread'"),
        ("order = 'HDN'", "for 'order' one of 'HND', 'NHD', got 'HDN'"),
        ("slot_dtypes = 'int32'", "for 'slot_dtypes' one of .*, got 'int32'"),
        ("not_promised = {'C99': 'no'}", "clauses or globs .* in 'not_promised', got 'C99'"),
        ("not_promised = {'c14_negativ': 'no'}", "got 'c14_negativ'"),
        ("not_promised = {'C12': ' '}", "what a caller must see to for 'C12', got ' '"),
    ],
)
def test_a_wrong_trait_is_named(
    line: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"adapter_with_{abs(hash(line))}.py"
    file.write_text(
        f"class A:\n    name = 'a'\n    {line}\n"
        "    def unsupported(self, case): ...\n    def store(self, *arguments): ...\n"
    )
    with pytest.raises(BackendNotFound, match=message):
        find_adapter(f"{file}:A")


SOURCE = """
import os
from functional_paged import reference
class Counts:
    name = "counts"
    isolation = {isolation!r}
    calls = 0
    def unsupported(self, case): return None
    def store(self, cache, states, index_spec):
        self.calls += 1
        raise RuntimeError(f"call {{self.calls}} in process {{os.getpid()}}")
"""


@pytest.mark.parametrize("isolation", ["fork", "process"])
def test_nothing_is_left_of_a_case_that_raised(
    isolation: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / f"counts_{isolation}.py").write_text(SOURCE.format(isolation=isolation))
    monkeypatch.chdir(tmp_path)
    valid = [case for case in QUICK if case.clauses[0] == "C5" and case.kind == "store"][:4]
    results = run_backend(f"counts_{isolation}:Counts", valid).results
    assert all("call 1 in process" in result.reason for result in results)
    assert len({result.reason for result in results}) == len(valid)
    assert all(str(os.getpid()) not in result.reason for result in results)


def test_a_process_goes_on_after_a_case_that_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = SOURCE.format(isolation="process").replace("RuntimeError(", "CaseUnsupported(")
    imported = "from functional_paged.conformance import CaseUnsupported\n"
    (tmp_path / "counts_on.py").write_text(imported + source)
    monkeypatch.chdir(tmp_path)
    valid = [case for case in QUICK if case.clauses[0] == "C5" and case.kind == "store"][:3]
    reasons = [result.reason for result in run_backend("counts_on:Counts", valid).results]
    assert [reason.split(" in process ")[0] for reason in reasons] == ["call 1", "call 2", "call 3"]


def test_promises_are_found_by_clause_and_by_glob() -> None:
    case = next(case for case in all_cases() if case.id.startswith("c8_hole/block_table"))
    assert Traits(not_promised={"C8": "no holes"}).left_to_the_caller(case) == "no holes"
    assert Traits(not_promised={"c8_hole/*": "none"}).left_to_the_caller(case) == "none"
    assert Traits(not_promised={"C9": "no"}).left_to_the_caller(case) is None
