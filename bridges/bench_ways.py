"""The benchmark on torch: our backends, and what a caller of torch or of an engine would write."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TypeAlias

import torch

import bridges
from functional_paged import BlockTable, to_slots
from functional_paged.internal import bench

COPY, LAYOUT = "copy", "layout change"
PLAN = "chunks by a boolean mask"

Store: TypeAlias = Callable[[torch.Tensor, torch.Tensor], object]
"""Stores the states, its second argument, into the cache, its first."""

ways: list[bench.Way] = []


@dataclass(frozen=True, eq=False)
class Step:
    """A problem as tensors on its device.

    Attributes:
      pairs: caches with the states for them.
      spec: the problem's.
      blocks: block of each token. int64[num_tokens]
      offsets: position in that block. int64[num_tokens]
    """

    pairs: list[tuple[torch.Tensor, torch.Tensor]]
    spec: BlockTable
    blocks: torch.Tensor
    offsets: torch.Tensor


@lru_cache(maxsize=4)
def step_of(problem: bench.Problem) -> Step:
    """The tensors of a problem, which its ways share."""
    _, kv_heads, block_size, head_dim = problem.cache_shape

    def ones(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.bfloat16, device=problem.device)

    pairs = [
        (ones(*problem.cache_shape), ones(problem.num_tokens, kv_heads, head_dim))
        for _ in range(problem.tensors)
    ]
    spec = problem.spec.map(lambda array: torch.from_numpy(array).to(problem.device))
    sizes = {"cache_shape": problem.cache_shape, "num_tokens": problem.num_tokens}
    slots = to_slots(spec, **sizes).slots.long()
    return Step(pairs, spec, slots // block_size, slots % block_size)


def timed(problem: bench.Problem, call: Callable[[], object]) -> bench.Timer:
    """A timer of a call to the end of its work on the device."""
    if problem.device == "cpu":
        return bench.timed(call)
    return bench.timed(lambda: (call(), torch.cuda.synchronize()))


def stores(name: str, *groups: str) -> Callable[[Callable[[Step], Store | None]], None]:
    """Add a way to store: what is decorated makes ready for a step, which is not measured.

    Args:
      name: of the way.
      *groups: whose problems it solves; by default a store and all stores of a step.
    """

    def add(make: Callable[[Step], Store | None]) -> None:
        def prepare(problem: bench.Problem) -> bench.Timer | None:
            torch.set_num_threads(problem.threads)
            step = step_of(problem)
            store = make(step)
            if store is None:
                return None

            def call() -> None:
                for cache, states in step.pairs:
                    store(cache, states)

            return timed(problem, call)

        ways.append(bench.Way(name, groups or ("store", "layers"), prepare, COPY))

    return add


def _ours(backend: str) -> None:
    """Add a backend: a store with a plan, a plan, and a plan with all stores of a step."""

    def prepare(problem: bench.Problem, check: bool = False) -> bench.Timer:
        torch.set_num_threads(problem.threads)
        step = step_of(problem)
        sizes = {"cache": step.pairs[0][0], "num_tokens": problem.num_tokens, "backend": backend}

        def plan() -> bridges.StorePlan:
            return bridges.plan(step.spec, check=check, **sizes)

        def store(plan: bridges.StorePlan) -> None:
            for cache, states in step.pairs:
                bridges.store_single_(cache, states, plan)

        match problem.group:
            case "plan":
                return timed(problem, plan)
            case "layers":
                return timed(problem, lambda: store(plan()))
            case _:
                planned = plan()
                return timed(problem, lambda: store(planned))

    ways.append(bench.Way(f"ours: {backend}", ("store", "growth", "layers"), prepare, COPY))
    ways.append(bench.Way(f"ours: {backend}", ("plan",), prepare, PLAN))
    checked = partial(prepare, check=True)
    ways.append(bench.Way(f"ours: {backend}, check=True", ("plan",), checked, PLAN))


@stores(COPY)
def _copy(step: Step) -> Store:
    out = {id(states): states.clone() for _, states in step.pairs}
    return lambda _, states: out[id(states)].copy_(states)


@stores(LAYOUT)
def _layout(step: Step) -> Store | None:
    """The states by blocks, heads first: the order of the cache, without its places."""
    cache, states = step.pairs[0]
    (_, kv_heads, block_size, head_dim), num_tokens = cache.shape, states.shape[0]
    if step.spec.cu_q_lens is None or num_tokens % block_size:
        return None
    blocks = (num_tokens // block_size, block_size, kv_heads, head_dim)

    def by_block(states: torch.Tensor) -> torch.Tensor:
        return states.view(blocks).transpose(1, 2)

    out = {id(states): by_block(states).contiguous() for _, states in step.pairs}
    return lambda _, states: out[id(states)].copy_(by_block(states))


for _name in bridges.available_backends():
    _ours(_name)


@stores("index_put_")
def _index_put(step: Step) -> Store:
    def store(cache: torch.Tensor, states: torch.Tensor) -> None:
        cache[step.blocks, :, step.offsets] = states

    return store


@stores("index_copy_ of int64 rows")
def _index_copy(step: Step) -> Store:
    cache = step.pairs[0][0]
    _, kv_heads, block_size, _ = cache.shape
    heads = torch.arange(kv_heads, device=cache.device)
    rows = (step.blocks[:, None] * kv_heads + heads) * block_size + step.offsets[:, None]
    rows = rows.flatten()

    def store(cache: torch.Tensor, states: torch.Tensor) -> None:
        words = states.view(torch.int64)
        cache.view(torch.int64).view(-1, words.shape[2]).index_copy_(0, rows, words.flatten(0, 1))

    return store


@stores("torch.compile of the indexed store", "store")
def _compiled(step: Step) -> Store:
    torch.compiler.reset()  # what it compiled for other sizes and threads

    @torch.compile(dynamic=False, fullgraph=True)
    def store(
        cache: torch.Tensor, states: torch.Tensor, blocks: torch.Tensor, offsets: torch.Tensor
    ) -> None:
        cache[blocks, :, offsets] = states

    return lambda cache, states: store(cache, states, step.blocks, step.offsets)


@stores("a loop over chunks in Python")
def _chunk_loop(step: Step) -> Store:
    """mojo_opset's core operator, in other words."""
    chunks = chunks_of(step.spec, step.pairs[0][0].shape[2])

    def store(cache: torch.Tensor, states: torch.Tensor) -> None:
        for start, block, offset, length in chunks.tolist():
            rows = states[start : start + length]
            cache[block, :, offset : offset + length] = rows.transpose(0, 1)

    return store


