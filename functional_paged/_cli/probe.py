"""`functional-paged probe`: what the installed ixformer does, as a table and as JSON."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .outputs import Outputs, Refused, refuse, shown

_STYLES = {"proven": "green", "disproven": "red", "not tried": "yellow"}


def probe_command(json_file: Path | None) -> int:
    """Print the findings of the probe, and write them as JSON too if a file is named.

    Returns:
      Exit status: 0 where a way to store one tensor is proven; 1 where none is; else 2 where the
      library or the device is missing, or something could not be written.
    """
    try:
        with Outputs({"--json": json_file}) as outputs:
            report = _findings()
            outputs.write("--json", report.to_json)
    except Refused as error:
        return refuse(str(error))
    status = 0 if report.stores_one_tensor else 1
    return shown(status, lambda console: _show(console, report), outputs)


def _findings() -> Any:
    (command,) = entry_points(group="functional_paged.commands", name="probe")
    try:
        return command.load()()
    except ImportError as error:
        raise Refused(f"nothing to probe: torch cannot be imported: {error}") from None
    except RuntimeError as error:
        raise Refused(f"nothing to probe: {error}") from None


def _show(console: Console, report: Any) -> None:
    table = Table(title=Text(" | ".join(report.key)), title_justify="left")
    for heading in ("capability", "status", "evidence"):
        table.add_column(heading, overflow="fold")
    for found in report.capabilities:
        status = Text(found.status, style=_STYLES[found.status])
        table.add_row(Text(found.name), status, Text(found.evidence))
    console.print(table)
