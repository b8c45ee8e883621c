"""The stores of vLLM and FlashInfer in the benchmark on a CUDA device. Unproven: never run."""

from __future__ import annotations

import importlib

import torch

from functional_paged.internal import bench

from .bench_ways import Step, Store, stores

ways: list[bench.Way] = []


@stores(ways, "vLLM's CUDA kernel, half a pair", "store", per=2)
def _vllm(step: Step) -> Store | None:
    cache, states = step.pairs[0]
    if cache.device.type == "cpu":
        return None
    store = importlib.import_module("vllm._custom_ops").reshape_and_cache_flash
    values, by_token = states.clone(), [cache.transpose(1, 2).contiguous() for _ in range(2)]
    slots, scale = step.blocks * cache.shape[2] + step.offsets, torch.ones((), device=cache.device)
    return lambda _, states: store(states, values, *by_token, slots, "auto", scale, scale)


@stores(ways, "FlashInfer's append, half a pair", "store", per=2)
def _flashinfer(step: Step) -> Store | None:
    cache, states = step.pairs[0]
    if cache.device.type == "cpu":
        return None
    store = importlib.import_module("flashinfer").append_paged_kv_cache
    values, value_cache = states.clone(), cache.clone()
    batch, width = step.spec.block_table.shape
    rows = torch.arange(batch + 1, dtype=torch.int32, device=cache.device)
    positions = step.spec.context_kv_lens
    if step.spec.cu_q_lens is not None:  # one sequence
        positions = positions + torch.arange(len(states), dtype=torch.int32, device=cache.device)
    batch_of_token = rows[:-1].expand(len(states)) if batch == 1 else rows[:-1]
    blocks, last = step.spec.block_table.flatten(), torch.full_like(rows[1:], cache.shape[2])
    pages = (blocks, rows * width, last)
    return lambda cache, states: store(
        states, values, batch_of_token, positions, (cache, value_cache), *pages, kv_layout="HND"
    )
