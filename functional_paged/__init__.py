"""Writing new tokens into a paged KV cache: the definition, and a pure JAX store that meets it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import SpecError
from ._lowering import plan_chunks, to_slots
from ._spec import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping
from ._value_checks import check_spec

if TYPE_CHECKING:
    from ._explain import explain
    from ._jax.jit import jit, store_single_donated
    from ._jax.store import load_single, store_single, transfer

# What loads with the first use of its name: JAX, and drawing. The rest works without either.
_LAZY = {
    "explain": "_explain",
    "jit": "_jax.jit",
    "load_single": "_jax.store",
    "store_single": "_jax.store",
    "store_single_donated": "_jax.jit",
    "transfer": "_jax.store",
}

__all__ = [
    "PAD",
    "BlockTable",
    "ChunkPlan",
    "IndexSpec",
    "SlotMapping",
    "SpecError",
    "check_spec",
    "explain",
    "jit",
    "load_single",
    "plan_chunks",
    "store_single",
    "store_single_donated",
    "to_slots",
    "transfer",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f".{_LAZY[name]}", __name__), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
