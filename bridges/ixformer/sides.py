"""Which side of a key and value pair `store_mode=1` writes, seen with four different tensors."""

from __future__ import annotations

from typing import Any

import torch

from . import trial_specs as specs
from .call import BLOCK_TABLE_KERNEL
from .canvas import Canvas
from .report import DISPROVEN, PROVEN, Capability
from .trial import Kind, canvases, expected, index_arrays

NAME = "store_mode=1: the sides that it writes"


def written_sides(functions: Any, kind: Kind, device: torch.device) -> Capability:
    """Tell the sides; disproven where the keyword is unknown or a side is neither old nor new."""
    kernel = getattr(functions, BLOCK_TABLE_KERNEL)
    trial = specs.decode_rows(7, kind.block_size)
    key_cache, key_states = canvases(kind, trial, device)
    value_cache, value_states = canvases(kind, trial, device)
    # The canaries of both sides are alike; this tells a key's row from a value's.
    value_states.host ^= 1
    value_states.memory.copy_(torch.from_numpy(value_states.host))
    tensors = [c.tensor for c in (key_states, value_states, key_cache, value_cache)]
    try:
        kernel(*tensors, *index_arrays(trial, device), store_mode=1)
        found = {
            "key": _change(key_cache, expected(key_cache, key_states, trial)),
            "value": _change(value_cache, expected(value_cache, value_states, trial)),
        }
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a kernel does is a finding
        return Capability(NAME, DISPROVEN, f"{type(error).__name__}: {error}")
    text = ", ".join(f"the {side} side is {change}" for side, change in found.items())
    known = "written" in found.values() and set(found.values()) <= {"written", "untouched"}
    return Capability(NAME, PROVEN if known else DISPROVEN, text)


def _change(cache: Canvas, stored: Any) -> str:
    memory = cache.memory.cpu().numpy()
    if (memory == stored).all():
        return "written"
    return "untouched" if (memory == cache.host).all() else "wrong"
