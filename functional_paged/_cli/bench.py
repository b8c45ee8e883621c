"""`functional-paged bench`: measure, show progress, print tables; JSON and drawings on demand."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from .. import _bench
from .outputs import Outputs, Refused, console


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, a few rounds.")] = False,
    device: Annotated[str, typer.Option(help="Where torch's tensors are, cpu or cuda.")] = "cpu",
    only: Annotated[
        str | None, typer.Option(metavar="GROUP", help=f"One of {', '.join(_bench.GROUPS)}.")
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Write a drawing of each group into this folder.")
    ] = None,
) -> int:
    """Measure the stores and what they are compared with on this machine, minutes.

    Each number is the ratio of a way's time to that of its baseline in the same round: the median
    of the rounds, with the 10 % and 90 % quantiles. Exit status: 0, or 2 where an option is wrong
    or something cannot be written.
    """
    if only is not None and only not in _bench.GROUPS:
        raise Refused(f"--only must be one of {', '.join(_bench.GROUPS)}, got {only!r}")
    device_name = _named(device)
    chosen = [only] if only else list(_bench.GROUPS)
    files: dict[str, Path | None] = {"--json": json_file}
    if plots is not None:
        try:
            plots.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Refused(f"--plots {plots}: {error.strerror}") from None
        files |= {f"--plots {group}": plots / f"{group}.svg" for group in chosen}
    outputs = Outputs(files)
    told = {"schema": _bench.SCHEMA, "device": device_name, "quick": quick}
    results = {**told, "machine": _bench.machine(), **_measured(chosen, quick, device)}
    lines = json.dumps(results).replace('{"group"', '\n{"group"') + "\n"
    outputs.write("--json", lambda: lines)
    for group in chosen:
        outputs.write(f"--plots {group}", lambda group=group: _bench.plot(results, group))
    return outputs.end(0, lambda console: _show(console, results))


def _named(device: str) -> str:
    """A device that torch has, with the name of its kind."""
    if device == "cpu":
        return device
    try:
        return f"{device}, {importlib.import_module('torch').cuda.get_device_name(device)}"
    except Exception as error:  # torch raises several kinds
        reason = str(error).splitlines()[0]
        raise Refused(f"--device {device}: {reason}") from None


def _measured(groups: list[str], quick: bool, device: str) -> dict[str, Any]:
    ways, missing = _bench.ways_found()
    every = [
        problems
        for problems in _bench.problems(quick=quick, device=device)
        if problems[0].group in groups
    ]
    series: list[dict[str, Any]] = []
    terminal = console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("", total=sum(problems[0].rounds for problems in every))
        for problems in every:
            progress.update(task, description=f"{problems[0].group}, {problems[0].name}")
            found, failed = _bench.measure(problems, ways, lambda: progress.advance(task))
            series += found
            missing += failed
    return {"series": series, "not_measured": missing}


def _show(console: Console, results: dict[str, Any]) -> None:
    console.print(Text(_bench.machine_line(results)))
    for _, title, (headings, *rows) in _bench.tables(results):
        console.print(Text(title, "bold"), soft_wrap=True)
        table = Table(*headings, box=box.SIMPLE)
        for row in rows:
            table.add_row(
                *(Text(cell, "blue" if row[0].startswith("ours") else "") for cell in row)
            )
        console.print(table)
    for line in _bench.not_measured(results):
        console.print(Text(f"not measured: {line}", "yellow"), soft_wrap=True)
