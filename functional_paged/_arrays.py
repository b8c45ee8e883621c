"""What differs between NumPy, JAX and torch arrays, told without importing any of them."""

from __future__ import annotations

import functools
import sys
from typing import Any, Literal, TypeAlias

import array_api_compat
import numpy as np
from array_api_compat import is_jax_namespace

from ._errors import SpecError
from ._sizes import INT32_MAX, is_surely_at_most
from ._types import Array, Integer

Framework: TypeAlias = Literal["JAX", "NumPy", "torch"]

_NO_ARRAYS = (np.ma.MaskedArray, np.matrix)
"""Not all elements of the one count; the other has two axes whatever is taken of it."""


def framework(x: object) -> Framework | Literal["another"] | None:
    """The framework of an array; `None` for what is no array of the array API."""
    if isinstance(x, (np.ndarray, np.generic)):
        return None if isinstance(x, _NO_ARRAYS) else "NumPy"
    if array_api_compat.is_jax_array(x):
        return "JAX"
    if array_api_compat.is_torch_array(x):
        return "torch"
    return "another" if array_api_compat.is_array_api_obj(x) else None


def type_name(value: object) -> str:
    """The class of a value with its module, for error texts."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def dtype_name(array: Array) -> str:
    """The dtype's name, one spelling for all frameworks: `bfloat16`, `float8_e4m3fn`, `int32`."""
    dtype = array.dtype
    return _numpy_name(dtype) if isinstance(dtype, np.dtype) else str(dtype).removeprefix("torch.")


_numpy_name = functools.cache(str)
"""The name of a NumPy dtype, which NumPy takes microseconds to spell."""


@functools.cache
def is_moved(dtype: object) -> bool:
    """Whether elements of a NumPy or JAX dtype are bits that a store can move."""
    if not isinstance(dtype, np.dtype) or not dtype.isnative:
        return False  # such as JAX's PRNG keys, whose dtype is not NumPy's
    if dtype.kind in "biufc":
        return dtype.char not in "gG"  # long doubles have bits that no framework defines
    return dtype.type.__module__ == "ml_dtypes"  # bfloat16, float8, int4


def placement(array: Array) -> object | None:
    """The device that holds an array, or `None` where it may still be moved.

    NumPy arrays, tracers and uncommitted JAX arrays follow the others. A JAX array that is spread
    over several devices is told by the set of them.
    """
    if array_api_compat.is_jax_array(array):
        is_tracer = isinstance(array, sys.modules["jax"].core.Tracer)
        return None if is_tracer or not array.committed else array.sharding.device_set
    return array.device if array_api_compat.is_torch_array(array) else None


def namespace_of(**arrays: Array) -> Any:
    """The array-API namespace that computes on the named arrays: C3 if there is none for all.

    NumPy arrays follow JAX's.
    """
    found = {framework(array) for array in arrays.values()}
    if "JAX" in found and found <= {"JAX", "NumPy"}:
        return sys.modules["jax"].numpy  # asked for it, array-api-compat moves an array to a device
    try:
        return array_api_compat.array_namespace(*arrays.values())
    except TypeError:
        kinds = ", ".join(f"{name} of {type(x).__module__}" for name, x in arrays.items())
        raise SpecError("C3", f"all arrays must be of one framework, got {kinds}") from None


def device_for_new(array: Array) -> Any:
    """What to pass as `device=` so that a new array joins `array`; JAX decides for itself."""
    return None if array_api_compat.is_jax_array(array) else array_api_compat.device(array)


def slot_dtype(xp: Any, num_slots: int) -> Any:
    """int32 where every slot fits, else int64; C5 where the framework has no int64."""
    if is_surely_at_most(num_slots, INT32_MAX):
        return xp.int32
    if "int64" not in xp.__array_namespace_info__().dtypes(kind="signed integer"):
        raise SpecError(
            "C5",
            "num_blocks * block_size must be < 2**31 where 64-bit integers are off "
            f"(JAX: enable jax_enable_x64), got {num_slots}"
            + ("" if isinstance(num_slots, int) else ", which has no such bound"),
        )
    return xp.int64


def count_at_most(
    xp: Any, ascending: Integer[Array, " n"], numbers: Integer[Array, " m"]
) -> Integer[Array, " m"]:
    """How many elements of `ascending` are at most each of `numbers`."""
    size = ascending.shape[0]
    if not is_jax_namespace(xp) or isinstance(size, int):
        return xp.searchsorted(ascending, numbers, side="right")
    # JAX's unrolls a loop by the size, which an export may leave open. Sorted together, equal
    # elements of `ascending` come first.
    order = xp.argsort(xp.concat([ascending, numbers]))
    counts = xp.cumulative_sum(xp.astype(order < size, xp.int32))
    return counts[xp.argsort(order)[size:]]


def to_numpy(array: Array) -> np.ndarray:
    """Copy an index array to the host; waits for its device. C3 for a tensor without values."""
    if array_api_compat.is_torch_array(array):
        if array.is_meta or hasattr(array, "fake_mode"):
            kind = "meta" if array.is_meta else "fake"
            raise SpecError("C3", f"index arrays must have values to read, got a {kind} tensor")
        array = array.detach().cpu()
    return np.asarray(array)
