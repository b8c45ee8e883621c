"""Importing the core, against importing NumPy."""

from __future__ import annotations

from .measure import in_processes
from .ways import Way

NUMPY = "import numpy"


def _import(code: str) -> Way:
    return Way(code, ("first-use",), lambda _: in_processes(code), NUMPY)


ways = [_import(NUMPY), _import("import functional_paged")]
