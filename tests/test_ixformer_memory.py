"""What is remembered of a trial: what tells of the kernel, and nothing else."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import numpy as np
import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges.ixformer import IxformerBackend, probe, proofs
from bridges.ixformer.backend import NATIVE, SAFE
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from bridges.ixformer.trials import trial as trials
from bridges.ixformer.trials.finding import Finding, attempt, wants_memory
from functional_paged import SlotMapping
from tests.guarded import PLAIN, Guarded, a_states, kit_steps, store

SHAPE, DTYPE = PLAIN
STEP = kit_steps(SHAPE)["c5_prefill"]
SPEC, NUM_TOKENS = STEP.index_spec, STEP.num_tokens


def numpy_memory_error() -> Exception:
    with pytest.raises(MemoryError) as raised:
        np.empty(2**60, np.uint8)
    return raised.value


def wrapped() -> Exception:
    error = RuntimeError("kernel launch failed")
    error.__cause__ = MemoryError()
    return error


WANTS: list[Exception] = [
    MemoryError(),
    numpy_memory_error(),
    torch.OutOfMemoryError("Tried to allocate 2 MiB"),
    torch.cuda.OutOfMemoryError("HIP out of memory. Tried to allocate 20.00 MiB"),
    RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB (GPU 0; 7.80 GiB total)"),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: not enough"
                 " memory: you tried to allocate 1099511627776 bytes."),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cudaErrorMemoryAllocation"),
    RuntimeError("ixrt: Failed to allocate workspace of 4096 bytes"),
    RuntimeError("std::bad_alloc"),
    RuntimeError("insufficient device memory"),
    RuntimeError("RESOURCE_EXHAUSTED: memory exhausted"),
    OSError(12, "Cannot allocate memory"),
    RuntimeError("\u663e\u5b58\u4e0d\u8db3"),
    wrapped(),
]  # fmt: skip
NO_WANTS = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("key_cache and value_cache must not share memory"),
    RuntimeError("invalid launch configuration"),
    TypeError("unexpected keyword argument 'store_mode'"),
    RuntimeError("tensors must be contiguous in memory"),
]


class Raising(ModelFunctions):
    """Raises what is listed, one a call, then works; counts its calls."""

    def __init__(self, errors: Iterator[Exception] | list[Exception], **semantics):
        super().__init__(KernelSemantics(**semantics))
        self.errors, self.calls = iter(errors), 0

    def _with_block_table(self, *args, **mode):
        self.calls += 1
        for error in self.errors:
            raise error
        return super()._with_block_table(*args, **mode)


def always(error: Exception) -> Iterator[Exception]:
    while True:
        yield error


def backend_of(functions: ModelFunctions) -> IxformerBackend:
    return IxformerBackend(functions, device_check=False)


def try_to_store(backend, check=False) -> str | None:
    """The route, or `None` where the store is refused and the memory left alone."""
    states = a_states(NUM_TOKENS, SHAPE, DTYPE)
    return store(backend, Guarded(SHAPE, DTYPE), states, SPEC, check=check)


def by_text(error: Exception) -> str:
    return " ".join(f"{type(error).__name__} {error}".split())[:50]


@pytest.mark.parametrize("error", WANTS, ids=by_text)
def test_want_of_memory_refuses_one_call_and_is_forgotten(error):
    functions = Raising([error, error])  # one for each call form
    backend = backend_of(functions)
    assert try_to_store(backend) is None
    assert functions.calls == 2  # no second try where memory is wanted
    assert try_to_store(backend) == SAFE


@pytest.mark.parametrize("error", NO_WANTS, ids=by_text)
def test_what_a_kernel_always_raises_is_remembered(error):
    functions = Raising(always(error))
    backend = backend_of(functions)
    assert try_to_store(backend) is None
    assert functions.calls == 4  # two tries of each call form
    for _ in range(3):
        assert try_to_store(backend) is None
    assert functions.calls == 4


def test_wrong_bits_are_remembered_and_get_no_second_try():
    class Wrong(Raising):
        def _write(self, *args):
            return None

    functions = Wrong([])
    backend = backend_of(functions)
    for _ in range(3):
        assert try_to_store(backend) is None
    assert functions.calls == 2


@pytest.mark.parametrize("error", NO_WANTS, ids=by_text)
def test_what_a_second_try_cures_is_proven_and_both_are_told(error, caplog):
    backend = backend_of(Raising([error]))
    with caplog.at_level(logging.DEBUG, "bridges.ixformer"):
        assert try_to_store(backend) == SAFE
    assert f"{' '.join(str(error).split())}; at a second try: bit for bit" in caplog.text


def test_a_second_try_is_no_third_one():
    errors = [RuntimeError("first"), RuntimeError("second")]
    with pytest.raises(BackendUnsupported, match="first; at a second try: RuntimeError: second"):
        bridges.plan(
            SlotMapping(torch.tensor([0])),
            cache=torch.zeros(1, 1, 1, 1),
            num_tokens=1,
            backend=backend_of(Raising(errors, store_mode="missing", aliased="torn")),
        )


def test_want_of_memory_at_a_second_try_is_no_refusal_for_ever():
    backend = backend_of(Raising([RuntimeError("busy"), MemoryError()] * 2))
    assert try_to_store(backend) is None
    assert try_to_store(backend) == SAFE


def test_a_refusal_for_want_of_memory_says_so_and_what_comes_next():
    cache = torch.zeros(1, 1, 1, 1)
    with pytest.raises(BackendUnsupported) as refused:
        bridges.plan(
            SlotMapping(torch.tensor([0])),
            cache=cache,
            num_tokens=1,
            backend=backend_of(Raising(always(MemoryError("no room")))),
        )
    assert "not tried: want of memory: MemoryError: no room" in str(refused.value)
    assert "What was not tried is tried again at the next call" in str(refused.value)


def test_want_of_memory_for_the_native_route_takes_the_safe_one_this_once():
    functions = Raising([])
    backend = backend_of(functions)
    assert try_to_store(backend) == SAFE
    functions.errors = iter([MemoryError()])
    assert try_to_store(backend, check=True) == SAFE
    assert try_to_store(backend, check=True) == NATIVE


def test_states_are_not_copied_for_ever_because_memory_was_short_once():
    functions = Raising([])
    backend = backend_of(functions)
    assert try_to_store(backend) == SAFE
    fused = a_states(3 * NUM_TOKENS, SHAPE, DTYPE)[::3]
    functions.errors = iter([MemoryError(), MemoryError()])
    assert [copies(backend, fused) for _ in range(2)] == [[], [False]]


def copies(backend: IxformerBackend, states: torch.Tensor) -> list[bool]:
    """Store, and tell of each remembered kind of strided states whether they are copied."""
    assert store(backend, Guarded(SHAPE, DTYPE), states, SPEC) == SAFE
    return [
        proof.tried.kind.states_strides is None
        for call, proof in backend.prover._proofs.items()
        if call.kind.states_strides is not None
    ]


def test_memory_may_be_short_for_the_trials_own_arrays(monkeypatch):
    def too_much(*_):
        raise numpy_memory_error()

    backend = backend_of(ModelFunctions())
    with monkeypatch.context() as patch:
        patch.setattr(trials, "expected", too_much)
        assert try_to_store(backend) is None
    assert try_to_store(backend) == SAFE


def test_a_trial_that_would_be_too_large_is_not_tried_and_not_called_disproven(monkeypatch):
    backend = backend_of(ModelFunctions())
    with monkeypatch.context() as patch:
        patch.setattr(trials, "MAX_TRIAL_ELEMENTS", 2**10)
        with pytest.raises(BackendUnsupported) as refused:
            bridges.plan(
                SlotMapping(torch.tensor([0])),
                cache=torch.zeros(SHAPE, dtype=DTYPE),
                num_tokens=1,
                backend=backend,
            )
        assert "not tried: it would take more than 1024 elements" in str(refused.value)
    assert try_to_store(backend) == SAFE


def test_a_table_too_large_to_try_goes_the_safe_way(monkeypatch):
    backend = backend_of(ModelFunctions())
    with monkeypatch.context() as patch:
        patch.setattr(proofs, "MAX_TABLE_ENTRIES", 2)
        assert try_to_store(backend, check=True) == SAFE
    assert try_to_store(backend, check=True) == NATIVE


def test_a_table_is_as_large_as_the_bits_of_its_sizes_allow(monkeypatch):
    prover = backend_of(ModelFunctions()).prover
    ((_, proof),) = prover.parts(Guarded(SHAPE, DTYPE).tensor, NUM_TOKENS)
    monkeypatch.setattr(proofs, "MAX_TABLE_ENTRIES", 1 * 3)
    assert prover.native_is_proven(proof, (1, 2))
    assert not prover.native_is_proven(proof, (2, 2))


def test_an_error_of_the_trial_itself_is_no_finding_about_the_kernel(monkeypatch):
    def broken(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(trials, "expected", broken)
    with pytest.raises(ZeroDivisionError):
        try_to_store(backend_of(ModelFunctions()))


def test_an_engine_that_handles_want_of_memory_still_gets_findings():
    """Every error raised in a handler has the handled one behind it."""

    def trial() -> Finding:
        with trials.kernel_errors():
            raise TypeError("no such argument")

    try:
        raise MemoryError
    except MemoryError:
        found = attempt(trial)
    assert found == Finding(
        "disproven", "TypeError: no such argument; at a second try: TypeError: no such argument"
    )
    assert wants_memory(wrapped())


def test_the_probe_does_not_call_want_of_memory_disproven():
    report = probe(Raising([MemoryError()], store_mode="key"), "cpu")
    assert report["store_mode=1: the sides that it writes"].status == "not tried"
    assert report["store_mode=1, key and value one tensor"].status == "proven"


def test_no_part_of_a_long_store_is_written_if_one_is_refused(monkeypatch):
    class ManyRows(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            if len(args[4]) < 8:
                raise RuntimeError("too few rows")
            return super()._with_block_table(*args, **mode)

    monkeypatch.setattr(proofs, "MAX_ROWS", 15)
    cache, states = Guarded(SHAPE, DTYPE), a_states(31, SHAPE, DTYPE)
    prover, contexts = backend_of(ManyRows()).prover, torch.arange(31, dtype=torch.int32) % 16
    table = torch.arange(31, dtype=torch.int32)[:, None] // 16
    with pytest.raises(BackendUnsupported, match="too few rows"):
        prover.write([cache.tensor], [states], table, contexts)
    assert cache.unchanged()
    prover.write([cache.tensor], [states[:30]], table[:30], contexts[:30])
    cache.check(states[:30], SlotMapping(np.arange(30, dtype=np.int32)))


def test_of_two_caches_neither_is_written_if_one_is_refused():
    backend = backend_of(ModelFunctions(KernelSemantics(dtypes=frozenset({DTYPE}))))
    keys, values = Guarded(SHAPE, DTYPE), Guarded(SHAPE, torch.float32)
    states = a_states(NUM_TOKENS, SHAPE, DTYPE), a_states(NUM_TOKENS, SHAPE, torch.float32)
    plan = bridges.plan(
        SPEC.map(torch.from_numpy), cache=keys.tensor, num_tokens=NUM_TOKENS, backend=backend
    )
    with pytest.raises(BackendUnsupported, match=r"torch\.float32 is not supported"):
        plan.lowered.write_((keys.tensor, values.tensor), states)
    for cache in (keys, values):
        assert cache.unchanged()
    plan.lowered.write_((keys.tensor,), states[:1])
    keys.check(states[0], SPEC)
