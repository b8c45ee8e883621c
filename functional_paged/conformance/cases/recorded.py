"""Cases of keys and values that a real model stored, which no generator would think of."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources

import ml_dtypes
import numpy as np

from ..bits import short_name
from .case import Case
from .controls import before_shape
from .crossing import forms_of
from .guarded_cache import Shape
from .memory import case_of
from .problem import Problem
from .steps import table


def recorded_cases() -> Iterator[Case]:
    """A prefill that begins inside a page, and a decode batch."""
    shape: Shape = (11, 3, 16, 64)
    for record, prefill, decode in _recorded_kv():
        for name, step, states in (
            ("c5_smollm2_prefill", table([[7, 2, 10]], [5], [len(prefill)]), prefill),
            ("c5_smollm2_decode", table([[7, 2], [9, 0], [1, 3], [6, 4]], [15, 16, 3, 17]), decode),
        ):
            before = before_shape("{}", short_name(states.dtype), shape)
            about = "keys and values of a real model"
            for one in forms_of(step, shape):
                made = Problem(shape, states.dtype, states, one.index_spec)
                yield case_of(name, about, made, before=before, ending=f"/{record}")


def _recorded_kv() -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """`bfloat16/layer00/k`, rows of a prefill, and of decode steps, from SmolLM2-135M-Instruct."""
    path = resources.files("functional_paged.conformance") / "data" / "smollm2_kv.npz"
    with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
        for name in sorted(key for key in file.files if "/" in key):
            is_bfloat16 = name.startswith("bfloat16/")  # npz files know no bfloat16
            states = file[name].view(ml_dtypes.bfloat16) if is_bfloat16 else file[name]
            prefill, decode = np.split(states.copy(), [int(file["prefill_tokens"])])
            yield name, prefill, decode
