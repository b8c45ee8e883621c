"""The cases of the report's page: worst first, each with what came of it on each backend."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .parts import STATUSES, badge, link, plural
from .result import Figures, result_html

FIRST_OPEN = 3
"""Failures that are open when the page is."""

_GROUPS = {
    "fail": "Failures",
    "xfail": "Known failures",
    "unsupported": "Unsupported by a backend",
    "pass": "Passed by every backend",
}
_Named = tuple[str, Mapping[str, Any]]
"""A backend's name and its result."""


def cases_html(report: Mapping[str, Any]) -> str:
    """Every case in a group by its worst status, as HTML."""
    titles = {clause["id"]: clause["title"] for clause in report["clauses"]}
    by_case: dict[str, list[_Named]] = {}
    for backend in report["backends"]:
        for result in backend["results"]:
            by_case.setdefault(result["id"], []).append((backend["name"], result))
    for results in by_case.values():
        results.sort(key=lambda named: STATUSES.index(named[1]["status"]))
    # The worst first, also where the page's drawings come to their limit.
    figures, html = Figures(), ""
    for status in STATUSES:
        cases = [case for case in report["cases"] if by_case[case["id"]][0][1]["status"] == status]
        if not cases:
            continue
        items = ""
        for number, case in enumerate(cases):
            opened = status == "fail" and number < FIRST_OPEN
            items += _case(case, by_case[case["id"]], titles, figures, opened)
        html += (
            f'<details class="group"{" open" if status == "fail" else ""}>'
            f'<summary><h3 class="{status}">{_GROUPS[status]} '
            f'<span class="count">{plural(len(cases), "case")}</span></h3></summary>'
            f"{items}</details>"
        )
    return html


def _case(
    case: Mapping[str, Any],
    results: Sequence[_Named],
    titles: Mapping[str, str],
    figures: Figures,
    opened: bool,
) -> str:
    counts = Counter(result["status"] for _, result in results)
    marks = " ".join(badge(status, counts[status]) for status in STATUSES if status in counts)
    clauses = "".join(
        f"<li><b>{escape(id_)}</b> {escape(titles.get(id_, ''))}</li>" for id_ in case["clauses"]
    )
    seen = f"<p>Seen at {link(case['link'])}</p>" if case["link"] else ""
    n, h, s, d = case["cache_shape"]
    items = "".join(
        result_html(name, result, case["cache_shape"], figures) for name, result in results
    )
    return (
        f'<details class="case" data-clauses="{escape(" ".join(case["clauses"]))}"'
        f"{' open' if opened else ''}>"
        f"<summary><code>{escape(case['id'])}</code> {marks}</summary>"
        f'<p class="about">{escape(case["about"])}</p><ul class="clauses">{clauses}</ul>{seen}'
        f'<p class="aside">{escape(case["kind"])} · num_blocks {n}, kv_heads {h}, '
        f"block_size {s}, head_dim {d}</p>{items}</details>"
    )
