"""What is measured: steps of a serving engine as specs and sizes, bfloat16, of no framework."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from .._spec import BlockTable

GROUPS = {
    "store": "One tensor, one store, with the plan or the indices made before",
    "growth": "The same store into larger caches",
    "layers": "K and V of 32 layers in one step",
    "plan": "Planning a step",
    "call": "A call on the host, around a kernel that does nothing",
    "first-use": "First use, each in a process of its own",
}
"""Names and titles of the groups."""

MIB = 2**20


@dataclass(frozen=True, eq=False)
class Problem:
    """One thing to measure. Those of one group, name and number of threads share their rounds.

    Attributes:
      group: one of `GROUPS`.
      name: such as `decode 64`.
      spec: of NumPy arrays; all of its tokens are stored, in blocks all over the cache.
      num_tokens: rows of the states.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`, bfloat16.
      rounds: how often each way is timed.
      threads: that a framework may use.
      tensors: caches, each with states of its own.
      variant: what tells it from the first problem of its rounds, which it is measured against.
      device: where the tensors are.
    """

    group: str
    name: str
    spec: BlockTable
    num_tokens: int
    cache_shape: tuple[int, int, int, int]
    rounds: int
    threads: int = 1
    tensors: int = 1
    variant: str = ""
    device: str = "cpu"


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def problems(*, quick: bool = False, device: str = "cpu") -> list[list[Problem]]:
    """All problems, by the rounds that they share; `quick`: smaller ones, a few rounds."""
    rounds: dict[tuple[str, str, int], list[Problem]] = {}
    for problem in _all(quick):
        once = quick or device != "cpu" or problem.group in ("call", "first-use")
        for threads in {cores()} if once else sorted({1, cores()}):
            same = rounds.setdefault((problem.group, problem.name, threads), [])
            same.append(replace(problem, device=device, threads=threads))
    return list(rounds.values())


def _all(quick: bool) -> Iterator[Problem]:
    few, some, many = (1, 2, 3) if quick else (7, 15, 60)
    heads, dim = (2, 64) if quick else (8, 128)
    decodes, prefill = ([4], 64) if quick else ([64, 256], 4096)

    def problem(
        group: str, kind: str, tokens: int, block_size: int = 16, rounds: int = many, mib: float = 0
    ) -> Problem:
        block_bytes = 2 * heads * block_size * dim
        needed = 4 * tokens if kind == "decode" else math.ceil(tokens / block_size)
        num_blocks = int(mib * MIB) // block_bytes if mib else 2 * needed
        spec = STEPS[kind](tokens, block_size, num_blocks)
        name = f"{kind} {tokens}" + (f", S {block_size}" if block_size != 16 else "")
        shape = (num_blocks, heads, block_size, dim)
        return Problem(group, name, spec, tokens, shape, rounds)

    steps = [("prefill", prefill, 16), *(("decode", tokens, 16) for tokens in decodes)]
    if not quick:
        steps.insert(1, ("prefill", prefill, 128))
    yield from (problem("store", *step) for step in steps)
    for kind, tokens in (("prefill", prefill), ("decode", decodes[0])):
        for mib in (1, 2) if quick else (16, 64, 256, 1024):
            found = problem("growth", kind, tokens, rounds=some, mib=mib)
            yield replace(found, variant=f" at {mib} MiB")
        yield replace(problem("layers", kind, tokens, rounds=few), tensors=4 if quick else 64)
    yield from (problem("plan", *step) for step in steps)
    yield replace(problem("call", "decode", 1), name="a call")
    yield replace(problem("first-use", "decode", 1, rounds=few), name="a process")


def _decode(tokens: int, block_size: int, num_blocks: int) -> BlockTable:
    """One token for each row of the table, anywhere in its four blocks."""
    random = np.random.default_rng(0)
    blocks = random.permutation(num_blocks)[: 4 * tokens].astype(np.int32)
    contexts = random.integers(0, 4 * block_size, tokens, dtype=np.int32)
    return BlockTable(blocks.reshape(tokens, 4), contexts)


def _prefill(tokens: int, block_size: int, num_blocks: int) -> BlockTable:
    """One sequence from its start."""
    blocks = np.random.default_rng(0).permutation(num_blocks).astype(np.int32)
    table = blocks[None, : math.ceil(tokens / block_size)]
    return BlockTable(table, np.zeros(1, np.int32), np.array([0, tokens], np.int32))


STEPS = {"decode": _decode, "prefill": _prefill}
