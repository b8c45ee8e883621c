"""The backends by name: which exist, which load, and which one a call gets."""

from __future__ import annotations

import os
from collections.abc import Callable

from ._backend import Backend, BackendUnsupported

VARIABLE = "FUNCTIONAL_PAGED_BACKEND"


def _torch() -> Backend:
    from .torch_inplace import TorchBackend

    return TorchBackend()


# Best first. A loader returns the backend or raises BackendUnsupported with the reason.
_LOADERS: dict[str, Callable[[], Backend]] = {"torch": _torch}
_loaded: dict[str, Backend] = {}


def available_backends() -> dict[str, str | None]:
    """Tell which backends this machine can load.

    Returns:
      Every known name, best first, with the reason why it cannot load, or `None` if it can.

    Example:
      >>> available_backends()["torch"] is None
      True
    """
    return {name: _why_not(name) for name in _LOADERS}


def resolve(backend: str | Backend | None) -> Backend:
    """The backend object that a call gets; see `plan`."""
    if backend is None:
        backend = os.environ.get(VARIABLE) or _best()
    if not isinstance(backend, str):
        return backend
    if backend not in _LOADERS:
        raise BackendUnsupported(f"backend {backend!r} does not exist; {_overview()}")
    return _load(backend)


def _best() -> str:
    for name in _LOADERS:
        if _why_not(name) is None:
            return name
    raise BackendUnsupported(f"no backend can load; {_overview()}")


def _load(name: str) -> Backend:
    if name not in _loaded:
        try:
            _loaded[name] = _LOADERS[name]()
        except BackendUnsupported as error:
            raise BackendUnsupported(
                f"backend {name!r} cannot load: {error}; {_overview(but=name)}"
            ) from error
    return _loaded[name]


def _why_not(name: str) -> str | None:
    if name in _loaded:
        return None
    try:
        _loaded[name] = _LOADERS[name]()
    except BackendUnsupported as error:
        return str(error)
    return None


def _overview(but: str | None = None) -> str:
    reasons = {name: _why_not(name) for name in _LOADERS if name != but}
    return "backends: " + ", ".join(
        name if reason is None else f"{name} (cannot load: {reason})"
        for name, reason in reasons.items()
    )
