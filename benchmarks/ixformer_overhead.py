"""What a store through a plan costs on the host, around a kernel that does nothing.

    python benchmarks/ixformer_overhead.py

Prints the microseconds of one call: the kernel called directly, `store_single_` with a plan, and
the same kernel behind `torch.library.custom_op`.
"""

from __future__ import annotations

import timeit
from collections.abc import Callable
from types import SimpleNamespace

import torch

import bridges
from bridges.ixformer import IxformerBackend
from bridges.ixformer.model import ModelFunctions
from functional_paged import SlotMapping

CALLS, ROUNDS = 2000, 30


def best_us(call: Callable[[], object]) -> float:
    """Microseconds of one call, in the best of many rounds: the machine's noise only adds."""
    return min(timeit.repeat(call, number=CALLS, repeat=ROUNDS)) / CALLS * 1e6


_model = ModelFunctions()
_trials = [True]


def kernel(*args, **kwargs) -> None:
    """Does nothing, once the trials that it has to pass are over."""
    if _trials:
        _model.paged_store_kv_cache_with_block_table(*args, **kwargs)


@torch.library.custom_op("benchmark::store", mutates_args={"cache"})
def custom_op(
    cache: torch.Tensor, states: torch.Tensor, table: torch.Tensor, contexts: torch.Tensor
) -> None:
    kernel(states, states, cache, cache, table, None, contexts, store_mode=1)


def main() -> None:
    cache = torch.zeros(64, 8, 16, 128, dtype=torch.bfloat16)
    states = torch.zeros(32, 8, 128, dtype=torch.bfloat16)
    slots = torch.arange(32, dtype=torch.int32)
    functions = SimpleNamespace(paged_store_kv_cache_with_block_table=kernel)
    backend = IxformerBackend(functions, device_check=False)
    plan = bridges.plan(SlotMapping(slots), cache=cache, num_tokens=32, backend=backend)
    bridges.store_single_(cache, states, plan)
    _trials.clear()
    table, contexts = slots[:, None], slots

    def direct() -> None:
        kernel(states, states, cache, cache, table, None, contexts, store_mode=1)

    direct_us = best_us(direct)
    calls = {
        "store_single_ with a plan": lambda: bridges.store_single_(cache, states, plan),
        "torch.library.custom_op": lambda: custom_op(cache, states, table, contexts),
    }
    print(f"{'the kernel alone':28}{direct_us:7.2f} us")
    for name, call in calls.items():
        us = best_us(call)
        print(f"{name:28}{us:7.2f} us, {us - direct_us:6.2f} us more, {us / direct_us:6.1f} x")


if __name__ == "__main__":
    main()
