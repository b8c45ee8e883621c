"""The benchmark on torch: our backends, and what a caller of torch or of an engine would write."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache as once
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor

import bridges
from functional_paged import BlockTable
from functional_paged.internal import bench

Calls: TypeAlias = dict[str, Callable[[], object]]
Pairs: TypeAlias = list[tuple[Tensor, Tensor]]


def ways(problem: bench.Problem) -> dict[str, bench.Timer]:
    """The ways on torch to solve a problem."""
    torch.set_num_threads(problem.threads)
    spec = problem.spec.map(lambda array: torch.from_numpy(array).to(problem.device))
    pairs = pairs_of(problem)
    plan = partial(bridges.plan, spec, cache=pairs[0][0], num_tokens=len(problem.slots))
    ours = {f"ours: {name}": partial(plan, backend=name) for name in bridges.available_backends()}
    calls: Calls = {}
    if problem.group == "plan":
        calls["chunks by a boolean mask"] = partial(chunks_of, spec, problem.cache_shape[2])
        calls |= ours
        calls |= {f"{name}, check=True": partial(made, check=True) for name, made in ours.items()}
    else:
        if problem.group != "growth":
            calls |= _stores_of_others(problem, pairs, spec)
        for name, made in ours.items():
            # A step of layers makes its plan in the time; one store has it already.
            made = made if problem.group == "layers" else once(made)
            calls[name] = lambda made=made: _store_all(bridges.store_single_, pairs, made())
    if problem.device != "cpu":
        wait = torch.cuda.synchronize
        calls = {name: lambda call=call: (call(), wait()) for name, call in calls.items()}
    return {name: bench.timed(call) for name, call in calls.items()}


def pairs_of(problem: bench.Problem) -> Pairs:
    """The caches of a problem, each with its states."""
    shape, rows = problem.cache_shape, len(problem.slots)
    ones = partial(torch.ones, dtype=torch.bfloat16, device=problem.device)
    return [(ones(shape), ones(rows, shape[1], shape[3])) for _ in range(problem.tensors)]


def _store_all(store: Callable[..., object], pairs: Pairs, *index: object) -> None:
    for cache, states in pairs:
        store(cache, states, *index)


def _stores_of_others(problem: bench.Problem, pairs: Pairs, spec: BlockTable) -> Calls:
    """Stores that are not ours, with all that they make of the spec made before."""
    _, kv_heads, block_size, head_dim = problem.cache_shape
    slots = torch.from_numpy(problem.slots).to(problem.device).long()
    blocks, offsets = slots // block_size, slots % block_size
    heads = torch.arange(kv_heads, device=problem.device)
    rows = ((blocks[:, None] * kv_heads + heads) * block_size + offsets[:, None]).flatten()
    chunks = chunks_of(spec, block_size)
    outs = {id(states): states.clone() for _, states in pairs}

    def layout_change(_: Tensor, states: Tensor) -> None:  # heads first in each block
        by_block = states.view(-1, block_size, kv_heads, head_dim).transpose(1, 2)
        outs[id(states)].view(by_block.shape).copy_(by_block)

    def index_put(cache: Tensor, states: Tensor) -> None:
        cache[blocks, :, offsets] = states

    def index_copy(cache: Tensor, states: Tensor) -> None:
        words = states.view(torch.int64)
        cache.view(torch.int64).view(-1, words.shape[2]).index_copy_(0, rows, words.flatten(0, 1))

    def chunk_loop(cache: Tensor, states: Tensor) -> None:  # mojo_opset's, in other words
        for start, block, offset, length in chunks.tolist():
            tokens = states[start : start + length]
            cache[block, :, offset : offset + length] = tokens.transpose(0, 1)

    stores: dict[str, Callable[[Tensor, Tensor], object]] = {}
    stores["copy"] = lambda _, states: outs[id(states)].copy_(states)
    if spec.cu_q_lens is not None:
        stores["layout change"] = layout_change
    stores["index_put_"] = index_put
    stores["index_copy_ of int64 rows"] = index_copy
    stores["a loop over chunks in Python"] = chunk_loop
    if problem.group == "store":
        torch.compiler.reset()  # what it compiled for other sizes and threads
        whole = torch.compile(index_put, dynamic=False, fullgraph=True)
        stores["torch.compile of the indexed store"] = whole
    return {name: partial(_store_all, store, pairs) for name, store in stores.items()}


def chunks_of(spec: BlockTable, block_size: int) -> Tensor:
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
