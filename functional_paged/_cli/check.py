"""`functional-paged check`: run the cases, show progress, a table and the first mismatch."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

from .._clauses import CLAUSES
from ..conformance import BackendNotFound, BackendRun, Case, Result, all_cases, run_backend
from ..conformance.adapter import DEFAULT_BACKENDS
from ..conformance.cases.suite import every_case
from ..conformance.report.results import counts_of, report
from ..conformance.run.ledger import Ledger, LedgerError, draft_ledger, read_ledger

_STYLES = {"pass": "green", "fail": "bold red", "xfail": "magenta", "unsupported": "yellow"}


@dataclass(frozen=True)
class CheckOptions:
    """What `check` is asked for; see the help of each option."""

    backends: Sequence[str] = ()
    pattern: str = "*"
    quick: bool = False
    large: bool = False
    list_only: bool = False
    json_file: Path | None = None
    html_file: Path | None = None
    ledgers: Sequence[Path] = ()
    ledger_draft: Path | None = None
    seconds_per_case: float = 60.0
    jobs: int | None = None


def check_command(options: CheckOptions) -> int:
    """Check backends and print what came of it.

    Returns:
      Exit status: 0 if cases ran and each passed or is in a ledger, 1 on a failure or where a run
      contradicts its ledger, 2 where a backend cannot load or runs no case, or a file is wrong.
    """
    console = Console()
    cases = _chosen(options)
    if options.list_only:
        for case in cases:
            print(case.id)
        return 0
    if not cases:
        console.print(f"no case matches {escape(options.pattern)}")
        return 2
    for file in (options.json_file, options.html_file, options.ledger_draft):
        if file is not None and not file.parent.is_dir():  # said before the run, not after it
            console.print(f"[bold red]the folder of {escape(str(file))} must exist[/]")
            return 2
    try:
        ledgers = {ledger.backend: ledger for ledger in map(read_ledger, options.ledgers)}
        runs = _run_all(console, options, cases, ledgers)
    except (BackendNotFound, LedgerError) as error:
        console.print(f"[bold red]{escape(str(error))}[/]", highlight=False)
        return 2
    runs, contradictions = _apply(ledgers, runs)
    _show(console, cases, runs)
    for text in contradictions:
        console.print(f"[bold red]ledger:[/] {escape(text)}", highlight=False)
    _write_files(console, options, runs)
    return _exit_status(console, runs, contradictions)


def _chosen(options: CheckOptions) -> list[Case]:
    return [
        case
        for case in (every_case() if options.large else all_cases())
        if fnmatchcase(case.id, options.pattern) and (case.quick or not options.quick)
    ]


def _run_all(
    console: Console,
    options: CheckOptions,
    cases: Sequence[Case],
    ledgers: dict[str, Ledger],
) -> list[BackendRun]:
    console.print(f"{len(cases)} cases, each compared bit for bit over the whole cache")
    jobs = options.jobs or min(2, os.cpu_count() or 1)
    runs = []
    with Progress(console=console, transient=True) as progress:
        for backend in options.backends or DEFAULT_BACKENDS:
            task = progress.add_task(escape(backend), total=len(cases))
            # A ledger has the adapter's name, which only loading the adapter tells.
            ledger = ledgers.get(run_backend(backend, ()).name) if ledgers else None
            skipped = [c for c in cases if ledger is not None and ledger.not_to_run(c)]
            run = run_backend(
                backend,
                [case for case in cases if case not in skipped],
                seconds_per_case=options.seconds_per_case,
                jobs=jobs,
                on_result=lambda _, task=task: progress.advance(task),
            )
            not_run = [Result(case, "unsupported", "not run: see the ledger") for case in skipped]
            by_id = {result.case.id: result for result in (*run.results, *not_run)}
            runs.append(replace(run, results=tuple(by_id[case.id] for case in cases)))
    return runs


def _apply(
    ledgers: dict[str, Ledger], runs: Sequence[BackendRun]
) -> tuple[list[BackendRun], list[str]]:
    applied, contradictions = [], []
    for run in runs:
        results, errors = run.results, []
        if run.name in ledgers:
            known, errors = ledgers[run.name].apply(run.results)
            results = tuple(known)
        applied.append(replace(run, results=results))
        contradictions += [f"{run.name}: {error}" for error in errors]
    names = {run.name for run in runs}
    contradictions += [f"backend {n!r} was not run" for n in ledgers if n not in names]
    return applied, contradictions


def _show(console: Console, cases: Sequence[Case], runs: Sequence[BackendRun]) -> None:
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


def _write_files(console: Console, options: CheckOptions, runs: Sequence[BackendRun]) -> None:
    written = []
    if options.json_file is not None:
        options.json_file.write_text(json.dumps(report(runs), indent=1) + "\n", "utf-8")
        written.append(options.json_file)
    if options.html_file is not None:
        from ..conformance.report.html import to_html

        options.html_file.write_text(to_html(report(runs)), "utf-8")
        written.append(options.html_file)
    if options.ledger_draft is not None:
        draft = draft_ledger(runs[0].name, runs[0].results)
        options.ledger_draft.write_text(draft, "utf-8")
        written.append(options.ledger_draft)
    for file in written:
        console.print(f"written: {file}", highlight=False, markup=False)


def _exit_status(
    console: Console, runs: Sequence[BackendRun], contradictions: Sequence[str]
) -> int:
    idle = [run for run in runs if not counts_of(run.results).keys() & {"pass", "fail", "xfail"}]
    for run in idle:
        console.print(f"[bold red]{escape(run.name)}: supports none of these cases[/]")
    if contradictions or any("fail" in counts_of(run.results) for run in runs):
        return 1
    return 2 if idle else 0
