"""Shapes in annotations, for arrays of any framework.

jaxtyping checks them under pytest. It is no dependency, and takes as long to import as NumPy: where
nothing has loaded it, an annotation such as `Int32[Array, " batch"]` is `Any`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeAlias

Array: TypeAlias = Any
"""An array of NumPy, JAX or torch: whatever has a `shape` and a `dtype`."""

if TYPE_CHECKING:
    from jaxtyping import Bool, Int32, Integer, PyTree, Shaped

    Size: TypeAlias = int
else:

    class _Unchecked:
        def __class_getitem__(cls, item):
            return Any

    Size: TypeAlias = Any  # a Python integer, or one that a JAX export or a torch graph solves for
    if "jaxtyping" in sys.modules:
        from jaxtyping import Bool, Int32, Integer, Shaped
    else:
        Bool = Int32 = Integer = Shaped = _Unchecked
    PyTree = _Unchecked  # jaxtyping's loads JAX

__all__ = ["Array", "Bool", "Int32", "Integer", "PyTree", "Shaped", "Size"]
