"""The slots of an index spec in host memory: the definition's own loops, where numba compiles them.

Without numba the array form computes them under NumPy, whose calls cost a fraction of torch's.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import array_api_compat.numpy as xp
import numpy as np
import torch

from functional_paged import BlockTable, ChunkPlan, IndexSpec, SlotMapping, reference
from functional_paged.internal import CacheShape, Integer, slots_in


def slots_on_host(
    index_spec: IndexSpec, cache_shape: CacheShape, num_tokens: int
) -> Integer[torch.Tensor, " num_tokens"]:
    """`slots_in` for a checked spec of CPU tensors, read now."""
    host: Any = index_spec.map(lambda tensor: tensor.numpy(force=True))  # of negated views, too
    if has_numba():
        host, loops = host.map(np.ascontiguousarray), {type(host): _loop(type(host))}
        slots = reference.slots_of(host, cache_shape, num_tokens, loops)
    else:
        slots = slots_in(xp, host, cache_shape, num_tokens)
    return torch.from_numpy(slots)


@functools.cache
def has_numba() -> bool:
    """Whether numba is installed, told without loading it."""
    return importlib.util.find_spec("numba") is not None


def compiled(decorator: Callable[..., Any], signature: Any, function: Callable[..., None]) -> Any:
    """A function that one of numba's decorators has compiled for a signature.

    It is kept on disk for the next process, and in memory alone where numba finds no folder that
    it can write, or what it finds there is broken.
    """
    try:
        return decorator(signature, cache=True)(function)
    except Exception:  # what is wrong with the function itself is raised again
        return decorator(signature)(function)


_SIGNATURES = {
    BlockTable: [
        "void(i8[::1], i8, i4[:, ::1], i4[::1], i4[::1])",
        "void(i8[::1], i8, i4[:, ::1], i4[::1], none)",
    ],
    ChunkPlan: ["void(i8[::1], i8, i4[:, ::1])"],
    SlotMapping: ["void(i8[::1], i8, i4[::1])", "void(i8[::1], i8, i8[::1])"],
}
"""Of each form's loop in `reference`: `loop(slots, block_size, *arrays)`."""


@functools.cache
def _loop(form: type) -> Callable[..., None]:
    from numba import njit

    return compiled(njit, _SIGNATURES[form], reference.LOOPS[form])
