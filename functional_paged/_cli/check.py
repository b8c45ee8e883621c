"""`functional-paged check`: run the cases, show progress, a table and the first mismatch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from contextlib import ExitStack
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape
from rich.progress import Progress

from ..conformance import BackendRun, Case, all_cases
from ..conformance.cases.suite import large_cases, shape_cases, small_cases
from ..conformance.report.page import to_html
from ..conformance.report.results import report
from ..conformance.report.summary import verdict_of
from ..conformance.run.ledger import Ledger, draft_ledger, read_ledgers
from ..conformance.run.supervise import Workers
from .outputs import Outputs, Refused, console
from .results import show_results

DEFAULT_BACKENDS = ("reference", "jax", "numba", "torch")


def check(
    backend: Annotated[
        list[str] | None,
        typer.Option(
            help="A shipped backend, package.module:attribute or FILE.py:attribute; repeatable."
        ),
    ] = None,
    cases: Annotated[str, typer.Option(help="Only the cases whose id matches this glob.")] = "*",
    quick: Annotated[bool, typer.Option("--quick", help="One size and dtype a scenario.")] = False,
    large: Annotated[
        bool, typer.Option("--large", help="Also caches of more than 2**31 elements (C19).")
    ] = False,
    small: Annotated[
        bool, typer.Option("--small", help="Also every index spec up to a small size: minutes.")
    ] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(metavar="H,S,D", help="Also every scenario at this shape; repeatable."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="Print the ids and run nothing.")] = False,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write the results to this file.")
    ] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="Write the results to this file, as one page with drawings."),
    ] = None,
    ledger: Annotated[
        list[Path] | None, typer.Option(help="Known failures of a backend, TOML; repeatable.")
    ] = None,
    write_ledger: Annotated[
        Path | None,
        typer.Option(help="The first backend's ledger with its new failures added, as a draft."),
    ] = None,
    seconds: Annotated[
        float, typer.Option(help="After which a case counts as hung.", min=0.1)
    ] = 60.0,
    jobs: Annotated[int, typer.Option(help="Processes at a time.", min=1)] = min(
        2, os.cpu_count() or 1
    ),
) -> int:
    """Run cases against backends.

    Exit status: 0 if cases ran and each passed or is in a ledger; 1 on a failure; else 2 where a
    backend cannot load or runs no case, or something cannot be written.
    """
    suite = [case for case in all_cases() if case.quick or not quick]
    shaped = (case for text in shape or () for case in shape_cases(_sizes(text)))
    on_demand = (*large_cases() * large, *small_cases() * small, *shaped)
    by_id = {case.id: case for case in (*suite, *on_demand)}  # a shape may be the suite's, or twice
    chosen = [case for case in by_id.values() if fnmatchcase(case.id, cases)]
    if list_:
        return Outputs().end(0, lambda _: print(*(case.id for case in chosen), sep="\n"))
    if not chosen:
        raise Refused(f"no case matches {cases}")
    files = {"--json": json_file, "--html": html, "--write-ledger": write_ledger}
    outputs = Outputs(files, inputs=ledger or ())
    ledgers = read_ledgers(ledger or ())
    runs, contradictions = _run_all(
        backend or DEFAULT_BACKENDS, chosen, ledgers, seconds_per_case=seconds, jobs=jobs
    )
    first, results = runs[0], report(runs)
    known = ledgers.get(first.name, Ledger(first.name))
    outputs.write("--json", lambda: json.dumps(results, indent=1) + "\n")
    outputs.write("--html", lambda: to_html(results))
    outputs.write("--write-ledger", lambda: draft_ledger(known, first.results))
    verdicts = [verdict_of(backend)[0] for backend in results["backends"]]
    status = 1 if contradictions or "fail" in verdicts else 2 if "idle" in verdicts else 0
    last = [f"[bold red]ledger:[/] {escape(text)}" for text in contradictions]
    return outputs.end(status, lambda console: show_results(console, results, last))


def _sizes(text: str) -> tuple[int, int, int]:
    """The sizes that `--shape` names."""
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*){2}", text, re.ASCII):
        must = "kv_heads,block_size,head_dim, three integers of at least 1"
        raise Refused(f"--shape must be {must}, got {text!r}")
    heads, block_size, head_dim = map(int, text.split(","))
    return heads, block_size, head_dim


def _run_all(
    backends: Sequence[str], cases: Sequence[Case], ledgers: dict[str, Ledger], **options: Any
) -> tuple[list[BackendRun], list[str]]:
    """A run for each backend, its ledger applied, and what contradicts the ledgers."""
    terminal = console(stderr=True)
    runs: list[BackendRun] = []
    contradictions: list[str] = []
    with ExitStack() as stack:
        pools = [stack.enter_context(Workers(backend)) for backend in backends]
        # A ledger has the adapter's name, which only loading the adapter tells.
        names = [workers.about().name for workers in pools]
        for name in names:
            if names.count(name) > 1:
                raise Refused(f"each backend must have a name of its own, got {name!r} twice")
        progress = Progress(console=terminal, transient=True, disable=not terminal.is_terminal)
        stack.enter_context(progress)
        known = [ledgers.get(name, Ledger(name)) for name in names]
        for workers, ledger in zip(pools, known, strict=True):
            task = progress.add_task(escape(ledger.backend), total=len(cases))
            run = workers.run(
                ledger.to_run(cases),
                on_result=lambda _, task=task: progress.advance(task),
                **options,
            )
            run, errors = ledger.read_over(run, cases)
            runs.append(run)
            contradictions += [f"{run.name}: {error}" for error in errors]
    contradictions += [f"backend {name!r} was not run" for name in ledgers if name not in names]
    return runs, contradictions
