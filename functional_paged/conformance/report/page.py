"""The results of a run as one page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from .drawing import OUTCOMES, drawing
from .results import TWINS, TWINS_TITLE
from .summary import VERDICTS, headline, notes, plural, verdict_of

STATUSES = {
    "fail": "Failures",
    "xfail": "Known failures",
    "not-promised": "Not promised by a backend",
    "no-such-member": "Backends without the member",
    "cannot-express": "Cases that a backend cannot express",
    "not-run": "Not run",
    "pass": "Passed by every backend",
}
"""Worst first, with the heading of the cases whose worst it is."""

MOST_DRAWINGS = 100
"""A page with more would be heavy."""


def to_html(report: Mapping[str, Any]) -> str:
    """Draw a report as one self-contained HTML page.

    Whatever the report holds appears as text, and the page's policy allows no script but its own.
    """
    loader = PackageLoader("functional_paged.conformance", "report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined)
    environment.trim_blocks = environment.lstrip_blocks = True
    address = partial(quote, safe="", errors="replace")
    environment.filters.update(plural=plural, digest=_digest, address=address)
    backends = [(backend, *verdict_of(backend)) for backend in report["backends"]]
    page = environment.get_template("page.html").render(
        report=report,
        verdict=headline(report["backends"]),
        backends=sorted(backends, key=lambda told: VERDICTS.index(told[1])),
        notes=notes,
        groups=_groups(report),
        rows=[*report["clauses"], {"id": TWINS, "title": TWINS_TITLE, "status": ""}],
        titles={clause["id"]: clause["title"] for clause in report["clauses"]},
        statuses=STATUSES,
        outcomes=OUTCOMES,
        most_drawings=MOST_DRAWINGS,
    )
    # The same page in whatever encoding it is written; style and script are ASCII already.
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _digest(text: str) -> str:
    """The name by which a page's policy allows one inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _groups(report: Mapping[str, Any]) -> list[tuple[str, list[dict[str, Any]]]]:
    """The cases under their worst status, each with its results and drawings, worst first."""
    order, number = list(STATUSES), 0
    results: dict[str, list[dict[str, Any]]] = {case["id"]: [] for case in report["cases"]}
    twins = {case["id"] for case in report["cases"] if case["twin"]}
    for backend in report["backends"]:
        for result in backend["results"]:
            failed = result["status"] in ("fail", "xfail")
            row = TWINS if result["id"] in twins and not failed else result["clause"]
            results[result["id"]].append({**result, "backend": backend["name"], "row": row})
    groups: dict[str, list[dict[str, Any]]] = {status: [] for status in order}
    for case in report["cases"]:
        of_case = sorted(results[case["id"]], key=lambda result: order.index(result["status"]))
        counts = Counter(result["status"] for result in of_case)
        groups[of_case[0]["status"]].append({**case, "results": of_case, "counts": counts})
    for case in (case for group in groups.values() for case in group):
        for result in case["results"]:
            if result["mismatch"] and result["mismatch"]["cells"]:
                number += 1
                shape = case["cache_shape"]
                is_drawn = number <= MOST_DRAWINGS
                result["figure"] = drawing(result["mismatch"], shape) if is_drawn else None
    return [(status, group) for status, group in groups.items() if group]
