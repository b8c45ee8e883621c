"""vLLM's CPU kernel in the benchmark."""

from __future__ import annotations

import torch

from functional_paged import to_slots
from functional_paged.internal import bench

from .vllm_cpu import isa_of, load_library


def _prepare(problem: bench.Problem) -> bench.Timer | None:
    if problem.device != "cpu":
        return None
    load_library()
    torch.set_num_threads(problem.threads)
    shape, num_tokens = problem.cache_shape, problem.num_tokens
    key_cache, value_cache = (torch.ones(shape, dtype=torch.bfloat16) for _ in range(2))
    key, value = (torch.ones(num_tokens, shape[1], shape[3]).bfloat16() for _ in range(2))
    spec = problem.spec.map(torch.from_numpy)
    slots = to_slots(spec, cache_shape=shape, num_tokens=num_tokens).slots.long()
    args = (key, value, key_cache, value_cache, slots, isa_of(*shape[2:]))
    return bench.timed(lambda: torch.ops._C.cpu_attn_reshape_and_cache(*args), per=2)


ways = [bench.Way("vLLM's CPU kernel, half a pair", ("store",), _prepare, "copy")]
