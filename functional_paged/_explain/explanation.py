"""From an index spec to the fate of each token.

Nothing is worked out anew: destinations come from `_slots`, what is invalid from `check_spec`.
What is left to tell is which of the clauses that skip a token skipped it.
"""

from __future__ import annotations

from typing import SupportsIndex

from .._arrays import to_numpy
from .._errors import SpecError
from .._sizes import CacheShape
from .._spec import IndexSpec
from .._static_checks import check_lowering
from .._value_checks import check_spec
from .model import Explanation
from .sources import SOURCES, TokenFates, broken_total_sources


def explain(
    index_spec: IndexSpec, *, cache_shape: CacheShape, num_tokens: SupportsIndex
) -> Explanation:
    """Tell which token goes to which block and slot, and which clause keeps the others out.

    Reads the values on the host. An invalid spec is explained too, as a store without the value
    check treats it.

    Args:
      index_spec: any of the three forms, of concrete NumPy, JAX or torch arrays.
      cache_shape: `(num_blocks, kv_heads, block_size, head_dim)`.
      num_tokens: rows of `states`; any integer, as the four sizes are.

    Returns:
      One entry for each token, under the row or chunk that names it, and what `check_spec` says.
      Chunks may each name all tokens (C13): then a multiple of their number and the tokens' is
      told, and notes count the rest.

    Raises:
      SpecError: C1 and C4 (shapes and dtypes): there is nothing to explain then.

    Example:
      >>> import numpy as np
      >>> from functional_paged import BlockTable
      >>> spec = BlockTable(np.int32([[4, -1]]), np.int32([1]), np.int32([0, 2]))
      >>> explanation = explain(spec, cache_shape=(6, 1, 2, 1), num_tokens=3)
      >>> for token in explanation.tokens:
      ...     print(token.token, token.slot, token.fate.label, token.clause, "-", token.why)
      0 9 stored None - block_table[0, 0] = 4
      1 None hole in the table C8 - block_table[0, 1] = -1
      2 None not named C10 - the spec names 2 tokens
    """
    cache_shape, num_tokens = check_lowering(index_spec, cache_shape, num_tokens)
    host = index_spec.map(to_numpy)
    error = None
    try:
        check_spec(host, cache_shape=cache_shape, num_tokens=num_tokens)
    except SpecError as raised:
        error = raised
    fates = TokenFates(host, cache_shape, num_tokens)
    if error is not None and error.clause == "C21":
        sources = broken_total_sources(error, fates)
    else:
        sources = SOURCES[host.form](host, fates)
    return Explanation(
        form=host.form,
        num_blocks=cache_shape[0],
        block_size=cache_shape[2],
        num_tokens=num_tokens,
        problem=None if error is None else str(error),
        sources=tuple(sources),
    )