def chunks_of(spec: BlockTable, block_size: int) -> torch.Tensor:
    """The chunks as mojo_opset plans them, in other words: a mask over rows and columns."""
    table, contexts = spec.block_table, spec.context_kv_lens
    if spec.cu_q_lens is None:
        column = contexts // block_size
        inside = (contexts >= 0) & (column < table.shape[1])
        column = column.clamp(0, table.shape[1] - 1).long()
        block = table.gather(1, column[:, None])[:, 0]
        source = torch.arange(len(contexts), dtype=torch.int32, device=table.device)
        rows = (source, block, contexts % block_size, torch.ones_like(contexts))
        return torch.stack(rows, 1)[inside & (block >= 0)]
    starts, first = spec.cu_q_lens[:-1, None], contexts[:, None]
    past = first + spec.cu_q_lens[1:, None] - starts
    edges = torch.arange(table.shape[1], dtype=torch.int32, device=table.device) * block_size
    begin, end = torch.maximum(first, edges), torch.minimum(past, edges + block_size)
    rows = (starts + begin - first, table, begin - edges, end - begin)
    return torch.stack(rows, 2)[(first >= 0) & (end > begin) & (table >= 0)]


def _planned(problem: bench.Problem) -> bench.Timer:
    torch.set_num_threads(problem.threads)
    spec = step_of(problem).spec
    return timed(problem, lambda: chunks_of(spec, problem.cache_shape[2]))


ways.append(bench.Way(PLAN, ("plan",), _planned, PLAN))
