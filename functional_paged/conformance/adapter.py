"""What a backend must be to be checked, and how one is found by name."""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any, Protocol

import numpy as np

from functional_paged import IndexSpec

from .cases.case import Case


class Adapter(Protocol):
    """NumPy in, NumPy out; bfloat16 and float8 as `ml_dtypes`.

    Three members are required. These are optional, and a case that needs one counts as unsupported
    where it is missing:

    - `info() -> dict`: versions and device.
    - `load(cache, index_spec, num_tokens) -> states`: the read that undoes the store.
    - `check(index_spec, cache_shape, num_tokens)`: raises for a spec that is invalid by value.
    - `vjp(cache, states, index_spec, cotangent) -> (d_cache, d_states)`.
    - `store_apart(cache, states, index_spec)`: stores with states on another device than the cache,
      and must raise.
    """

    name: str

    def unsupported(self, case: Case) -> str | None:
        """Why this backend cannot run a case, or `None` if it can."""
        ...

    def store(self, cache: np.ndarray, states: np.ndarray, index_spec: IndexSpec) -> np.ndarray:
        """Store in place and return `cache` itself, or leave it alone and return a new one."""
        ...


class CaseUnsupported(Exception):
    """Raised by an adapter that finds only on trying that it cannot run a case; says why."""


class BackendNotFound(LookupError):
    """A backend's adapter that does not exist or cannot load; the text says why."""


ENTRY_POINTS = "functional_paged.adapters"
"""The group of entry points that names adapters: ours, and those of any installed package."""
DEFAULT_BACKENDS = ("reference", "jax", "torch")


def info_of(adapter: Any) -> dict[str, str]:
    """The adapter's versions and device, if it tells them."""
    info = adapter.info() if hasattr(adapter, "info") else {}
    return {key: str(value) for key, value in info.items()}


def find_adapter(name: str) -> Any:
    """The adapter of a backend by its entry point, or the one at `package.module:attribute`.

    The attribute may also be a class or a function that makes the adapter.

    Raises:
      BackendNotFound: no such name, module or attribute, or the module cannot be imported.

    Example:
      >>> find_adapter("reference").name
      'reference'
    """
    named = entry_points(group=ENTRY_POINTS)
    path = named[name].value if name in named.names else name
    module, _, attribute = path.partition(":")
    if not attribute:
        raise BackendNotFound(
            f"backend must be one of {', '.join(sorted(named.names))} or "
            f"package.module:attribute, got {name!r}"
        )
    try:
        found = getattr(importlib.import_module(module), attribute)
        if (callable(found) and not hasattr(found, "store")) or isinstance(found, type):
            found = found()
    except (ImportError, OSError, AttributeError) as error:
        raise BackendNotFound(f"backend {name!r} cannot load: {error}") from error
    for member in ("name", "unsupported", "store"):
        if not hasattr(found, member):
            raise BackendNotFound(f"the adapter {name!r} must have a member {member!r}")
    return found
