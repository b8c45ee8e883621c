"""Tensors without values: a plan and a store run on shapes alone, or are refused in words."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

import bridges
from bridges import numba_cpu, torch_inplace
from bridges.ixformer import model
from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping, SpecError

SHAPE = (4, 1, 2, 3)
BACKENDS = {"numba": "numba", "torch": "torch", "ixformer": model.backend()}
OPERATORS = {"numba": numba_cpu._store_op, "torch": torch_inplace._store_op}
WORLDS = {"fake": FakeTensorMode, "meta": lambda: torch.device("meta")}


def specs() -> dict[str, IndexSpec]:
    def int32(*rows: object) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.int32)

    return {
        "prefill": BlockTable(int32([3, 1]), int32(1), int32(0, 2)),
        "decode": BlockTable(int32([3], [1]), int32(1, -1)),
        "chunks": ChunkPlan(int32([0, 3, 1, 1])),
        "slots": SlotMapping(int32(7, -1)),
    }


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.zeros(SHAPE, dtype=torch.bfloat16), torch.ones(2, 1, 3, dtype=torch.bfloat16)


@pytest.mark.parametrize(
    ("world", "backend"),
    [(w, b) for w in WORLDS for b in BACKENDS if (w, b) != ("meta", "numba")],  # a CPU's alone
)
@pytest.mark.parametrize("form", specs())
def test_a_plan_and_a_store_of_tensors_without_values(form, world, backend):
    chosen = BACKENDS[backend]
    with WORLDS[world]():
        cache, states = tensors()
        plan = bridges.plan(specs()[form], cache=cache, num_tokens=2, backend=chosen)
        assert bridges.store_single_(cache, states, plan) is cache
        assert bridges.store_single_(cache, states, specs()[form], backend=chosen) is cache
    assert bridges.store_single_(cache, states, plan) is cache  # outside of the mode


@pytest.mark.parametrize("world", WORLDS)
def test_a_plan_without_values_is_as_long_as_its_tokens(world):
    # What only values tell, how many tokens are stored, must not shape it.
    with WORLDS[world]():
        plan = bridges.plan(specs()["slots"], cache=tensors()[0], num_tokens=2, backend="torch")
    assert plan.lowered.rows.shape == (2,)
    plan = bridges.plan(specs()["slots"], cache=tensors()[0], num_tokens=2, backend="torch")
    assert plan.lowered.rows.tolist() == [0]


@pytest.mark.parametrize("world", WORLDS)
def test_c3_values_that_are_not_there_cannot_be_checked(world):
    message = rf"^C3: index arrays must have values to read, got a {world} tensor$"
    with WORLDS[world](), pytest.raises(SpecError, match=message):
        bridges.plan(specs()["slots"], cache=tensors()[0], num_tokens=2, check=True)
    bridges.plan(specs()["slots"], cache=tensors()[0], num_tokens=2, check=True)


def test_c1_c2_tensors_without_values_are_checked_like_others():
    with FakeTensorMode():
        cache, states = tensors()
        with pytest.raises(SpecError, match=r"^C2: states.dtype must equal"):
            bridges.store_single_(cache, states.half(), specs()["slots"])
        with pytest.raises(SpecError, match=r"^C1: states.shape\[1\] = 2 must equal"):
            bridges.store_single_(cache, states.repeat(1, 2, 1), specs()["slots"])


@pytest.mark.usefixtures("traceable")
@pytest.mark.parametrize("mode", ["real", "fake", "symbolic"])
def test_a_traced_graph_stores_what_it_is_given(mode, cpu_backend):
    def run(cache: torch.Tensor, states: torch.Tensor, slots: torch.Tensor) -> torch.Tensor:
        return bridges.store_single_(cache, states, SlotMapping(slots))

    cache, states = tensors()
    graph = make_fx(run, tracing_mode=mode)(cache.clone(), states, torch.tensor([3, -1]))
    targets = [node.target for node in graph.graph.nodes if node.op == "call_function"]
    assert targets.count(OPERATORS[cpu_backend]) == 1
    graph(cache, states * 2, torch.tensor([6, -1]))
    assert cache[3, 0].tolist() == [[2, 2, 2], [0, 0, 0]]
    assert cache.count_nonzero() == 3
