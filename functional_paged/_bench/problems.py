"""What is measured: steps of a serving engine as specs and sizes, bfloat16, of no framework."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from .._lowering import to_slots
from .._spec import BlockTable

GROUPS = {
    "store": ("One tensor, one store, with the plan or the indices made before", "copy", 60),
    "growth": ("The same store into larger caches", "", 15),
    "layers": ("K and V of 32 layers in one step", "copy", 7),
    "plan": ("Planning a step", "chunks by a boolean mask", 60),
}
"""Title, the way that the others are measured against, and rounds."""

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
"""That this process may use."""


@dataclass(frozen=True)
class Problem:
    """One thing to measure, once in a round; the fields hold arrays of NumPy."""

    group: str
    name: str
    spec: BlockTable  # all tokens are stored, in blocks all over the cache
    slots: np.ndarray  # the same. int32[num_tokens]
    cache_shape: tuple[int, int, int, int]  # (num_blocks, kv_heads, block_size, head_dim)
    rounds: int
    size: str = ""  # of the cache, where a way is measured against itself at the first size
    tensors: int = 1  # caches, each with states of its own
    threads: int = CORES  # that a framework may use
    device: str = "cpu"


def problems(*, quick: bool = False, device: str = "cpu") -> Iterator[list[Problem]]:
    """All problems, those that share their rounds together; `quick`: smaller ones, few rounds."""
    heads, dim = (2, 64) if quick else (8, 128)

    def problem(
        group: str, kind: str, tokens: int, block_size: int, mib: int, **others: Any
    ) -> Problem:
        shape = (mib * 2**20 // (2 * heads * block_size * dim), heads, block_size, dim)
        random = np.random.default_rng(0)
        blocks = random.permutation(shape[0]).astype(np.int32)
        if kind == "prefill":  # one sequence from its start
            totals = np.array([0, tokens], np.int32)
            spec = BlockTable(blocks[None, : tokens // block_size], np.zeros(1, np.int32), totals)
        else:  # one token for each row, anywhere in its four blocks
            contexts = random.integers(0, 4 * block_size, tokens, dtype=np.int32)
            spec = BlockTable(blocks[: 4 * tokens].reshape(tokens, 4), contexts)
        slots = to_slots(spec, cache_shape=shape, num_tokens=tokens).slots
        name = f"{kind} {tokens}" + f", S {block_size}" * (block_size != 16)
        rounds = 2 if quick else GROUPS[group][2]
        return Problem(group, name, spec, slots, shape, rounds, device=device, **others)

    # Kind, tokens, block size, MiB of the cache.
    steps = [("prefill", 4096, 16, 16), ("prefill", 4096, 128, 16)]
    steps += [("decode", 64, 16, 16), ("decode", 256, 16, 64)]
    sizes, some = (16, 64, 256, 1024), steps[::2]
    if quick:
        sizes, some = (1, 2), [("prefill", 64, 16, 1), ("decode", 4, 16, 1)]
        steps = some
    found = [[problem("store", *step)] for step in steps]
    for kind, tokens, *_ in some:
        found.append([problem("growth", kind, tokens, 16, mib, size=f"{mib} MiB") for mib in sizes])
    found += [[problem("layers", *step, tensors=4 if quick else 64)] for step in some]
    found += [[problem("plan", *step)] for step in steps]
    for same in found:
        for threads in {CORES} if quick or device != "cpu" else sorted({1, CORES}):
            yield [replace(problem, threads=threads) for problem in same]
