"""What `check` prints of a report: a table, what failed in a line each, and the verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, get_args

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from ..conformance.report.results import TWINS
from ..conformance.report.summary import failures, named, notes, plural, scenario_of, verdict_of
from ..conformance.run.run_case import Status

Told: TypeAlias = Mapping[str, Any]
"""A report, or a part of it."""

LEAST_TITLE = 20
"""Characters; where a table has room for fewer, it goes without the titles of the clauses."""

_STYLES = {"pass": "green", "fail": "bold red", "xfail": "magenta"}


def show_results(console: Console, report: Told, last: Sequence[str]) -> None:
    """Print a report, with lines in markup before the verdicts.

    A terminal cuts the line of each kind of failure at its width.
    """
    cases = {case["id"]: case for case in report["cases"]}
    console.print(f"{plural(len(cases), 'case')}, each compared bit for bit over the whole cache")
    console.print(_table(report, console))
    every = [backend["by_clause"] for backend in report["backends"]]
    untested = [c["id"] for c in report["clauses"] if not any(rows[c["id"]] for rows in every)]
    if untested:
        console.print(f"untested: {named(untested)}", highlight=False)
    for backend in report["backends"]:
        for note in notes(backend["results"]):
            console.print(Text(f"{backend['name']}: {note}", "yellow"), soft_wrap=True)
    for backend in report["backends"]:
        _print_failures(console, backend, cases)
    for line in last:
        console.print(line, highlight=False)
    for backend in report["backends"]:
        status, told = verdict_of(backend)
        console.print(Text(f"{backend['name']}: {told}", _STYLES.get(status, "yellow")))


def _table(report: Told, console: Console) -> Table:
    """The counts by clause, those of the twins, and their sum."""
    backends = report["backends"]
    rows = [
        (c["id"], c["title"], [b["by_clause"][c["id"]] for b in backends])
        for c in report["clauses"]
    ]
    rows = [(*names, [_cell(counts) for counts in found]) for *names, found in rows if any(found)]
    columns = zip(*(cells for *_, cells in rows), strict=True)
    room = console.width - len("clause") - 4 - sum(3 + max(map(len, column)) for column in columns)
    title = Column("what must hold", max_width=room, no_wrap=True, overflow="ellipsis")
    titles = [title] * (room >= LEAST_TITLE)
    names = [escape(backend["name"]) for backend in backends]
    table = Table("clause", *titles, *names, box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for clause, told, cells in rows:
        table.add_row(clause, *[told for _ in titles], *cells)
    table.add_section()
    for name, counts in (("twins", TWINS), ("all", "counts")):
        cells = [_cell(backend[counts]) for backend in backends]
        if any(cells):
            table.add_row(name, *["" for _ in titles], *cells)
    return table


def _cell(counts: Told) -> Text:
    found = [status for status in get_args(Status) if status in counts]
    words = [(f"{counts[s]} {s.replace('-', ' ')}", _STYLES.get(s, "yellow")) for s in found]
    return Text(", ").join(Text(*word) for word in words)


def _print_failures(console: Console, backend: Told, cases: Told) -> None:
    """A line for each scenario and reason, and the first failure whole."""
    failed = [result for result in backend["results"] if result["status"] == "fail"]
    if not failed:
        return
    console.print(f"[bold red]{escape(backend['name'])}: {len(failed)} failed[/]", highlight=False)
    lines = [_line(group, cases) for group in failures(failed)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    cut = console.is_terminal
    for line in lines:
        text = Text("  ".join(["", *map(str.ljust, line, widths)]).rstrip())
        console.print(text, no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut)
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
