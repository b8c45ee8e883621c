"""No call depends on defaults of the process: the suite of cases runs under impossible ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest
import torch

import bridges
from bridges import _plan
from bridges.conformance_adapters import ixformer_model_backend, numba_backend, torch_backend
from bridges.mojo import build_paged_kv_chunk_metadata
from functional_paged import SlotMapping
from functional_paged.conformance import Case, all_cases, run_case


@contextlib.contextmanager
def default_device(device: str) -> Iterator[None]:
    torch.set_default_device(device)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextlib.contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES = {
    "meta as default device": lambda: default_device("meta"),
    "float16 as default dtype": lambda: default_dtype(torch.float16),
    "float64 as default dtype": lambda: default_dtype(torch.float64),
    "inference mode": torch.inference_mode,
    "deterministic algorithms": deterministic,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}
ADAPTERS = {
    "numba": numba_backend,
    "torch": torch_backend,
    "ixformer-model": ixformer_model_backend,
}


def cases() -> list[Case]:
    kinds = ("store", "refuse", "apart", "check", "accept")
    return [case for case in all_cases() if case.quick and case.kind in kinds]


@contextlib.contextmanager
def all_at_once() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name in STATES.keys() - {"float64 as default dtype"}:
            stack.enter_context(STATES[name]())
        yield


def failures(adapter, chosen: list[Case]) -> list[str]:
    results = [run_case(adapter, case) for case in chosen]
    assert sum(result.status == "pass" for result in results) > len(results) / 2
    return [result.case.id for result in results if result.status == "fail"]


@pytest.mark.parametrize("name", ADAPTERS)
def test_the_suite_under_all_of_them_at_once(name):
    adapter = ADAPTERS[name]()
    with all_at_once():
        assert failures(adapter, cases()) == []


@pytest.mark.parametrize("name", ["numba", "torch"])
@pytest.mark.parametrize("state", STATES)
def test_a_part_of_the_suite_under_each(state, name):
    adapter, chosen = ADAPTERS[name](), cases()[::4]
    with STATES[state]():
        assert failures(adapter, chosen) == []


def test_an_allocation_without_a_device_would_fail(monkeypatch):
    def planted(slots: torch.Tensor) -> torch.Tensor:
        return torch.where(torch.ones(slots.shape, dtype=torch.bool), slots, -1)

    monkeypatch.setattr(_plan, "_one_token_a_slot", planted)
    cache, spec = torch.zeros(4, 1, 2, 3), SlotMapping(torch.tensor([3, -1]))
    bridges.plan(spec, cache=cache, num_tokens=2, backend="torch")
    with default_device("meta"), pytest.raises(RuntimeError, match="meta"):
        bridges.plan(spec, cache=cache, num_tokens=2, backend="torch")


def test_the_chunk_planner_under_all_of_them_at_once():
    table, contexts = torch.tensor([[4, 2]]).int(), torch.tensor([15]).int()
    cu_q_lens = torch.tensor([0, 3]).int()
    with all_at_once():
        chunks = build_paged_kv_chunk_metadata(table, cu_q_lens, contexts, 16)
    assert chunks.tolist() == [[0, 4, 15, 1], [1, 2, 0, 2]]
