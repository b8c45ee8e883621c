"""What the bridges, the kit and the docs scripts use of this package's private modules.

For code of this project only: names here change without notice. Whatever others need is public in
`functional_paged` or in `functional_paged.conformance`.
"""

from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

from ._clauses import CLAUSES, SPEC_VERSION, Clause, clause_order
from ._sizes import INT32_MAX, CacheShape, as_cache_shape, as_size
from ._slots import destinations, slots_in
from ._static_checks import (
    REFERENCE,
    TORCH_STORE,
    check_cache,
    check_call,
    check_devices,
    check_index_spec,
    check_kind,
    check_load,
    check_tensors,
)
from ._types import Int32, Integer, Shaped

if TYPE_CHECKING:
    from . import _bench as bench
    from ._explain import cells

# Loaded when they are first used: `import bridges` must not load what draws.
_LAZY = {"bench": "._bench", "cells": "._explain.cells"}


def __getattr__(name: str) -> ModuleType:
    if name in _LAZY:
        return import_module(_LAZY[name], __package__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
