"""Every index spec of each form up to a small size: no corner is left to chance.

Specs of one shape are a stack, which JAX lowers and stores at once. A case has a part of a stack.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping

from .case import Case
from .crossing import problem
from .guarded_cache import Shape
from .problem import Problem
from .steps import Step


@dataclass(frozen=True, eq=False)
class Stack:
    """Index specs of one form, one shape and one cache.

    Attributes:
      specs: as one, in whose arrays they lie along the first axis.
      cache_shape: of every spec.
      num_tokens: of every spec.
    """

    specs: IndexSpec
    cache_shape: Shape
    num_tokens: int

    def __len__(self) -> int:
        return len(next(iter(self.specs.arrays().values())))

    def __getitem__(self, number: int) -> IndexSpec:
        return self.specs.map(lambda array: array[number])


SPECS_OF_A_CASE = 4096
HEADS, HEAD_DIM = 2, 32
"""Of the cases: an ordinary row for a kernel, which a small block may be of."""

CLAUSES_OF: dict[str, tuple[str, ...]] = {
    "block_table": ("C5", "C6", "C7", "C8", "C9", "C10", "C11", "C12", "C15", "C18", "C21"),
    "chunks": ("C13", "C8", "C10", "C11", "C12", "C15", "C18"),
    "slots": ("C14", "C10", "C11", "C12", "C15", "C18"),
}


def cases_of(stack: Stack) -> Iterator[Case]:
    """The specs of a stack, each to be stored, as cases of so many."""
    num_blocks, _, block_size, _ = stack.cache_shape
    shape = (num_blocks, HEADS, block_size, HEAD_DIM)
    form, arrays = stack.specs.form, stack.specs.arrays()
    sizes = "x".join(map(str, next(iter(arrays.values())).shape[1:]))
    name = f"small/{form}/n{num_blocks}_s{block_size}_t{stack.num_tokens}_{sizes}"
    name += "_prefill" if "cu_q_lens" in arrays else ""
    for number, start in enumerate(range(0, len(stack), SPECS_OF_A_CASE)):
        numbers = range(start, min(start + SPECS_OF_A_CASE, len(stack)))
        yield Case(
            f"{name}/{number}",
            CLAUSES_OF[form],
            f"every index spec of a small size: {len(numbers)} of {len(stack)}",
            functools.partial(_problem, shape, stack, numbers),
            kind="small",
        )


def _problem(shape: Shape, stack: Stack, numbers: range) -> Problem:
    first = problem(shape, "bf16", Step(stack[numbers[0]], stack.num_tokens))
    return replace(first, others=[stack[number] for number in numbers[1:]])


def block_tables() -> Iterator[Stack]:
    """Up to 2 rows, 2 columns and 2 blocks of 2 positions, in prefill and decode.

    Entries go from a hole to past the cache, contexts from padding to past the table, q lengths
    from 0 to past a block. States have a row for the longest q lengths (C10); where the table has
    fewer than 4 entries, also a row less than those of one block a row need (C11).
    """
    sizes = itertools.product((1, 2), (1, 2), (0, 1, 2), (0, 1, 2))
    for num_blocks, block_size, batch, width in sizes:
        shape = (num_blocks, 1, block_size, 1)
        entries = _every(range(PAD, num_blocks + 1), batch * width)
        entries = entries.reshape(len(entries), batch, width)
        contexts = _every(range(-1, width * block_size + 1), batch)
        q_lens = _every(range(block_size + 2), batch)
        totals = np.pad(q_lens.cumsum(axis=1, dtype=np.int32), ((0, 0), (1, 0)))
        table, context = _pairs(entries, contexts)
        few = {max(0, batch * block_size - 1)} if batch * width < 4 else set[int]()
        for num_tokens in sorted({batch, *few}):
            yield Stack(BlockTable(table, context), shape, num_tokens)
        number, total = _pairs(np.arange(len(table)), totals)
        prefill = BlockTable(table[number], context[number], total)
        for num_tokens in sorted({batch * (block_size + 1), *few}):
            yield Stack(prefill, shape, num_tokens)


def chunk_plans() -> Iterator[Stack]:
    """Up to 2 chunks, 2 tokens and 2 blocks of 2 positions; each field from -1 to past its end."""
    for num_blocks, block_size, num_tokens in itertools.product((1, 2), (1, 2), (0, 1, 2)):
        past = (num_tokens + 1, num_blocks + 1, block_size + 1, block_size + 2)
        chunks = np.array(list(itertools.product(*(range(-1, end) for end in past))), np.int32)
        shape = (num_blocks, 1, block_size, 1)
        first, second = _pairs(chunks, chunks)
        plans = (np.zeros((1, 0, 4), np.int32), chunks[:, None], np.stack([first, second], axis=1))
        for stacked in plans:
            yield Stack(ChunkPlan(stacked), shape, num_tokens)


def slot_mappings() -> Iterator[Stack]:
    """Up to 4 slots from -2 to past the cache, 3 tokens and 2 blocks of 2 positions."""
    sizes = itertools.product((1, 2), (1, 2), (0, 1, 2, 3), range(5))
    for num_blocks, block_size, num_tokens, num_slots in sizes:
        slots = _every(range(-2, num_blocks * block_size + 2), num_slots)
        yield Stack(SlotMapping(slots), (num_blocks, 1, block_size, 1), num_tokens)


SCOPES = {"block_table": block_tables, "chunks": chunk_plans, "slots": slot_mappings}


def _every(values: range, length: int) -> np.ndarray:
    """Every sequence of a length, one a row: int32[count, length]."""
    rows = list(itertools.product(values, repeat=length))
    return np.array(rows, np.int32).reshape(len(rows), length)


def _pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Every pair of an element of `first` and one of `second`, as two arrays of equal length."""
    numbers, others = np.divmod(np.arange(len(first) * len(second)), len(second))
    return first[numbers], second[others]
