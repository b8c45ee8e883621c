"""What `functional-paged probe` runs."""

from __future__ import annotations

from typing import Any

import torch

from . import library
from .probe import probe
from .report import ProbeReport


def probe_command() -> ProbeReport:
    """The findings about the installed ixformer on the current device.

    Raises:
      BackendUnsupported: the library or the device is missing.
    """
    return probe(*_library_and_device())


def _library_and_device() -> tuple[Any, torch.device]:
    functions = library.load_functions()
    library.require_device()
    return functions, torch.device("cuda", torch.cuda.current_device())
