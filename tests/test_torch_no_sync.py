"""No host sync: fake tensors have no values to read, and graph capture forbids waiting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensorMode,
)

import bridges
from bridges import torch_inplace
from functional_paged import (
    BlockTable,
    ChunkPlan,
    IndexSpec,
    SlotMapping,
    SpecError,
    plan_chunks,
    to_slots,
)

SHAPE = (7, 3, 5, 4)
NUM_TOKENS = 6


def specs(device: str) -> dict[str, IndexSpec]:
    def int32(*rows: object) -> torch.Tensor:
        return torch.tensor(rows, dtype=torch.int32, device=device)

    return {
        "prefill": BlockTable(int32([6, 0], [3, -1]), int32(4, -1), int32(0, 4, 6)),
        "decode": BlockTable(int32([6], [0], [3], [-1], [2], [1]), int32(4, 0, -1, 3, 1, 2)),
        "chunks": ChunkPlan(int32([0, 6, 4, 1], [1, 0, 0, 3], [0, 0, 0, 0])),
        "slots": SlotMapping(int32(34, 0, 1, 2, -1)),
        "long slots": SlotMapping(int32(34, 0, 1, 2, -1).to(torch.int64)),
    }


FORMS = list(specs("cpu"))


def tensors(device: str) -> tuple[torch.Tensor, torch.Tensor]:
    cache = torch.zeros(SHAPE, dtype=torch.bfloat16, device=device)
    return cache, torch.ones(NUM_TOKENS, 3, 4, dtype=torch.bfloat16, device=device)


def write(cache: torch.Tensor, states: torch.Tensor, plan: bridges.StorePlan) -> None:
    """What the registered operator runs; fake tensors see only its stand-in."""
    torch_inplace._write_rows([cache], [states], *vars(plan.lowered).values())


STORES = {"operator": bridges.store_single_, "kernel": write}

# Besides the CPU a fake accelerator, where a new tensor that forgets its device is found; `lazy`
# is one that every build of torch knows.
ACCELERATOR = "cuda:0" if torch.cuda.is_available() else "lazy:0"
DEVICES = ["cpu", ACCELERATOR]


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("form", FORMS)
def test_plan_and_store_read_no_value(form, store):
    """On a device; on the CPU a plan may look, since nothing is waited for."""
    with FakeTensorMode():
        cache, states = tensors(ACCELERATOR)
        plan = bridges.plan(
            specs(ACCELERATOR)[form], cache=cache, num_tokens=NUM_TOKENS, backend="torch"
        )
        STORES[store](cache, states, plan)
    assert plan.lowered.rows.shape == (NUM_TOKENS,)
    assert {str(operand.device) for operand in vars(plan.lowered).values()} == {ACCELERATOR}


@pytest.mark.parametrize("form", FORMS)
def test_store_of_a_spec_reads_no_value(form):
    with FakeTensorMode():
        cache, states = tensors(ACCELERATOR)
        assert (
            bridges.store_single_(cache, states, specs(ACCELERATOR)[form], backend="torch") is cache
        )


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("lower", [to_slots, plan_chunks])
@pytest.mark.parametrize("form", FORMS)
def test_lowering_reads_no_value(form, lower, device):
    with FakeTensorMode():
        lowered = lower(specs(device)[form], cache_shape=SHAPE, num_tokens=NUM_TOKENS)
    (array,) = lowered.arrays().values()
    assert str(array.device) == device


@pytest.mark.parametrize("form", FORMS)
def test_on_meta_tensors(form):
    spec = specs("cpu")[form].map(lambda array: array.to("meta"))
    cache, states = tensors("meta")
    plan = bridges.plan(spec, cache=cache, num_tokens=NUM_TOKENS, backend="torch")
    assert bridges.store_single_(cache, states, plan) is cache
    write(cache, states, plan)


@pytest.mark.parametrize("num_tokens", [0, 1])
def test_c18_few_tokens_without_values(num_tokens):
    cache, states = tensors("meta")
    spec = SlotMapping(torch.empty(num_tokens, dtype=torch.int32, device="meta"))
    assert bridges.store_single_(cache, states[:num_tokens], spec, backend="torch") is cache


def item(slots: torch.Tensor) -> object:
    return slots[0].item()


def branch(slots: torch.Tensor) -> object:
    return 1 if (slots >= 0).any() else 0


def tolist(slots: torch.Tensor) -> object:
    return slots.tolist()


def mask(slots: torch.Tensor) -> object:
    return slots[slots >= 0]


def nonzero(slots: torch.Tensor) -> object:
    return torch.nonzero(slots)


def from_the_host(slots: torch.Tensor) -> object:
    return slots + torch.arange(slots.shape[0])


PLANTED = {
    item: (DataDependentOutputException, None),
    branch: (DataDependentOutputException, None),
    tolist: (DataDependentOutputException, None),
    mask: (DynamicOutputShapeException, None),
    nonzero: (DynamicOutputShapeException, None),
    from_the_host: (RuntimeError, "device"),
}


@pytest.mark.parametrize("sync", PLANTED)
def test_a_planted_sync_is_found(sync, monkeypatch):
    lower = torch_inplace.TorchBackend.lower

    def syncing(self, index_spec, slots, cache, **options):
        sync(slots)
        return lower(self, index_spec, slots, cache, **options)

    monkeypatch.setattr(torch_inplace.TorchBackend, "lower", syncing)
    with FakeTensorMode():
        (cache, _), spec = tensors(ACCELERATOR), specs(ACCELERATOR)["slots"]
        error, message = PLANTED[sync]
        with pytest.raises(error, match=message):
            bridges.plan(spec, cache=cache, num_tokens=NUM_TOKENS, backend="torch")


def test_a_check_of_values_is_a_sync():
    # So `check=True` is for tests and debugging, as its documentation says.
    with FakeTensorMode():
        (cache, _), spec = tensors(ACCELERATOR), specs(ACCELERATOR)["slots"]
        with pytest.raises(SpecError, match=r"^C3: index arrays must have values"):
            bridges.plan(spec, cache=cache, num_tokens=NUM_TOKENS, check=True)


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@needs_cuda
@pytest.mark.parametrize("form", FORMS)
def test_cuda_raises_at_no_sync(form):
    cache, states = tensors("cuda")
    spec = specs("cuda")[form]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan = bridges.plan(spec, cache=cache, num_tokens=NUM_TOKENS, backend="torch")
        bridges.store_single_(cache, states, plan)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert cache.any()


@needs_cuda
@pytest.mark.parametrize("form", FORMS)
def test_cuda_graph_replays_with_new_values(form):
    cache, states = tensors("cuda")
    spec = specs("cuda")[form]

    def step() -> None:
        plan = bridges.plan(spec, cache=cache, num_tokens=NUM_TOKENS, backend="torch")
        bridges.store_single_(cache, states, plan)

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()

    # The same memory, the next step: other rows, and a block or slot further.
    cache.zero_()
    states.copy_(torch.arange(states.numel()).view_as(states))
    moved = {"prefill": "block_table", "decode": "block_table", "chunks": "chunks"}
    array = getattr(spec, moved.get(form, "slots"))
    (array[:, 1] if form == "chunks" else array).clamp_(max=4).add_(1)
    graph.replay()

    expected = torch.zeros_like(cache)
    bridges.store_single_(expected, states, spec, backend="torch")
    np.testing.assert_array_equal(cache.float().cpu().numpy(), expected.float().cpu().numpy())
    assert expected.any()
