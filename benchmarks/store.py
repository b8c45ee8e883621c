"""What a store costs, as a ratio to copying its states: the least that any store can do.

    python benchmarks/store.py [--trace FILE]

A trace is a file of JSON lines with `input_length`, such as Mooncake's; its quartiles are the
prefills. Without one, three lengths are built in. Each number is the best of several runs, in one
process: ratios may be compared, times of different machines may not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import timeit
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import torch

import bridges
from functional_paged import BlockTable, store_single_donated

KV_HEADS, BLOCK_SIZE, HEAD_DIM = 8, 16, 128
DECODE_BATCH = 32
PREFILLS = (512, 2048, 8192)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--trace", type=Path)
    trace = parser.parse_args().trace
    print(f"{KV_HEADS} heads of {HEAD_DIM}, blocks of {BLOCK_SIZE}, bfloat16, times the copy")
    print(f"{'step':>16}  {'torch':>6}  {'plan':>6}  {'JAX':>6}")
    measure(f"decode {DECODE_BATCH}", *decode_step())
    for length in PREFILLS if trace is None else quartiles(trace):
        measure(f"prefill {length}", *prefill_step(length))


def quartiles(trace: Path) -> list[int]:
    lengths = [json.loads(line)["input_length"] for line in trace.read_text().splitlines()]
    return [int(length) for length in statistics.quantiles(lengths, n=4)]


def decode_step() -> tuple[BlockTable, int]:
    blocks = np.random.default_rng(0).permutation(4 * DECODE_BATCH).reshape(DECODE_BATCH, 4)
    contexts = np.arange(DECODE_BATCH) % (4 * BLOCK_SIZE)
    return BlockTable(blocks.astype(np.int32), contexts.astype(np.int32)), DECODE_BATCH


def prefill_step(length: int) -> tuple[BlockTable, int]:
    width = -(-length // BLOCK_SIZE)
    blocks = np.random.default_rng(0).permutation(width)[None].astype(np.int32)
    return BlockTable(blocks, np.zeros(1, np.int32), np.array([0, length], np.int32)), length


def measure(name: str, spec: BlockTable, num_tokens: int) -> None:
    shape = (int(spec.block_table.max()) + 1, KV_HEADS, BLOCK_SIZE, HEAD_DIM)
    cache = torch.zeros(shape, dtype=torch.bfloat16)
    states = torch.randn(num_tokens, KV_HEADS, HEAD_DIM).bfloat16()
    torch_spec = spec.map(torch.from_numpy)

    def plan() -> bridges.StorePlan:
        return bridges.plan(torch_spec, cache=cache, num_tokens=num_tokens, backend="torch")

    step = plan()
    in_jax = [jnp.zeros(shape, jnp.bfloat16)]
    jax_states, jax_spec = jnp.ones(states.shape, jnp.bfloat16), spec.map(jnp.asarray)

    def donated() -> None:
        in_jax[0] = store_single_donated(in_jax[0], jax_states, jax_spec)
        in_jax[0].block_until_ready()

    copy = best(states.clone)
    calls = (lambda: bridges.store_single_(cache, states, step), plan, donated)
    print(f"{name:>16}  " + "  ".join(f"{best(call) / copy:6.1f}" for call in calls))


def best(call: Callable[[], object]) -> float:
    timer = timeit.Timer(call)
    calls, _ = timer.autorange()
    return min(timer.repeat(7, calls)) / calls


if __name__ == "__main__":
    main()
