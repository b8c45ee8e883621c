"""`functional-paged probe`: what the installed ixformer does, as a table and as JSON."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from .outputs import Outputs, Refused

_STYLES = {"proven": "green", "disproven": "red", "not tried": "yellow"}


def probe(
    json: Annotated[Path | None, typer.Option(help="Also write the findings to this file.")] = None,
) -> int:
    """Find out what the installed ixformer really does, for a bug report to the vendor.

    Exit status: 0 if a way to store one tensor is proven, 1 if none is, 2 without the library or
    if something cannot be written.
    """
    outputs = Outputs({"--json": json})
    (command,) = entry_points(group="functional_paged.commands", name="probe")
    try:
        report = command.load()()
    except ImportError as error:
        raise Refused(f"nothing to probe: torch cannot be imported: {error}") from None
    except RuntimeError as error:
        raise Refused(f"nothing to probe: {error}") from None
    outputs.write("--json", report.to_json)
    status = 0 if report.stores_one_tensor else 1
    return outputs.end(status, lambda console: _show(console, report))


def _show(console: Console, report: Any) -> None:
    title = Text(f"{report.wheel} | {report.device} | {report.driver}")
    columns = [Column(name, overflow="fold") for name in ("capability", "status", "evidence")]
    table = Table(*columns, title=title, title_justify="left")
    for found in report.capabilities:
        status = Text(found.status, style=_STYLES[found.status])
        table.add_row(Text(found.name), status, Text(found.evidence))
    console.print(table)
