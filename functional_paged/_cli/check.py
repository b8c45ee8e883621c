"""`functional-paged check`: run the cases, show progress, a table and the first mismatch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from .._clauses import CLAUSES
from ..conformance import BackendNotFound, BackendRun, Case, all_cases, run_backend
from ..conformance.adapter import DEFAULT_BACKENDS
from ..conformance.cases.suite import large_cases, small_cases
from ..conformance.report.results import counts_of, report
from ..conformance.run.ledger import Ledger, LedgerError, draft_ledger, read_ledgers
from ..conformance.run.with_ledger import run_with_ledger
from .outputs import Outputs, Refused, console, refuse, shown

_STYLES = {"pass": "green", "fail": "bold red", "xfail": "magenta", "unsupported": "yellow"}


@dataclass(frozen=True)
class CheckOptions:
    """The options of `check`; see the help of each."""

    backends: Sequence[str] = ()
    pattern: str = "*"
    quick: bool = False
    large: bool = False
    small: bool = False
    list_only: bool = False
    json_file: Path | None = None
    html_file: Path | None = None
    ledgers: Sequence[Path] = ()
    ledger_draft: Path | None = None
    seconds_per_case: float = 60.0
    jobs: int | None = None


def check_command(options: CheckOptions) -> int:
    """Check backends, write the files that are asked for, and print the results.

    Returns:
      Exit status: 0 if cases ran and each passed or is in a ledger; 1 on a failure, or where a run
      contradicts its ledger; else 2 where a backend cannot load or runs no case, a file is wrong,
      or something could not be written.
    """
    cases = _chosen(options)
    if options.list_only:
        return shown(0, lambda _: print(*(case.id for case in cases), sep="\n"))
    if not cases:
        return refuse(f"no case matches {options.pattern}")
    files = {
        "--json": options.json_file,
        "--html": options.html_file,
        "--write-ledger": options.ledger_draft,
    }
    try:
        with Outputs(files, inputs=options.ledgers) as outputs:
            ledgers = read_ledgers(options.ledgers)
            runs, contradictions = _run_all(options, cases, ledgers)
            _write_files(outputs, runs, ledgers)
    except (BackendNotFound, LedgerError, Refused) as error:
        return refuse(str(error))
    idle = [run for run in runs if not counts_of(run.results).keys() & {"pass", "fail", "xfail"}]
    failed = contradictions or any("fail" in counts_of(run.results) for run in runs)
    status = 1 if failed else 2 if idle else 0

    def show(console: Console) -> None:
        _show(console, cases, runs)
        for text in contradictions:
            console.print(f"[bold red]ledger:[/] {escape(text)}", highlight=False)
        for run in idle:
            console.print(f"[bold red]{escape(run.name)}: supports none of these cases[/]")

    return shown(status, show, outputs)


def _chosen(options: CheckOptions) -> list[Case]:
    on_demand = (*large_cases() * options.large, *small_cases() * options.small)
    return [
        case
        for case in (*all_cases(), *on_demand)
        if fnmatchcase(case.id, options.pattern) and (case.quick or not options.quick)
    ]


def _run_all(
    options: CheckOptions, cases: Sequence[Case], ledgers: dict[str, Ledger]
) -> tuple[list[BackendRun], list[str]]:
    """A run for each backend, its ledger applied, and what contradicts the ledgers."""
    backends = options.backends or DEFAULT_BACKENDS
    # A ledger has the adapter's name, which only loading the adapter tells.
    names = [run_backend(backend, ()).name for backend in backends]
    for name in names:
        if names.count(name) > 1:
            raise Refused(f"each backend must have a name of its own, got {name!r} twice")
    runs, contradictions = [], []
    terminal = console(stderr=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        for backend, name in zip(backends, names, strict=True):
            task = progress.add_task(escape(name), total=len(cases))
            run, errors = run_with_ledger(
                backend,
                cases,
                ledgers.get(name, Ledger(name)),
                seconds_per_case=options.seconds_per_case,
                jobs=options.jobs or min(2, os.cpu_count() or 1),
                on_result=lambda _, task=task: progress.advance(task),
            )
            runs.append(run)
            contradictions += [f"{name}: {error}" for error in errors]
    contradictions += [f"backend {name!r} was not run" for name in ledgers if name not in names]
    return runs, contradictions


def _write_files(outputs: Outputs, runs: Sequence[BackendRun], ledgers: dict[str, Ledger]) -> None:
    first = runs[0]

    def page() -> str:
        from ..conformance.report.page import to_html

        return to_html(report(runs))

    outputs.write("--json", lambda: json.dumps(report(runs), indent=1) + "\n")
    outputs.write("--html", page)
    outputs.write(
        "--write-ledger",
        lambda: draft_ledger(ledgers.get(first.name, Ledger(first.name)), first.results),
    )


def _show(console: Console, cases: Sequence[Case], runs: Sequence[BackendRun]) -> None:
    console.print(f"{len(cases)} cases, each compared bit for bit over the whole cache")
    table = Table("clause", "what must hold", "cases", *[escape(run.name) for run in runs])
    for clause in CLAUSES:
        count = sum(clause.id in case.clauses for case in cases)
        cells = [_cell(counts_of(run.results, clause.id)) for run in runs]
        table.add_row(clause.id, clause.title, str(count), *cells)
    table.add_section()
    table.add_row("", "all", str(len(cases)), *[_cell(counts_of(run.results)) for run in runs])
    console.print(table)
    for run in runs:
        reasons = [r.reason for r in run.results if r.status == "unsupported"]
        for reason in dict.fromkeys(reasons):
            text = f"{run.name}: {reasons.count(reason)} unsupported: {reason}"
            console.print(f"[yellow]{escape(text)}[/]", highlight=False)
    for run in runs:
        _print_first_failure(console, run)


def _cell(counts: dict[str, int]) -> str:
    if not counts:
        return "[dim]untested[/]"
    return ", ".join(
        f"[{style}]{counts[status]} {status}[/]"
        for status, style in _STYLES.items()
        if status in counts
    )


def _print_first_failure(console: Console, run: BackendRun) -> None:
    failed = [result for result in run.results if result.status == "fail"]
    if not failed:
        return
    case = failed[0].case
    console.print(f"[bold red]{escape(run.name)}: {len(failed)} failed; the first is[/]")
    lines = [
        f"case    {case.id}",
        f"about   {case.about}",
        f"clause  {', '.join(case.clauses)}",
        f"result  {failed[0].reason}",
    ]
    if case.link:
        lines.append(f"seen at {case.link}")
    for line in lines:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
