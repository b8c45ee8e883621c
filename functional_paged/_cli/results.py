"""What `check` prints of a report: a table, what failed in a line each, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from ..conformance.report.results import TWINS
from ..conformance.report.summary import failures, named, notes, plural, scenario_of, verdict_of
from ..conformance.run.run_case import Status

Told: TypeAlias = Mapping[str, Any]
"""A report, or a part of it."""

LEAST_TITLE = 24
"""Characters; where a table has room for fewer, it goes without the titles of the clauses."""

MOST_WHOLE = 8
"""Lines; more of them in a row are cut at the width of a terminal."""

_STYLES = {"pass": "green", "fail": "bold red", "xfail": "magenta"}


def show_results(console: Console, report: Told, last: Sequence[str]) -> None:
    """Print a report.

    Args:
      console: where.
      report: as `report()` makes it.
      last: lines in markup that stand before the verdicts.
    """
    cases = {case["id"]: case for case in report["cases"]}
    console.print(f"{plural(len(cases), 'case')}, each compared bit for bit over the whole cache")
    console.print(_table(report, console))
    every = [backend["by_clause"] for backend in report["backends"]]
    untested = [c["id"] for c in report["clauses"] if not any(rows[c["id"]] for rows in every)]
    if untested:
        console.print(f"untested: {named(untested)}", highlight=False)
    told = [f"{b['name']}: {note}" for b in report["backends"] for note in notes(b["results"])]
    _print(console, told, "yellow")
    for backend in report["backends"]:
        _print_failures(console, backend, cases)
    for line in last:
        console.print(line, highlight=False)
    for backend in report["backends"]:
        status, told = verdict_of(backend)
        console.print(Text(f"{backend['name']}: {told}", _STYLES.get(status, "yellow")))


def _table(report: Told, console: Console) -> Table:
    """The counts by clause, those of the twins, and their sum."""
    table = _rows(report, titles=0)
    wide = console.options.update(width=10**4)
    room = console.width - Measurement.get(console, wide, table).maximum - 3
    titled = room >= LEAST_TITLE
    if titled:
        table = _rows(report, titles=room)
    table.add_section()
    for row in (TWINS, "counts"):
        counts = [backend[row] for backend in report["backends"]]
        if any(counts):
            names = [row if row == TWINS else "all", ""][: 1 + titled]
            table.add_row(*names, *map(_cell, counts))
    return table


def _rows(report: Told, *, titles: int) -> Table:
    """The table's rows of clauses, with at most so many characters of each title."""
    table = Table("clause", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    if titles:
        table.add_column("what must hold", max_width=titles, no_wrap=True, overflow="ellipsis")
    for backend in report["backends"]:
        table.add_column(escape(backend["name"]))
    for clause in report["clauses"]:
        counts = [backend["by_clause"][clause["id"]] for backend in report["backends"]]
        if any(counts):
            table.add_row(clause["id"], *[clause["title"]][:titles], *map(_cell, counts))
    return table


def _cell(counts: Told) -> str:
    return ", ".join(
        f"[{_STYLES.get(status, 'yellow')}]{counts[status]} {status.replace('-', ' ')}[/]"
        for status in get_args(Status)
        if status in counts
    )


def _print_failures(console: Console, backend: Told, cases: Told) -> None:
    """A line for each scenario and reason, and the first failure whole."""
    failed = [result for result in backend["results"] if result["status"] == "fail"]
    if not failed:
        return
    console.print(f"[bold red]{escape(backend['name'])}: {len(failed)} failed[/]", highlight=False)
    lines = [_line(group, cases) for group in failures(failed)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    padded = [map(str.ljust, line, widths) for line in lines]
    _print(console, [f"  {'  '.join(cells).rstrip()}" for cells in padded])
    case, clause = cases[failed[0]["id"]], failed[0]["clause"]
    subject = case["clauses"][0]
    console.print("the first of them")
    told = {
        "case": case["id"],
        "about": case["about"],
        "clause": clause if clause == subject else f"{clause}, in a case of {subject}",
        "result": failed[0]["reason"],
        "seen at": case["link"],
    }
    for name, value in told.items():
        if value:
            line = f"  {name:<7} {value}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _line(group: Sequence[Told], cases: Told) -> tuple[str, str, str, str]:
    """Scenario, number of cases, clause, and the reason of the first."""
    first, subjects = group[0], {cases[result["id"]]["clauses"][0] for result in group}
    number = plural(len(group), "case")
    if subjects != {first["clause"]}:
        number += f" of {named(subjects)}"
    which = "the first of them " if len(group) > 1 else ""
    return scenario_of(first), number, first["clause"], f"{first['reason']} ({which}{first['id']})"


def _print(console: Console, lines: Sequence[str], style: str = "") -> None:
    """Print lines whole, or many on a terminal each as far as its width shows it."""
    cut = console.is_terminal and len(lines) > MOST_WHOLE
    overflow = "ellipsis" if cut else "ignore"
    for line in lines:
        console.print(Text(line, style), no_wrap=True, overflow=overflow, crop=cut, highlight=False)
