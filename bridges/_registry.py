"""The backends by name: which exist, which load, and which one a call gets."""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Callable

import torch

from ._backend import Backend, BackendUnsupported
from ._compiler import constant_in_graphs

VARIABLE = "FUNCTIONAL_PAGED_BACKEND"


def _made_by(module: str, name: str) -> Callable[[], Backend]:
    return lambda: getattr(importlib.import_module(module, __package__), name)()


# Best first. By the names of modules, which may themselves look up a backend here.
_LOADERS: dict[str, Callable[[], Backend]] = {
    "ixformer": _made_by(".ixformer", "IxformerBackend"),
    "numba": _made_by(".numba_cpu", "NumbaBackend"),
    "triton": _made_by(".triton_gpu", "TritonBackend"),
    "torch": _made_by(".torch_inplace", "TorchBackend"),
}
_lock = threading.RLock()  # a loader may ask for another backend
_named: dict[str, Backend] = {}
_reasons: dict[str, str] = {}


def available_backends(device: torch.device | str | None = None) -> dict[str, str | None]:
    """Tell which backends this machine can load, or which can serve tensors of a device.

    Args:
      device: a device of torch; `None` asks for none.

    Returns:
      Every known name, best first, with the reason why it cannot load or serve, or `None` if it
      can. Each is tried once in a process. Of those that can serve, a call gets the first.

    Example:
      >>> available_backends("cpu")["torch"] is None
      True
    """
    if device is None:
        return {name: None if _load(name) else _reasons[name] for name in _LOADERS}
    return {name: _why_not(name, torch.device(device)) for name in _LOADERS}


def choices(backend: str | Backend | None, device: torch.device) -> list[tuple[str, Backend]]:
    """The backends that a call may get, see `plan`, best first, by their names in this process.

    Raises:
      BackendUnsupported: the one asked for, or each there is, cannot load or serve the device.
    """
    backend = backend if backend is not None else os.environ.get(VARIABLE) or None
    if backend is None:
        able = [(name, find(name)) for name in _LOADERS if _why_not(name, device) is None]
        if not able:
            raise BackendUnsupported(f"no backend can serve {device}; {_overview(device)}")
        return able
    name = name_of(backend)
    chosen = find(backend) if isinstance(backend, str) else backend
    reason = chosen.serves(device)
    if reason is not None:
        raise BackendUnsupported(
            f"backend {name!r} cannot serve: {reason}; {_overview(device, but=name)}"
        )
    return [(name, chosen)]


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


@constant_in_graphs
def _why_not(name: str, device: torch.device) -> str | None:
    return _named[name].serves(device) if _load(name) else f"cannot load: {_reasons[name]}"


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


def _overview(device: torch.device | None = None, but: str | None = None) -> str:
    prefix = "cannot load: " if device is None else ""
    return "backends: " + ", ".join(
        name if reason is None else f"{name} ({prefix}{reason})"
        for name, reason in available_backends(device).items()
        if name != but
    )
