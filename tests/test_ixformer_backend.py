"""The two routes of the ixformer backend, its trials and its refusals."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

import bridges
from bridges import BackendUnsupported
from bridges.ixformer import IxformerBackend
from bridges.ixformer import proofs as prover_module
from bridges.ixformer.backend import NATIVE, SAFE
from bridges.ixformer.backend import _native as native
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from bridges.ixformer.trials import specs
from functional_paged import PAD, BlockTable, SlotMapping, SpecError, check_spec
from tests.guarded import PLAIN, Guarded, a_states, kit_steps, store
from tests.helpers import i32
from tests.plausible import PLAUSIBLE


def model_backend(**semantics):
    return IxformerBackend(ModelFunctions(KernelSemantics(**semantics)), device_check=False)


def prefill(backend, check):
    shape, dtype = PLAIN
    step = kit_steps(shape)["c8_hole"]
    states = a_states(step.num_tokens, shape, dtype)
    return store(backend, Guarded(shape, dtype), states, step.index_spec, check=check)


@pytest.mark.parametrize("batch", [1, 40])
def test_a_limit_of_prefill_on_rows_or_their_length_is_met(batch):
    class Limited(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            table, cu_q_lens = args[4:6]
            if cu_q_lens is not None and (len(table) > 32 or int(cu_q_lens.diff().max()) > 32):
                return None
            return super()._with_block_table(*args, **mode)

    shape, dtype = (43, *PLAIN[0][1:]), PLAIN[1]
    table = np.arange(40, dtype=np.int32).reshape(batch, -1)
    cu_q_lens = np.linspace(0, 40, batch + 1).astype(np.int32)
    spec = BlockTable(table, np.full(batch, 3, np.int32), cu_q_lens)
    backend = IxformerBackend(Limited(), device_check=False)
    assert (
        store(backend, Guarded(shape, dtype), a_states(40, shape, dtype), spec, check=True) == SAFE
    )


EDGES = ("hole", "short_table", "negative_prefill", "empty_row", "spare_states")


def test_the_native_route_is_taken_for_checked_prefill_only(caplog):
    backend = model_backend()
    with caplog.at_level(logging.DEBUG, "bridges.ixformer"):
        assert prefill(backend, check=True) == NATIVE
    assert "route native for BlockTable" in caplog.text
    assert prefill(backend, check=False) == SAFE


@pytest.mark.parametrize(
    "deviation", [v for e in EDGES for v in PLAUSIBLE[e]], ids=lambda wheel: next(iter(wheel))
)
def test_one_unproven_edge_takes_the_safe_route(deviation, caplog):
    with caplog.at_level(logging.DEBUG, "bridges.ixformer"):
        assert prefill(model_backend(**deviation), check=True) == SAFE
    assert "native route not used" in caplog.text


def test_a_tensor_not_proven_for_the_native_route_goes_the_safe_way():
    """The plan was made for a block size of 16 and two heads; three heads fail in prefill only."""

    class Picky(ModelFunctions):
        def _with_block_table(self, states, *args, **mode):
            if states.shape[1] == 3 and args[4] is not None:
                raise RuntimeError("heads must be even")
            return super()._with_block_table(states, *args, **mode)

    shape, dtype = PLAIN
    step = kit_steps(shape)["c5_prefill"]
    spec, num_tokens = step.index_spec, step.num_tokens
    backend = IxformerBackend(Picky(), device_check=False)
    cache = Guarded(shape, dtype)
    plan = bridges.plan(
        spec.map(torch.from_numpy),
        cache=cache.tensor,
        num_tokens=num_tokens,
        backend=backend,
        check=True,
    )
    assert plan.route == NATIVE
    other = Guarded((shape[0], 3, *shape[2:]), dtype)
    states = a_states(num_tokens, other.shape, dtype)
    bridges.store_single_(other.tensor, states, plan)
    other.check(states, spec)


def test_a_plan_keeps_what_the_spec_said():
    shape, dtype = PLAIN
    step = kit_steps(shape)["c5_prefill"]
    spec, num_tokens = step.index_spec, step.num_tokens
    given = replace(spec, block_table=spec.block_table.copy()).map(torch.from_numpy)
    cache, states = Guarded(shape, dtype), a_states(num_tokens, shape, dtype)
    plan = bridges.plan(
        given, cache=cache.tensor, num_tokens=num_tokens, backend=model_backend(), check=True
    )
    given.block_table.zero_()
    bridges.store_single_(cache.tensor, states, plan)
    cache.check(states, spec)


@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize("limit", [{"MAX_ROWS": 7}, {"MAX_ELEMENTS": 7 * 32}])
def test_more_rows_than_one_call_takes(monkeypatch, limit, check):
    for name, value in limit.items():
        monkeypatch.setattr(prover_module, name, value)
    table = np.random.default_rng(3).permutation(8).astype(np.int32)[None]
    spec = BlockTable(table, i32(5), i32(0, 40))
    states = a_states(45, *PLAIN)
    assert store(model_backend(), Guarded(*PLAIN), states, spec, check=check) == SAFE


@pytest.mark.parametrize(
    ("limit", "most"),
    [({"MAX_ROWS": 7}, 7), ({"MAX_ROWS": 130}, 128), ({"MAX_ELEMENTS": 1}, 1)],
    ids=str,
)
def test_a_call_has_as_many_rows_as_the_limits_allow(monkeypatch, limit, most):
    for name, value in limit.items():
        monkeypatch.setattr(prover_module, name, value)
    parts = model_backend().prover.parts(Guarded(*PLAIN).tensor, 2 * most + 1)
    assert [part for part, _ in parts] == [
        slice(0, most),
        slice(most, 2 * most),
        slice(2 * most, 2 * most + 1),
    ]


def test_c9_the_native_route_gets_no_context_past_its_table():
    cache = torch.empty(1, 1, 2**20, 1, dtype=torch.int8)
    capacity = 2047 * 2**20
    contexts = i32(0, capacity - 1, capacity, 2**31 - 1, -5)
    spec = BlockTable(np.zeros((5, 2047), np.int32), contexts, i32(0, 1, 1, 1, 1, 1))
    spec = spec.map(torch.from_numpy)
    passed = native(spec, 2**31 - 1 - capacity, cache)
    assert passed is not None
    assert passed[2].tolist() == [0, capacity - 1, PAD, PAD, PAD]
    assert native(spec, 2**31 - capacity, cache) is None


@pytest.mark.parametrize("spare_states", ["append", "raises"])
def test_c10_states_past_those_of_the_plan_reach_no_kernel(spare_states):
    spec, cache, states = SlotMapping(i32(5, 2)), Guarded(*PLAIN), a_states(5, *PLAIN)
    plan = bridges.plan(
        spec.map(torch.from_numpy),
        cache=cache.tensor,
        num_tokens=2,
        backend=model_backend(spare_states=spare_states),
    )
    bridges.store_single_(cache.tensor, states, plan)
    cache.check(states[:2], spec)


def test_c15_either_of_two_tokens_in_one_slot():
    spec, one, other = (SlotMapping(i32(*slots)) for slots in ((5, 5, 2), (5, -1, 2), (-1, 5, 2)))
    for order in ("forward", "backward"):
        backend = model_backend(write_order=order)
        assert store(backend, Guarded(*PLAIN), a_states(3, *PLAIN), spec, (one, other))


def test_c19_a_cache_past_2_31_elements_is_refused():
    cache = torch.empty(2**17 + 1, 1, 16, 2**10, dtype=torch.int8)  # never touched
    with pytest.raises(BackendUnsupported, match=r"2\*\*31 elements"):
        bridges.plan(
            SlotMapping(torch.tensor([0])), cache=cache, num_tokens=1, backend=model_backend()
        )


def test_a_refusal_says_what_was_found_and_what_to_do():
    backend = model_backend(store_mode="missing", aliased="torn")
    cache = torch.zeros(4, 2, 16, 64)
    with pytest.raises(BackendUnsupported) as refusal:
        bridges.store_single_(
            cache, torch.zeros(1, 2, 64), SlotMapping(torch.tensor([0])), backend=backend
        )
    for part in (
        "torch.float32 rows of kv_heads = 2, head_dim = 64 in blocks of block_size = 16",
        "store_mode=1, key and value one tensor: TypeError: unexpected keyword argument",
        "7 arguments, key and value one tensor: 320 elements differ from the reference",
        "functional-paged probe",
        "backend='torch'",
    ):
        assert part in str(refusal.value)


def test_every_trial_is_made_once():
    calls = []

    class Counting(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            calls.append(args[4].shape)
            return super()._with_block_table(*args, **mode)

    backend = IxformerBackend(Counting(), device_check=False)
    (shape, dtype), counts = PLAIN, []
    step = kit_steps(shape)["c8_hole"]
    cache = Guarded(shape, dtype)  # addresses are part of a kind
    states = a_states(step.num_tokens, shape, dtype)
    plan = bridges.plan(
        step.index_spec.map(torch.from_numpy),
        cache=cache.tensor,
        num_tokens=step.num_tokens,
        backend=backend,
        check=True,
    )
    for _ in range(2):
        bridges.store_single_(cache.tensor, states, plan)
        counts.append(len(calls))
    trials = counts[0]
    assert trials > 1
    assert len(calls) == trials + 1


def test_indices_are_int32_and_tables_contiguous():
    seen = []

    class Recording(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            seen.extend(x for x in args[4:] if x is not None)
            return super()._with_block_table(*args, **mode)

    backend = IxformerBackend(Recording(), device_check=False)
    shape, dtype = PLAIN
    for name, step in kit_steps(shape).items():
        spec, num_tokens = step.index_spec, step.num_tokens
        given = spec.map(torch.from_numpy)
        if isinstance(given, BlockTable) and name != "c18_no_columns":
            wide = torch.cat([given.block_table, given.block_table], dim=1)
            given = replace(given, block_table=wide[:, : given.block_table.shape[1]])
        cache, states = Guarded(shape, dtype), a_states(num_tokens, shape, dtype)
        plan = bridges.plan(
            given, cache=cache.tensor, num_tokens=num_tokens, backend=backend, check=True
        )
        bridges.store_single_(cache.tensor, states, plan)
        cache.check(states, spec)
    assert all(x.dtype == torch.int32 and x.is_contiguous() for x in seen)


def test_a_kernel_runs_with_the_device_of_the_cache_as_the_current_one(monkeypatch):
    current = [0]

    @contextlib.contextmanager
    def device(index):
        before, current[0] = current[0], index
        yield
        current[0] = before

    class Recording(ModelFunctions):
        def _with_block_table(self, *args, **mode):
            seen.append(current[0])
            return super()._with_block_table(*args, **mode)

    backend, seen = IxformerBackend(Recording(), device_check=False), []
    cache, spec = torch.zeros(1, 1, 1, 1), SlotMapping(torch.tensor([0]))
    plan = bridges.plan(spec, cache=cache, num_tokens=1, backend=backend)
    for call, proof in [*backend.prover._proofs.items()]:  # there is no device to try
        backend.prover._proofs[call._replace(device=1)] = proof
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.Tensor, "get_device", lambda self: 1)
    bridges.store_single_(cache, torch.ones(1, 1, 1), plan)
    assert (seen[-1], current[0], cache.item()) == (1, 0, 1)


def test_a_first_store_under_graph_capture_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(BackendUnsupported, match="before capturing"):
        prover_module._require_no_capture(torch.device("cuda"))


@pytest.mark.parametrize("edge", specs.PREFILL)
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_the_trials_themselves_are_valid_specs(edge, block_size):
    trial = specs.PREFILL[edge](block_size)
    check_spec(
        trial.spec, cache_shape=(trial.num_blocks, 1, block_size, 1), num_tokens=trial.num_tokens
    )


@pytest.mark.parametrize(("num_tokens", "batch", "width"), [(7, 1, 1), (7, 31, 3), (1023, 63, 7)])
@pytest.mark.parametrize("spread", [False, True])
def test_a_trial_of_a_size_is_a_valid_spec(num_tokens, batch, width, spread):
    trial = specs.prefill_of_size(num_tokens, batch, width, 16, spread)
    check_spec(trial.spec, cache_shape=(trial.num_blocks, 1, 16, 1), num_tokens=num_tokens)


@pytest.mark.parametrize("num_tokens", [1, 8, 130, 300])
def test_a_long_prefill_goes_the_native_way(num_tokens):
    table = np.random.default_rng(3).permutation(24).astype(np.int32).reshape(1, 24)
    spec = BlockTable(table, i32(21), i32(0, num_tokens))
    shape, dtype = (24, *PLAIN[0][1:]), PLAIN[1]
    states = a_states(num_tokens, shape, dtype)
    assert store(model_backend(), Guarded(shape, dtype), states, spec, check=True) == NATIVE


def test_a_spec_error_comes_before_any_trial():
    with pytest.raises(SpecError, match="C1"):
        bridges.store_single_(
            torch.zeros(1, 1, 1, 1),
            torch.zeros(1, 2, 1),
            SlotMapping(torch.tensor([0])),
            backend=model_backend(max_rows=0),
        )
