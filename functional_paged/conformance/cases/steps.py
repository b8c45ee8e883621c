"""One step of a serving engine, and short ways to write one down."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping


@dataclass(frozen=True)
class Step:
    """An index spec and how many rows the states of its step have."""

    index_spec: IndexSpec
    num_tokens: int


def table(
    rows: list[list[int]],
    contexts: list[int],
    q_lens: list[int] | None = None,
    *,
    num_tokens: int | None = None,
) -> Step:
    """A step of a block table; decode without `q_lens`."""
    width = len(rows[0]) if rows else 0
    block_table = np.array(rows, np.int32).reshape(len(rows), width)
    cu_q_lens = None if q_lens is None else np.cumsum([0, *q_lens], dtype=np.int32)
    total = len(rows) if cu_q_lens is None else int(cu_q_lens[-1])
    spec = BlockTable(block_table, np.array(contexts, np.int32), cu_q_lens)
    return Step(spec, total if num_tokens is None else num_tokens)


def with_cu_q_lens(step: Step, cu_q_lens: list[int]) -> Step:
    """The step of a block table with any running total, as many tokens as its last says."""
    spec = replace(step.index_spec, cu_q_lens=np.array(cu_q_lens, np.int32))
    return Step(spec, cu_q_lens[-1])


def plan_of(*chunks: tuple[int, int, int, int], num_tokens: int) -> Step:
    """A step of a chunk plan."""
    return Step(ChunkPlan(np.array(chunks, np.int32).reshape(-1, 4)), num_tokens)


def mapping(*slots: int, num_tokens: int | None = None, dtype: type = np.int32) -> Step:
    """A step of a slot mapping."""
    spec = SlotMapping(np.array(slots, dtype))
    return Step(spec, len(slots) if num_tokens is None else num_tokens)
