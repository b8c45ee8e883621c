"""The backends by name: which exist, which load, and which one a call gets."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable

from ._backend import Backend, BackendUnsupported
from ._compiler import constant_in_graphs

VARIABLE = "FUNCTIONAL_PAGED_BACKEND"


def _made_by(module: str, name: str) -> Callable[[], Backend]:
    return lambda: getattr(importlib.import_module(module, __package__), name)()


# Best first. By the names of modules, which may themselves look up a backend here.
_LOADERS: dict[str, Callable[[], Backend]] = {
    "ixformer": _made_by(".ixformer", "IxformerBackend"),
    "torch": _made_by(".torch_inplace", "TorchBackend"),
}
_lock = threading.RLock()  # a loader may ask for another backend
_named: dict[str, Backend] = {}
_reasons: dict[str, str] = {}


def available_backends() -> dict[str, str | None]:
    """Tell which backends this machine can load.

    Returns:
      Every known name, best first, with the reason why it cannot load, or `None` if it can.
      Each is tried once in a process.

    Example:
      >>> available_backends()["torch"] is None
      True
    """
    return {name: None if _load(name) else _reasons[name] for name in _LOADERS}


def resolve(backend: str | Backend | None) -> tuple[str, Backend]:
    """The backend that a call gets, see `plan`, with its name in this process."""
    if backend is None:
        backend = os.environ.get(VARIABLE) or _best()
    return name_of(backend), find(backend) if isinstance(backend, str) else backend


def name_of(backend: str | Backend) -> str:
    """The name by which `find` gives this backend in this process.

    An object that a caller made is known by its name from then on, with a number behind it where
    the name is another object's.
    """
    if isinstance(backend, str):
        return backend
    if isinstance(backend, type) or not isinstance(getattr(backend, "name", None), str):
        raise TypeError(
            f"backend must be a name, a bridges.Backend or None, got {backend!r}; {_overview()}"
        )
    return backend.name if _named.get(backend.name) is backend else _name_for(backend)


def find(name: str) -> Backend:
    """The one backend object of a name in this process."""
    if _load(name):
        return _named[name]
    if name in _LOADERS:
        what = f"cannot load: {_reasons[name]}; {_overview(but=name)}"
    else:
        what = f"does not exist; {_overview()}"
    raise BackendUnsupported(f"backend {name!r} {what}")


def _best() -> str:
    for name in _LOADERS:
        if _load(name):
            return name
    raise BackendUnsupported(f"no backend can load; {_overview()}")


@constant_in_graphs  # torch.compile cannot trace what takes a lock
def _name_for(backend: Backend) -> str:
    with _lock:
        for name, known in _named.items():
            if known is backend:
                return name
        name, number = backend.name, 1
        while name in _named or name in _LOADERS:
            number += 1
            name = f"{backend.name}#{number}"
        _named[name] = backend
        return name


@constant_in_graphs  # nor what loads a library
def _load(name: str) -> bool:
    """Whether a name has a backend, else the reason is noted; each is tried once in a process."""
    if name in _named:
        return True
    with _lock:
        if name in _LOADERS and name not in _named and name not in _reasons:
            try:
                _named[name] = _LOADERS[name]()
            except BackendUnsupported as error:
                _reasons[name] = str(error)
            except Exception as error:  # a vendor's library may raise anything
                _reasons[name] = f"{type(error).__name__}: {' '.join(str(error).split())}"
        return name in _named


def _overview(but: str | None = None) -> str:
    return "backends: " + ", ".join(
        name if reason is None else f"{name} (cannot load: {reason})"
        for name, reason in available_backends().items()
        if name != but
    )
