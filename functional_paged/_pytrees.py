"""The index specs as JAX pytrees, without importing JAX."""

from __future__ import annotations

import sys
from dataclasses import fields
from typing import Any

import numpy as np

from ._arrays import INT32_MAX

_registered = False


def register_once(*forms: type) -> None:
    """Make dataclasses JAX pytrees if JAX is loaded; loads nothing itself."""
    global _registered
    if _registered:
        return
    # A module is in sys.modules before it has finished loading.
    tree_util = getattr(sys.modules.get("jax"), "tree_util", None)
    if not hasattr(tree_util, "register_pytree_with_keys"):
        return
    _registered = True
    for form in forms:
        _register(tree_util, form)


def _register(tree_util: Any, form: type) -> None:
    names = [field.name for field in fields(form)]
    keys = [tree_util.GetAttrKey(name) for name in names]

    def flatten(spec: Any) -> tuple[list[Any], None]:
        return [_narrow(getattr(spec, name)) for name in names], None

    def flatten_with_keys(spec: Any) -> tuple[list[Any], None]:
        return list(zip(keys, flatten(spec)[0], strict=True)), None

    tree_util.register_pytree_with_keys(
        form, flatten_with_keys, lambda _, children: form(*children), flatten
    )


def _narrow(array: Any) -> Any:
    """Bring NumPy int64 slots into 32 bits before JAX does, which would wrap them (C5).

    What is cut off is not stored, before as after (C12, C14): without 64-bit integers no cache has
    a slot past 2**31.
    """
    if not isinstance(array, np.ndarray) or array.dtype != np.int64:
        return array
    if sys.modules["jax"].dtypes.canonicalize_dtype(np.int64) == np.int64:
        return array
    return np.clip(array, -1, INT32_MAX).astype(np.int32)
