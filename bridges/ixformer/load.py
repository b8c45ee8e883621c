"""Finding the vendor's library and its device, with the reason where either is missing."""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import Any

import torch

from .._backend import BackendUnsupported
from .call import BLOCK_TABLE_KERNEL

_MODULES = ("ixformer.functions", "ixformer.inference.functions")
_DEVICE_NAME = "Iluvatar"


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
            continue
        if hasattr(functions, BLOCK_TABLE_KERNEL):
            return functions
        reasons.append(f"{name} has no {BLOCK_TABLE_KERNEL}")
    raise BackendUnsupported(
        f"no usable ixformer ({'; '.join(reasons)}); install the vendor's wheel"
    )


def require_kernel(functions: Any) -> None:
    """Refuse functions without the kernel that every store goes through."""
    if not hasattr(functions, BLOCK_TABLE_KERNEL):
        raise BackendUnsupported(
            f"functions must have {BLOCK_TABLE_KERNEL}, got {functions!r} without it"
        )


def require_device(device: torch.device | None = None) -> None:
    """Refuse a device that is no Iluvatar device; `None` is torch's current one."""
    if device is not None and device.type != "cuda":
        raise BackendUnsupported(
            f"tensors must be on an Iluvatar device, which torch calls cuda, got {device}; "
            "move them or use backend='torch'"
        )
    if not torch.cuda.is_available():
        raise BackendUnsupported(
            "no Iluvatar device: torch.cuda.is_available() is False; "
            "check that this torch is the vendor's build"
        )
    name = torch.cuda.get_device_name(device)
    if not name.startswith(_DEVICE_NAME):
        raise BackendUnsupported(f"no Iluvatar device: the device is {name!r}")


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
    runtime = f"driver {driver}, runtime {torch.version.cuda}"
    return wheel, torch.cuda.get_device_name(device), runtime
