"""The backends by name: which exist, which load, and which one a call gets."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch

from ._backend import Backend, BackendUnsupported

VARIABLE = "FUNCTIONAL_PAGED_BACKEND"


def _ixformer() -> Backend:
    from .ixformer import IxformerBackend

    return IxformerBackend()


def _torch() -> Backend:
    from .torch_inplace import TorchBackend

    return TorchBackend()


def _ixformer_model() -> Backend:
    from .ixformer import IxformerBackend
    from .ixformer.model import ModelFunctions

    backend = IxformerBackend(ModelFunctions(), device_check=False)
    backend.name = "ixformer-model"
    return backend


# Best first. A loader returns the backend or raises BackendUnsupported with the reason.
_LOADERS: dict[str, Callable[[], Backend]] = {
    "ixformer": _ixformer,
    "torch": _torch,
    "ixformer-model": _ixformer_model,
}
# For tests: loads by name, and no call gets it otherwise.
_NEVER_CHOSEN = {"ixformer-model"}
_loaded: dict[str, Backend] = {}
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
    return {name: _why_not(name) for name in _LOADERS}


def resolve(backend: str | Backend | None) -> Backend:
    """The backend object that a call gets; see `plan`."""
    if backend is None:
        backend = os.environ.get(VARIABLE) or _best()
    if not isinstance(backend, str):
        return backend
    if backend not in _LOADERS:
        raise BackendUnsupported(f"backend {backend!r} does not exist; {_overview()}")
    reason = _why_not(backend)
    if reason is not None:
        raise BackendUnsupported(
            f"backend {backend!r} cannot load: {reason}; {_overview(but=backend)}"
        )
    return _loaded[backend]


def _best() -> str:
    for name in _LOADERS:
        if name not in _NEVER_CHOSEN and _why_not(name) is None:
            return name
    raise BackendUnsupported(f"no backend can load; {_overview()}")


@torch.compiler.assume_constant_result  # torch.compile cannot trace what loads a library
def _why_not(name: str) -> str | None:
    if name not in _loaded and name not in _reasons:
        try:
            _loaded[name] = _LOADERS[name]()
        except BackendUnsupported as error:
            _reasons[name] = str(error)
    return _reasons.get(name)


def _overview(but: str | None = None) -> str:
    reasons = {name: _why_not(name) for name in _LOADERS if name != but}
    return "backends: " + ", ".join(
        name if reason is None else f"{name} (cannot load: {reason})"
        for name, reason in reasons.items()
    )
