"""The results of a run as one page that needs nothing but itself: no network, no other file."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping
from html import escape
from importlib import resources
from string import Template
from typing import Any

from .cases import cases_html
from .drawing import swatch, swatch_symbol
from .parts import OUTCOMES, STATUSES, badges, plural
from .result import MOST_DRAWINGS, NOT_DRAWN
from .verdict import backend_html, verdict_of


def to_html(report: Mapping[str, Any]) -> str:
    """Draw a report as one self-contained HTML page.

    Args:
      report: as `report()` makes it.

    Returns:
      The page. Whatever the report holds appears as text, and the page's policy allows no script
      but its own.
    """
    status, verdict = verdict_of(report)
    cases = cases_html(report)
    style = _file("report_page.css") + _file("report_cells.css")
    script = _file("report_filter.js") + _file("report_cells.js")
    page = Template(_file("report_page.html")).substitute(
        policy=(
            f"default-src 'none'; style-src {_digest(style)}; script-src {_digest(script)}; "
            "base-uri 'none'; form-action 'none'"
        ),
        style=style,
        script=script,
        status=status,
        verdict=escape(verdict),
        about=_about(report),
        backends="".join(map(backend_html, report["backends"])),
        matrix=_matrix(report),
        legend="".join(
            f'<li data-outcome="{outcome}">{swatch(outcome)}<b>{outcome}</b>: {text}</li>'
            for outcome, text in OUTCOMES.items()
        ),
        symbols="".join(map(swatch_symbol, OUTCOMES)),
        limit=f"This page has {MOST_DRAWINGS} drawings, no more." if NOT_DRAWN in cases else "",
        clause_options=_options(clause["id"] for clause in report["clauses"]),
        backend_options=_options(backend["name"] for backend in report["backends"]),
        status_options=_options(STATUSES),
        cases=cases,
    )
    # The same page in whatever encoding it is written; style and script are ASCII already.
    return page.encode("ascii", "xmlcharrefreplace").decode("ascii")


def _about(report: Mapping[str, Any]) -> str:
    return (
        f"{plural(len(report['cases']), 'case')}, compared bit for bit over the whole cache · "
        f"suite {escape(report['suite_version'])} · specification {report['spec_version']}"
    )


def _matrix(report: Mapping[str, Any]) -> str:
    heads = "".join(f'<th scope="col">{escape(b["name"])}</th>' for b in report["backends"])
    rows = ""
    for clause in report["clauses"]:
        id_ = clause["id"]
        cells = "".join(
            f"<td>{badges(backend['by_clause'][id_], clause=id_, backend=backend['name'])}</td>"
            for backend in report["backends"]
        )
        rows += (
            f'<tr><th scope="row"><b>{escape(id_)}</b> {escape(clause["title"])} '
            f"<i>{clause['status']}</i></th>{cells}</tr>"
        )
    return f'<thead><tr><th scope="col">clause</th>{heads}</tr></thead><tbody>{rows}</tbody>'


def _options(values: Iterable[str]) -> str:
    return "".join(f"<option>{escape(value)}</option>" for value in values)


def _file(name: str) -> str:
    return (resources.files("functional_paged.conformance.report") / "html" / name).read_text(
        encoding="utf-8"
    )


def _digest(text: str) -> str:
    """The name by which a page's policy allows one inline script or style."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"
