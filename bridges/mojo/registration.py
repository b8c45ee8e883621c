"""The drop-ins as operators and backends of an installed mojo_opset."""

from __future__ import annotations

import importlib
from contextlib import suppress

from .. import _registry
from .._backend import BackendUnsupported
from . import operators


def register() -> dict[str, type]:
    """Make the drop-ins known to mojo_opset, which calls this at the end of its own import.

    An operator that mojo_opset lacks becomes a core class, which stores by plain torch as
    mojo_opset's own do, with its name in `mojo_opset` and `mojo_opset.core`. Where the platform has
    an ixformer backend and ixformer loads, each operator, mojo_opset's own too, gets our class as
    that backend, in the place of mojo_opset's. Registering again changes nothing.

    Returns:
      The core class of each name, mojo_opset's own or ours, which makes instances of a backend.

    Raises:
      BackendUnsupported: mojo_opset cannot be imported, or has another registry than the known one.
    """
    try:
        base = importlib.import_module("mojo_opset.core.operator").MojoOperator
        registry = importlib.import_module("mojo_opset.core.backend_registry")
        known_backends = registry.BACKEND_PRIORITY_LIST
    except (ImportError, AttributeError) as error:
        text = f"mojo_opset cannot be used ({type(error).__name__}: {error}); install it, or use "
        raise BackendUnsupported(text + "the classes of bridges.mojo as they are") from error
    with suppress(ImportError):  # some of its operators are here, and not loaded on each platform
        importlib.import_module("mojo_opset.experimental")
    with_ixformer = False
    with suppress(BackendUnsupported):
        with_ixformer = "ixformer" in known_backends and bool(_registry.find("ixformer"))
    drop_ins = [member for name, member in vars(operators).items() if name.startswith("Mojo")]
    return {drop_in.__name__: _registered(drop_in, base, with_ixformer) for drop_in in drop_ins}


def _registered(drop_in: type, base: type, with_ixformer: bool) -> type:
    """The core class of a drop-in's name, made where there is none, with our ixformer backend."""
    name = drop_in.__name__
    core = next((known for known in base.__subclasses__() if known.__name__ == name), None)
    if core is None:
        core = _subclass(name, drop_in, base, backend="torch")
        for home in ("mojo_opset", "mojo_opset.core"):
            setattr(importlib.import_module(home), name, core)
    ours = name.replace("Mojo", "Ixformer", 1)
    backends = [known for known in core.__subclasses__() if known.__name__ == ours]
    if with_ixformer and not any(issubclass(known, drop_in) for known in backends):
        _subclass(ours, drop_in, core, backend="ixformer", supported_platforms_list=["ilu"])
    return core


def _subclass(name: str, drop_in: type, parent: type, **members: object) -> type:
    """A class of mojo_opset's with a drop-in's members; that it is made registers it there."""
    bases = (parent,) if issubclass(parent, drop_in) else (drop_in, parent)
    return type(parent)(name, bases, {"__module__": __name__, **members})
