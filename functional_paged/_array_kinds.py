"""Which kinds of array each implementation takes; all others are refused here, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import array_api_compat
import numpy as np

from ._errors import SpecError
from ._types import Array

Framework: TypeAlias = Literal["JAX", "NumPy", "torch"]


@dataclass(frozen=True)
class Taker:
    """An implementation, and the frameworks whose arrays it takes.

    Attributes:
      name: where callers import it from.
      frameworks: as error texts name them.
    """

    name: str
    frameworks: tuple[Framework, ...]


REFERENCE = Taker("functional_paged.reference", ("NumPy",))
JAX_STORE = Taker("functional_paged.store_single", ("JAX", "NumPy"))
TORCH_STORE = Taker("bridges.store_single_", ("torch",))
LOWERING = Taker("functional_paged.to_slots", ("JAX", "NumPy", "torch"))
"""What reads or lowers an index spec without storing: `to_slots`, `check_spec` and their like."""


_NUMPY = (np.ndarray, np.generic)
_NO_ARRAYS = (np.ma.MaskedArray, np.matrix)
"""Not all elements of the one count; the other has two axes whatever is taken of it."""


def check_arrays(taken_by: Taker, **arrays: Array) -> None:
    """Check that the named arrays are of a kind that an implementation takes.

    Only kinds are judged, in constant time and without a look at shapes or values. NumPy's arrays
    must not be masked, torch's must be strided and not quantised. Elements are numbers in native
    byte order. Views that torch conjugates or negates as they are read are taken.

    Args:
      taken_by: the implementation that is about to read them.
      **arrays: `cache` and `states` under these names; every other one is an index array.

    Raises:
      SpecError: no array is C1; a dtype that is not moved, or a quantised tensor, is C2; another
        framework is C3; a tensor without strides is C20. For index arrays all but C3 is C4.

    Example:
      >>> check_arrays(REFERENCE, cache=np.zeros((4, 1, 2, 3)), slots=np.int32([3]))
      >>> check_arrays(REFERENCE, slots=np.ma.masked_array(np.int32([3]), [True]))
      Traceback (most recent call last):
      ...
      functional_paged.SpecError: C4: slots must be an int32 array, got numpy.ma.MaskedArray
    """
    for name, array in arrays.items():
        is_index = name not in ("cache", "states")
        misfit = _misfit(taken_by, array, is_index)
        if misfit is not None:
            clause, text = misfit
            raise SpecError("C4" if is_index and clause != "C3" else clause, f"{name} {text}")


def type_name(value: object) -> str:
    """The class of a value with its module, for error texts."""
    return f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")


def _misfit(taken_by: Taker, array: Array, is_index: bool) -> tuple[str, str] | None:
    """The clause that an array of the wrong kind does not meet, and what it must be."""
    framework = _framework(array)
    if framework not in taken_by.frameworks:
        if framework is None:
            return "C1", f"must be an {'int32 ' if is_index else ''}array, got {type_name(array)}"
        noun = "tensor" if taken_by.frameworks == ("torch",) else "array"
        taken = f"{' or '.join(taken_by.frameworks)} {noun}"
        return "C3", f"must be a {taken} for {taken_by.name}, got {type_name(array)}"
    if framework == "torch":
        if array.is_quantized:
            return "C2", "must not be quantised, since a store would lose its scale"
        if array.is_nested:
            return "C20", "must be strided, got a nested tensor"
        if str(array.layout) != "torch.strided":
            return "C20", f"must be strided, got layout {array.layout}"
    elif not is_index and not _is_moved(array.dtype):  # C4 names the dtypes of index arrays
        return "C2", f"must hold numbers in native byte order, got dtype {array.dtype}"
    return None


def _framework(x: object) -> Framework | str | None:
    """The framework of an array; `None` for what is no array of the array API."""
    if isinstance(x, _NUMPY):
        return None if isinstance(x, _NO_ARRAYS) else "NumPy"
    if array_api_compat.is_torch_array(x):
        return "torch"
    if array_api_compat.is_jax_array(x):
        return "JAX"
    return "another" if array_api_compat.is_array_api_obj(x) else None


def _is_moved(dtype: object) -> bool:
    """Whether elements of a NumPy or JAX dtype are bits that a store can move."""
    if not isinstance(dtype, np.dtype) or not dtype.isnative:
        return False  # such as JAX's PRNG keys, whose dtype is not NumPy's
    if dtype.kind in "biufc":
        return dtype.char not in "gG"  # long doubles have bits that no framework defines
    return dtype.type.__module__ == "ml_dtypes"  # bfloat16, float8, int4
