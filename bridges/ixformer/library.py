"""The vendor's library: where it and its device are, and how its kernels store one tensor."""

from __future__ import annotations

import importlib
import importlib.metadata
from collections.abc import Callable
from typing import Any, TypeAlias

import torch

from .._backend import BackendUnsupported

_MODULES = ("ixformer.functions", "ixformer.inference.functions")
_DEVICE_NAME = "Iluvatar"
BLOCK_TABLE_KERNEL = "paged_store_kv_cache_with_block_table"

Store: TypeAlias = Callable[[Any, Any, torch.Tensor, "torch.Tensor | None", torch.Tensor], Any]
"""`store(states, cache, block_table, cu_q_lens, context_kv_lens)`, in place."""

CALL_FORMS: dict[str, dict[str, int]] = {
    # One side of the pair is written. Which of them does not matter: both are the one tensor.
    "store_mode=1, key and value one tensor": {"store_mode": 1},
    # Both sides are written, with the same rows in the same slots.
    "7 arguments, key and value one tensor": {},
}
"""The ways to store one tensor, best first, as further arguments of the block-table kernel."""

PAIR_FORM = "7 arguments, key and value two tensors"
"""The way to store two tensors of one kind: states and cache are pairs then."""


def load_functions() -> Any:
    """Import the first of the library's modules that has the block-table kernel.

    Raises:
      BackendUnsupported: with every module's own reason.
    """
    reasons = []
    for name in _MODULES:
        try:
            functions = importlib.import_module(name)
        except Exception as error:  # a native library may fail in any way as it loads
            reasons.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if hasattr(functions, BLOCK_TABLE_KERNEL):
                return functions
            reasons.append(f"{name} has no {BLOCK_TABLE_KERNEL}")
    raise BackendUnsupported(
        f"no usable ixformer ({'; '.join(reasons)}); install the vendor's wheel"
    )


def require_device(device: torch.device | None = None) -> None:
    """Refuse a device that is no Iluvatar device; `None` is torch's current one."""
    reason = why_not(device)
    if reason is not None:
        raise BackendUnsupported(reason)


def why_not(device: torch.device | None) -> str | None:
    """The reason why a device is no Iluvatar device, `None` if it is one."""
    if device is not None and device.type != "cuda":
        return (
            f"tensors must be on an Iluvatar device, which torch calls cuda, got {device}; "
            "move them or use backend='torch'"
        )
    if not torch.cuda.is_available():
        return (
            "no Iluvatar device: torch.cuda.is_available() is False; "
            "check that this torch is the vendor's build"
        )
    name = torch.cuda.get_device_name(device)
    if not name.startswith(_DEVICE_NAME):
        return f"no Iluvatar device: the device is {name!r}"
    return None


def identity(functions: Any, device: torch.device) -> tuple[str, str, str]:
    """The names of the library, the device and the driver, as far as they tell."""
    package = getattr(functions, "__name__", type(functions).__name__).partition(".")[0]
    try:
        wheel = f"{package} {importlib.metadata.version(package)}"
    except (ImportError, ValueError):
        wheel = f"{package}, not installed as a package"
    if device.type != "cuda":
        return wheel, device.type, "none"
    # torch does not tell the driver's version in every build.
    driver = getattr(torch._C, "_cuda_getDriverVersion", lambda: "unknown")()
    name = torch.cuda.get_device_name(device)
    return wheel, name, f"driver {driver}, runtime {torch.version.cuda}"


def in_form(functions: Any, form: str) -> Store:
    """One of `CALL_FORMS`, or `PAIR_FORM`, of a library."""
    kernel, mode = getattr(functions, BLOCK_TABLE_KERNEL), CALL_FORMS.get(form, {})

    def store(states, cache, block_table, cu_q_lens, context_kv_lens):
        pair = (*states, *cache) if form == PAIR_FORM else (states, states, cache, cache)
        return kernel(*pair, block_table, cu_q_lens, context_kv_lens, **mode)

    return store


def copying(store: Store) -> Store:
    """The same on a contiguous and aligned copy of the states."""
    return lambda states, *rest: store(states.clone(memory_format=torch.contiguous_format), *rest)
