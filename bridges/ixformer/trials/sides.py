"""Which side of a key and value pair `store_mode=1` writes, seen with four different tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ..call import BLOCK_TABLE_KERNEL
from . import specs
from .canvas import Canvas
from .finding import Finding, attempt, kernel_errors
from .trial import TensorKind, canvases, expected, index_arrays


def written_sides(functions: Any, kind: TensorKind, device: torch.device) -> Finding:
    """Tell the sides; disproven where the keyword is unknown or a side is neither old nor new."""
    kernel = getattr(functions, BLOCK_TABLE_KERNEL)
    trial = specs.decode_rows(7, kind.block_size)

    def once() -> Finding:
        keys, key_states = canvases(kind, trial, device)
        values, value_states = canvases(kind, trial, device)
        # The canaries of both sides are alike; this tells a key's row from a value's.
        value_states.fill_(value_states.host ^ 1)
        tensors = [c.tensor for c in (key_states, value_states, keys, values)]
        indices = index_arrays(trial, device)
        with kernel_errors():
            kernel(*tensors, *indices, store_mode=1)
            written = [cache.memory.cpu().numpy() for cache in (keys, values)]
        key = _change(written[0], keys, expected(keys, key_states, trial))
        value = _change(written[1], values, expected(values, value_states, trial))
        known = "written" in (key, value) and "wrong" not in (key, value)
        text = f"the key side is {key}, the value side is {value}"
        return Finding("proven" if known else "disproven", text)

    return attempt(once)


def _change(memory: np.ndarray, cache: Canvas, stored: np.ndarray) -> str:
    if (memory == stored).all():
        return "written"
    return "untouched" if (memory == cache.host).all() else "wrong"
