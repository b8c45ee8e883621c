"""The triton backend: interpreted on the CPU, compiled for GPUs, and run on one where it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import bridges
from bridges import BackendUnsupported
from functional_paged import SlotMapping
from tests.helpers import loaded_by, run, without

triton = pytest.importorskip("triton")
TESTS = Path(__file__).parent

ADAPTER = "bridges.conformance_adapters:triton_backend"
CODE = "from functional_paged._cli import main; main()"
QUICK_CHECK = ("-c", CODE, "check", "--quick", "--jobs", "1", "--backend", ADAPTER)


def check_process(*words: str | Path, interpreted: bool) -> None:
    """Run Python in a process of its own, where triton may interpret all kernels."""
    done = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=TESTS.parent,
        env={**os.environ, "TRITON_INTERPRET": str(int(interpreted))},
    )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2_000:]


def test_interpreted_in_every_layout_and_width_in_pairs_in_graphs_and_in_trials():
    tests = TESTS / "interpreted_triton.py"
    check_process("-m", "pytest", "-q", "-p", "no:cacheprovider", tests, interpreted=True)


def test_interpreted_in_the_quick_cases_of_the_kit():
    check_process(*QUICK_CHECK, interpreted=True)


CPU = SlotMapping(torch.tensor([3]))


@pytest.mark.skipif("TRITON_INTERPRET" in os.environ, reason="then the CPU is served")
def test_the_cpu_is_not_served_and_the_reason_says_what_to_do():
    reason = bridges.available_backends("cpu")["triton"]
    assert reason is not None
    assert "a GPU that torch calls cuda, got cpu; move them, or " in reason
    assert "TRITON_INTERPRET=1" in reason
    cache = torch.zeros(2, 1, 2, 1)
    with pytest.raises(BackendUnsupported, match=r"^backend 'triton' cannot serve: tensors"):
        bridges.store_single_(cache, torch.ones(1, 1, 1), CPU, backend="triton")
    bridges.store_single_(cache, torch.ones(1, 1, 1), CPU)
    assert cache.sum() == 1


def test_bridges_has_the_operators_and_does_not_load_triton():
    use = "import torch, bridges\ntorch.ops.functional_paged.triton_store.default"
    assert loaded_by(use, ("torch", "triton")) == {"torch"}


def test_without_triton_the_reason_is_kept_and_others_serve():
    done = run(
        f"{without('triton')}\nimport torch, bridges\nfrom functional_paged import SlotMapping\n"
        "cache = torch.zeros(2, 1, 2, 1)\n"
        "bridges.store_single_(cache, torch.ones(1, 1, 1), SlotMapping(torch.tensor([3])))\n"
        "print(cache.sum().item(), bridges.available_backends('cuda')['triton'])"
    )
    want = "1.0 cannot load: ModuleNotFoundError: No module named 'triton'\n"
    assert done.stdout == want, done.stderr


KINDS = {
    # name: kv_heads, head_dim and dtype of either side, bits that a thread moves at a time
    "bf16, 8 heads of 128": ([(8, 128, torch.bfloat16)] * 2, [128]),
    "float8": ([(8, 128, torch.float8_e4m3fn)] * 2, [128]),
    "float32": ([(2, 64, torch.float32)] * 2, [128]),
    "of two widths": ([(1, 576, torch.bfloat16), (1, 576, torch.float8_e5m2)], [64, 128]),
    "bf16, 3 heads of 46": ([(3, 46, torch.bfloat16)] * 2, [16]),
}


@pytest.fixture(params=[("cuda", 80), ("cuda", 90), ("hip", "gfx942")], ids=lambda t: t[1])
def compiled(request, monkeypatch, tmp_path):
    """Compile what a launch would run, for a GPU that need not be there."""
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    from bridges import _triton_kernel

    kind, arch = request.param
    found = []

    class Compiling:
        def __getitem__(self, grid):
            def compile_it(*given, **options):
                found.append((grid, kernel.warmup(*given, grid=grid, **options).asm))

            return compile_it

    class Driver:
        def get_current_target(self):
            return GPUTarget(kind, arch, 32 if kind == "cuda" else 64)

        def get_current_device(self):
            return 0

        def get_current_stream(self, device):
            return 0

    kernel = triton.jit(_triton_kernel.store_kernel.fn)
    monkeypatch.setattr(_triton_kernel, "store_kernel", Compiling())
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(driver, "_active", Driver())
    return kind, _triton_kernel.launch, found


@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION")
@pytest.mark.parametrize("name", KINDS)
def test_it_compiles_for_gpus_and_moves_as_many_bits_at_a_time_as_it_can(compiled, name):
    kind, launch, found = compiled
    sides, widths = KINDS[name]
    caches = [torch.zeros(64, heads, 16, dim, dtype=dtype) for heads, dim, dtype in sides]
    states = [torch.zeros(32, heads, dim, dtype=dtype) for heads, dim, dtype in sides]
    launch(caches, states, torch.zeros(32, dtype=torch.int32))
    ((grid, asm),) = found
    assert (grid[0], grid[2]) == (32, 2)
    assert ("cubin" if kind == "cuda" else "hsaco") in asm
    if kind == "cuda":
        moves = re.findall(r"st\.global(?:\.v(\d))?\.b(\d+)", asm["ptx"])
        assert sorted({int(n or 1) * int(bits) for n, bits in moves}) == widths


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
SHAPE, TOKENS = (9, 2, 16, 24), 40


def step(seed: int) -> SimpleNamespace:
    """K and V of one step on the GPU: slots in no order, a third of them not stored."""
    random = torch.Generator().manual_seed(seed)
    slots = torch.randperm(SHAPE[0] * SHAPE[2], generator=random)[:TOKENS]
    slots[::3] = -1
    states = torch.randn(2, TOKENS, SHAPE[1], SHAPE[3], generator=random)
    keys, values = states.cuda()
    return SimpleNamespace(slots=slots.cuda(), keys=keys, values=values.half())


def store(caches: list[torch.Tensor], given: Any, backend: str) -> None:
    spec = SlotMapping(given.slots)
    plan = bridges.plan(spec, cache=caches[0], num_tokens=TOKENS, backend=backend)
    plan.lowered.write_(tuple(caches), (given.keys, given.values))


def caches() -> list[torch.Tensor]:
    return [torch.zeros(SHAPE, device="cuda"), torch.zeros(SHAPE, device="cuda").half()]


@needs_cuda
def test_cuda_waits_for_nothing():
    given, here = step(0), caches()
    store(here, given, "triton")  # compiled
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        store(here, given, "triton")
    finally:
        torch.cuda.set_sync_debug_mode("default")


@needs_cuda
def test_cuda_graph_replays_with_other_slots_and_rows():
    given, here = step(0), caches()
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        store(here, given, "triton")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        store(here, given, "triton")
    for seed in (1, 2):
        expected = caches()
        store(expected, step(seed), "torch")
        for name, tensor in vars(step(seed)).items():
            getattr(given, name).copy_(tensor)
        for cache in here:
            cache.zero_()
        graph.replay()
        for got, want in zip(here, expected, strict=True):
            np.testing.assert_array_equal(got.cpu().numpy(), want.cpu().numpy())
            assert want.any()


@needs_cuda
def test_cuda_in_the_quick_cases_of_the_kit():
    check_process(*QUICK_CHECK, interpreted=False)
