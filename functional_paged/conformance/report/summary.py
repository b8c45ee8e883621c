"""A backend's results in few words: which clauses hold, and what is said of many cases alike.

A backend and its results are here what a report has of them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, TypeAlias, get_args

from functional_paged.internal import clause_order

from ..run.run_case import RAN, Ending, Status

Told: TypeAlias = Mapping[str, Any]

VERDICTS = ("fail", "idle", "xfail", "pass")
"""Worst first: a clause does not hold; nothing ran; failures are known; all that ran holds."""

_NUMBER = re.compile(r"0x[0-9a-f]+|\d+")


def verdict_of(backend: Told) -> tuple[str, str]:
    """One of `VERDICTS`, and a sentence; it is `fail` where the check's exit status is 1."""
    worst_first = ("fail", "xfail", "pass", "not-promised")
    rows: Mapping[str, Mapping[str, int]] = backend["by_clause"]
    worst = {c: next((s for s in worst_first if s in counts), "") for c, counts in rows.items()}
    clauses = {status: [c for c in rows if worst[c] == status] for status in worst_first}
    partly = [c for c in rows if "not-promised" in rows[c] and worst[c] != "not-promised"]
    held, number = len(clauses["pass"]), sum(status in RAN for status in worst.values())
    ran = backend["counts"].keys() & RAN
    told = ["ran no case"]
    if ran:
        holds = "holds" if 1 in (held, number) else "hold"
        told = [f"{held} of {plural(number, 'clause')} {holds} in the cases that ran"]
    for listed, one, many in (
        (clauses["fail"], "does not", "do not"),
        (clauses["xfail"], "is known not to", "are known not to"),
        (clauses["not-promised"], "is not promised", "are not promised"),
        (partly, "is promised in part", "are promised in part"),
    ):
        if listed:
            told.append(f"{named(listed)} {one if len(listed) == 1 else many}")
    stale = sum(r["status"] == "pass" and bool(r["ledger"]) for r in backend["results"])
    if stale:
        told.append(f"the ledger lists {plural(stale, 'case')} as failing that passed")
    status = "fail" if stale else next((s for s in ("fail", "xfail", "pass") if s in ran), "idle")
    return status, "; ".join(told)


def headline(backends: Sequence[Told]) -> tuple[str, str]:
    """The worst verdict, with its backend's name and how many others are better."""
    verdicts = [(*verdict_of(backend), backend["name"]) for backend in backends]
    if not verdicts:
        return "untested", "Nothing ran"
    status, told, name = min(verdicts, key=lambda verdict: VERDICTS.index(verdict[0]))
    number, good = len(verdicts), sum(status == "pass" for status, _, _ in verdicts)
    if number == 1:
        return status, f"{name}: {told}"
    if good == number:
        return status, f"All {number} backends: every clause holds in the cases that ran"
    return status, f"{name}: {told} ({good} of {number} backends hold every clause that ran)"


def failures(results: Iterable[Told]) -> list[list[Told]]:
    """Failures of one scenario that are charged to one clause and read alike, worst first."""
    groups = _alike(
        (result for result in results if result["status"] == "fail"),
        lambda result: (scenario_of(result), result["clause"], _NUMBER.sub("", result["reason"])),
    )

    def badness(group: list[Told]) -> tuple[int, int, tuple[str, int]]:
        ending = get_args(Ending).index(group[0]["ending"])
        return ending, -len(group), clause_order(group[0]["clause"])

    return sorted(groups, key=badness)


def notes(results: Iterable[Told]) -> list[str]:
    """A line for each reason why cases did not run, and for what is to be said of passes."""
    lines, order = [], get_args(Status)
    groups = _alike(
        (r for r in results if r["status"] not in RAN or (r["status"] == "pass" and r["reason"])),
        lambda result: (result["status"], _NUMBER.sub("", _remark(result))),
    )
    for group in sorted(groups, key=lambda group: order.index(group[0]["status"])):
        status, words = group[0]["status"], _remark(group[0])
        if status == "not-promised":
            status += f" ({named({result['clause'] for result in group})})"
        lines.append(f"{len(group):,} {status.replace('-', ' ')}: {words}")
    return lines


def scenario_of(result: Told) -> str:
    """The first part of a case's id."""
    return result["id"].partition("/")[0]


def named(clauses: Iterable[str]) -> str:
    """Clauses in words: `C1, C5-C10 and C14`."""
    ordered = enumerate(sorted(map(clause_order, clauses)))
    words = []
    for _, run in groupby(ordered, lambda pair: (pair[1][0], pair[1][1] - pair[0])):
        found = [f"{letter}{number}" for _, (letter, number) in run]
        words += [f"{found[0]}-{found[-1]}"] if len(found) > 2 else found
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def plural(count: int, noun: str) -> str:
    """A number of things."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _remark(result: Told) -> str:
    """The reason; of a pass what stands before the error, without the clause."""
    if result["status"] != "pass":
        return result["reason"]
    return re.sub(r"\b[CQ]\d+", "its clause", result["reason"].partition(":")[0])


def _alike(results: Iterable[Told], key: Callable[[Told], Hashable]) -> list[list[Told]]:
    """Results by key, the most first."""
    groups: dict[Hashable, list[Told]] = {}
    for result in results:
        groups.setdefault(key(result), []).append(result)
    return sorted(groups.values(), key=len, reverse=True)
