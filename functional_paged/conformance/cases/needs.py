"""The clauses that a store has to get right for a spec, as its values decide."""

from __future__ import annotations

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping, explain

from .guarded_cache import Shape


def needs(spec: IndexSpec, shape: Shape, num_tokens: int) -> tuple[str, ...]:
    """The clauses but for C5 that decide something of a store, in their order.

    Example:
      >>> import numpy as np
      >>> needs(SlotMapping(np.int64([5, -1])), (6, 1, 2, 1), num_tokens=2)
      ('C4', 'C14')
    """
    explained = explain(spec, cache_shape=shape, num_tokens=num_tokens)
    clauses = {token.clause for token in explained.tokens}
    for source in explained.sources:
        clauses |= {run.first.clause for run in source.beyond}
        if source.beyond:  # C11: padding or not, it is not to be read
            clauses.add("C11")
    if num_tokens == 0 or any(0 in array.shape for array in spec.arrays().values()):
        clauses.add("C18")
    clauses |= _OF_FORM[type(spec)](**vars(spec))
    return tuple(sorted(filter(None, clauses), key=lambda clause: int(clause[1:])))


def _of_a_table(block_table, context_kv_lens, cu_q_lens) -> set[str]:
    clauses = {"C6"} if (context_kv_lens < 0).any() else set()
    if cu_q_lens is not None and (cu_q_lens[1:] == cu_q_lens[:-1]).any():
        clauses.add("C7")
    return clauses


def _of_a_plan(chunks) -> set[str]:
    return {"C13"} if (chunks < 0).any() or (chunks[:, 3] == 0).any() else set()


def _of_slots(slots) -> set[str]:
    clauses = {"C14"} if (slots < 0).any() else set()
    return clauses | ({"C4"} if slots.dtype == "int64" else set())


_OF_FORM = {BlockTable: _of_a_table, ChunkPlan: _of_a_plan, SlotMapping: _of_slots}
