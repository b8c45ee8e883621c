"""`functional-paged check`: run the cases, show progress, a table and the first mismatch."""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from ._clauses import CLAUSES
from .conformance import Case, Result, all_cases, find_adapter, run_cases
from .conformance._adapter import DEFAULT_BACKENDS, BackendNotFound
from .conformance._report import report

_MARKS = {"pass": "green", "fail": "bold red", "unsupported": "yellow"}


def check_command(backends: Sequence[str], json_file: Path | None) -> int:
    """Check backends and print what came of it.

    Args:
      backends: names or `package.module:attribute`; none means the shipped ones.
      json_file: where to write the results.

    Returns:
      Exit status: 0 if cases ran and all passed, 1 on a failure, 2 where a backend cannot load or
      runs no case.
    """
    console = Console()
    _offer_two_jax_devices()
    try:
        adapters = [find_adapter(name) for name in backends or DEFAULT_BACKENDS]
    except BackendNotFound as error:
        console.print(f"[bold red]{error}[/]", highlight=False)
        return 2
    cases = all_cases()
    console.print(f"{len(cases)} cases, each compared bit for bit over the whole cache")
    results: dict[str, list[Result]] = {}
    with Progress(console=console, transient=True) as progress:
        for adapter in adapters:
            task = progress.add_task(adapter.name, total=len(cases))
            results[adapter.name] = []
            for result in run_cases(adapter, cases):
                results[adapter.name].append(result)
                progress.advance(task)
    console.print(_table(cases, results))
    for name, came in results.items():
        _print_unsupported(console, name, came)
    for name, came in results.items():
        _print_first_failure(console, name, came)
    if json_file is not None:
        json_file.write_text(json.dumps(report(adapters, results), indent=2) + "\n")
        console.print(f"results written to {json_file}", highlight=False)
    return _exit_status(console, results)


def _offer_two_jax_devices() -> None:
    # C3 needs a second device; XLA reads this when JAX starts.
    if "jax" not in sys.modules and "XLA_FLAGS" not in os.environ:
        os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"


def _table(cases: Sequence[Case], results: dict[str, list[Result]]) -> Table:
    table = Table("clause", "what must hold", "cases", *results)
    for clause in CLAUSES:
        row = [_cell(clause.id, came) for came in results.values()]
        count = sum(clause.id in case.clauses for case in cases)
        table.add_row(clause.id, clause.title, str(count), *row)
    table.add_row("", "all", str(len(cases)), *[_cell(None, came) for came in results.values()])
    return table


def _cell(clause: str | None, results: Sequence[Result]) -> str:
    counts = Counter(r.status for r in results if clause is None or clause in r.case.clauses)
    if not counts:
        return "[dim]untested[/]"
    return ", ".join(
        f"[{style}]{counts[status]} {status}[/]"
        for status, style in _MARKS.items()
        if counts[status]
    )


def _print_unsupported(console: Console, name: str, results: Sequence[Result]) -> None:
    reasons = Counter(r.reason for r in results if r.status == "unsupported")
    for reason, count in reasons.items():
        console.print(f"[yellow]{name}[/]: {count} unsupported: {reason}", highlight=False)


def _print_first_failure(console: Console, name: str, results: Sequence[Result]) -> None:
    failed = [result for result in results if result.status == "fail"]
    if not failed:
        return
    first = failed[0]
    console.print(f"[bold red]{name}: {len(failed)} failed; the first is[/]")
    console.print(f"  case:   {first.case.id}", highlight=False)
    console.print(f"  about:  {first.case.about}", highlight=False)
    console.print(f"  clause: {', '.join(first.case.clauses)}", highlight=False)
    console.print(f"  {first.reason}", highlight=False, markup=False)
    if first.case.link:
        console.print(f"  seen at {first.case.link}", highlight=False)


def _exit_status(console: Console, results: dict[str, list[Result]]) -> int:
    status = 0
    for name, came in results.items():
        counts = Counter(result.status for result in came)
        if counts["fail"]:
            return 1
        if not counts["pass"]:
            console.print(f"[bold red]{name}: no case ran[/]")
            status = 2
    return status
