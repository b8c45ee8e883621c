"""Cases as data, with inputs and expected bits; `docs/conformance.md` has the format.

python -m functional_paged.conformance.cases.vectors FILE
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from functional_paged import reference
from functional_paged.internal import SPEC_VERSION

from ..bits import DTYPES, as_bits
from .case import Case
from .crossing import cases_of
from .memory import payload_cases
from .scenarios import example_steps
from .suite import EVERY_DTYPE

FORMAT_VERSION = 1
SHAPE = (6, 2, 3, 5)


def vector_cases() -> Iterator[Case]:
    """The cases of the vectors: each scenario whose outcome is one, in every form."""
    for name, step in example_steps(SHAPE[0], SHAPE[2]).items():
        for dtype in sorted(DTYPES, key=lambda dtype: dtype != "bf16"):  # the main one first
            if name in EVERY_DTYPE or (dtype == "bf16" and not name.startswith("c15")):
                yield from cases_of(name, step, dtype, SHAPE)
    yield from payload_cases(SHAPE)


def vectors() -> str:
    """The text of the vector file, from the reference: a line of JSON a case."""
    lines = [_vector(case) for case in vector_cases()]
    head = {
        "format": "functional-paged vectors",
        "format_version": FORMAT_VERSION,
        "spec_version": SPEC_VERSION,
        "count": len(lines),
    }
    return "".join(json.dumps(line) + "\n" for line in (head, *lines))


def _vector(case: Case) -> dict[str, Any]:
    problem = case.build()
    cache = problem.guarded_cache().cache
    expected = reference.store_single(cache, problem.states, problem.index_spec)
    return {
        "id": case.id,
        "clauses": list(case.clauses),
        "dtype": problem.dtype.name,
        "cache_shape": list(cache.shape),
        "states_shape": list(problem.states.shape),
        "index_spec": {
            name: {
                "dtype": array.dtype.name,
                "shape": array.shape,
                "values": array.ravel().tolist(),
            }
            for name, array in problem.index_spec.arrays().items()
        },
        "cache": _hex(cache),
        "states": _hex(problem.states),
        "expected": _hex(expected),
    }


def _hex(array: np.ndarray) -> str:
    bits = as_bits(array)
    return bits.astype(bits.dtype.newbyteorder("<")).tobytes().hex()


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(vectors())
