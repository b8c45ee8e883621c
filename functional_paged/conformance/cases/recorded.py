"""Cases of keys and values that a real model stored."""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np

from functional_paged import PAD

from .case import Case
from .crossing import Shape, forms_of
from .problem import Problem
from .recordings import recorded_kv
from .steps import table


def recorded_cases() -> Iterator[Case]:
    """A prefill that begins inside a page, and a decode batch with a hole."""
    shape: Shape = (11, 3, 16, 64)
    for record in recorded_kv():
        prefill, decode = np.split(record.states.copy(), [record.prefill_tokens])
        steps = {
            "prefill": (table([[7, 2, 10]], [5], [len(prefill)]), prefill),
            "decode": (table([[7, 2], [9, 0], [1, 3], [PAD, 4]], [15, 16, 3, 17]), decode),
        }
        for name, (step, states) in steps.items():
            for spec in forms_of(step, shape):
                yield Case(
                    f"c5_smollm2_{name}/{spec.form}/{record.name}",
                    ("C5", "C16"),
                    f"keys and values of a real model: {name}",
                    functools.partial(Problem, shape, record.states.dtype, states, spec),
                )
