"""The command that tells what the installed ixformer does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from .._backend import BackendUnsupported
from . import library
from .probe import probe

_STYLES = {"proven": "green", "disproven": "red", "not tried": "yellow"}
_FORMS = ("store_mode=1, key and value one tensor", "7 arguments, key and value one tensor")


def probe_command(json_file: Path | None) -> int:
    """Probe the installed ixformer on the current device and print what was found.

    Args:
      json_file: where to write the report as JSON too, if anywhere.

    Returns:
      The exit status: 0 where the library can store one tensor, 1 where it was not seen to, 2
      where the library or the device is missing.
    """
    try:
        functions, device = _library_and_device()
    except BackendUnsupported as error:
        return _missing(str(error))
    report = probe(functions, device)
    if json_file is not None:
        json_file.write_text(report.to_json(), encoding="utf-8")
    _print_table(report)
    found = {capability.name for capability in report.capabilities}
    return 0 if any(form in found and report.proves(form) for form in _FORMS) else 1


def _library_and_device() -> tuple[Any, torch.device]:
    functions = library.load_functions()
    library.require_device()
    return functions, torch.device("cuda", torch.cuda.current_device())


def _missing(what: str) -> int:
    print(f"nothing to probe: {what}", file=sys.stderr)
    return 2


def _print_table(report: Any) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(" | ".join(report.key)), title_justify="left")
    for heading in ("capability", "status", "evidence"):
        table.add_column(heading, overflow="fold")
    for found in report.capabilities:
        status = Text(found.status, style=_STYLES[found.status])
        table.add_row(Text(found.name), status, Text(found.evidence))
    Console().print(table)
