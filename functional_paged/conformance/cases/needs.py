"""The clauses that a store has to get right for a spec, as its values decide."""

from __future__ import annotations

import numpy as np

from functional_paged import BlockTable, ChunkPlan, IndexSpec, explain

from .guarded_cache import Shape


def needs(spec: IndexSpec, shape: Shape, num_tokens: int) -> tuple[str, ...]:
    """The clauses but for C5 that decide something of a store, in their order.

    Example:
      >>> from functional_paged import SlotMapping
      >>> needs(SlotMapping(np.int64([5, -1])), (6, 1, 2, 1), num_tokens=2)
      ('C4', 'C14')
    """
    explained = explain(spec, cache_shape=shape, num_tokens=num_tokens)
    clauses = {token.clause for token in explained.tokens}
    for source in explained.sources:
        clauses |= {run.first.clause for run in source.beyond}
        if source.beyond:  # C11: padding or not, it is not to be read
            clauses.add("C11")
    decides = {"C18": num_tokens == 0 or any(0 in array.shape for array in spec.arrays().values())}
    if isinstance(spec, BlockTable):
        decides["C6"] = (spec.context_kv_lens < 0).any()
        decides["C7"] = spec.cu_q_lens is not None and (np.diff(spec.cu_q_lens) == 0).any()
    elif isinstance(spec, ChunkPlan):
        decides["C13"] = (spec.chunks < 0).any() or (spec.chunks[:, 3] == 0).any()
    else:
        decides |= {"C14": (spec.slots < 0).any(), "C4": spec.slots.dtype == "int64"}
    clauses |= {clause for clause, is_needed in decides.items() if is_needed}
    return tuple(sorted(filter(None, clauses), key=lambda clause: int(clause[1:])))
