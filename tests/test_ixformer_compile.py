"""torch.compile keeps the write, whatever the route, and knows that the cache is what changes."""

from __future__ import annotations

import pytest
import torch

import bridges
from bridges.ixformer import IxformerBackend
from bridges.ixformer.backend import NATIVE, _store_op
from bridges.ixformer.model import KernelSemantics, ModelFunctions
from functional_paged import BlockTable, ChunkPlan, SlotMapping
from tests.guarded import PLAIN, Guarded, a_states
from tests.helpers import DYNAMO_BACKENDS, i32

SHAPE, DTYPE = PLAIN
SPECS = {
    "decode": BlockTable(i32([3, 1], [2, 0]), i32(17, -1)),
    "prefill": BlockTable(i32([3, -1, 1], [2, 0, 5]), i32(15, 30), i32(0, 20, 24)),
    "chunks": ChunkPlan(i32([0, 4, 15, 1], [1, 2, 0, 2])),
    "slots": SlotMapping(i32(5, -1, 100)),
}


pytestmark = pytest.mark.usefixtures("traceable")


def a_backend(**semantics):
    return IxformerBackend(ModelFunctions(KernelSemantics(**semantics)), device_check=False)


@pytest.mark.parametrize("compiler", DYNAMO_BACKENDS)
@pytest.mark.parametrize("name", SPECS)
def test_c17_a_compiled_store_writes_the_cache(name, compiler):
    backend, spec = a_backend(store_mode="missing", hole="stop"), SPECS[name]
    given = spec.map(torch.from_numpy)

    @torch.compile(fullgraph=True, backend=compiler)
    def step(cache, states):
        return bridges.store_single_(cache, states, given, backend=backend)

    cache, states = Guarded(SHAPE, DTYPE), a_states(24, SHAPE, DTYPE)
    assert step(cache.tensor, states) is cache.tensor
    cache.check(states, spec)


@pytest.mark.parametrize("compiler", DYNAMO_BACKENDS)
def test_c17_a_write_between_reads_is_neither_lost_nor_moved(compiler):
    backend = a_backend()

    @torch.compile(fullgraph=True, backend=compiler)
    def step(cache, states, slots):
        before = cache.sum()
        bridges.store_single_(cache, states * 2, SlotMapping(slots), backend=backend)
        return before, cache.sum()

    cache, states = torch.zeros(4, 2, 16, 8), torch.ones(1, 2, 8)
    before, after = step(cache, states, torch.tensor([7]))
    assert (before.item(), after.item(), cache.sum().item()) == (0, 32, 32)


@pytest.mark.parametrize("check", [False, True])
def test_a_compiled_store_with_a_plan(check):
    backend, spec = a_backend(), SPECS["prefill"]
    cache, states = Guarded(SHAPE, DTYPE), a_states(24, SHAPE, DTYPE)
    plan = bridges.plan(
        spec.map(torch.from_numpy), cache=cache.tensor, num_tokens=24, backend=backend, check=check
    )
    assert (plan.route == NATIVE) == check

    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(cache, states):
        bridges.store_single_(cache, states, plan)

    step(cache.tensor, states)
    cache.check(states, spec)


@pytest.mark.parametrize("name", ["torch", None])
def test_a_compiled_store_by_name(name):
    @torch.compile(fullgraph=True, backend="aot_eager")
    def step(cache, states, slots):
        bridges.store_single_(cache, states, SlotMapping(slots), backend=name)

    cache, states = Guarded(SHAPE, DTYPE), a_states(3, SHAPE, DTYPE)
    step(cache.tensor, states, torch.from_numpy(SPECS["slots"].slots))
    cache.check(states, SPECS["slots"])


@pytest.mark.parametrize("native", [False, True])
def test_opcheck(native):
    backend = a_backend()
    spec = SPECS["prefill"].map(torch.from_numpy)
    cache = torch.zeros(6, 2, 16, 8)
    plan = bridges.plan(spec, cache=cache, num_tokens=24, backend=backend, check=True)
    writes = plan.lowered
    arguments = ([cache], [torch.ones(24, 2, 8)], writes.table, writes.contexts)
    torch.library.opcheck(
        _store_op, (*arguments, writes.native if native else None, writes.backend)
    )
