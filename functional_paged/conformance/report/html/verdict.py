"""How a run ended, for the head of the report's page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from html import escape
from typing import Any

from .parts import STATUSES, badges, pairs, plural

_VERBS = {
    "fail": ("fails", "fail"),
    "unsupported": ("runs no case", "run no case"),
    "pass": ("passes", "pass"),
}


def verdict_of(report: Mapping[str, Any]) -> tuple[str, str]:
    """A status for the colour, and a sentence about the backends with the worst verdict."""
    backends = report["backends"]
    verdicts = [_backend_verdict(backend)[0] for backend in backends]
    for status, (one, many) in _VERBS.items():
        count, total = verdicts.count(status), len(verdicts)
        if count == 0:
            continue
        subject = f"{count} of {total} backends" if count < total else f"All {total} backends"
        if total == 1:
            subject = backends[0]["name"]
        known = sum(backend["counts"].get("xfail", 0) for backend in backends)
        rest = f", with {plural(known, 'known failure')}" if known and status == "pass" else ""
        return status, f"{subject} {one if count == 1 else many}{rest}"
    return "untested", "Nothing ran"


def backend_html(backend: Mapping[str, Any]) -> str:
    """What a backend is and how it did, as HTML."""
    status, verdict = _backend_verdict(backend)
    reasons = Counter(r["reason"] for r in backend["results"] if r["status"] == "unsupported")
    unsupported = "".join(
        f"<li>{count:,} unsupported: {escape(reason)}</li>" for reason, count in reasons.items()
    )
    return (
        f'<section class="backend {status}"><h2>{escape(backend["name"])}</h2>'
        f'<p class="verdict">{verdict}</p>{_bar(backend["counts"])}'
        f"<p>{badges(backend['counts'], backend=backend['name'])}</p>"
        f"{pairs((name, escape(value)) for name, value in backend['info'].items())}"
        f"{f'<ul>{unsupported}</ul>' if unsupported else ''}</section>"
    )


def _backend_verdict(backend: Mapping[str, Any]) -> tuple[str, str]:
    """As `verdict_of`, for one backend. As in the check's exit status, an outdated ledger fails."""
    counts = backend["counts"]
    ran = sum(count for status, count in counts.items() if status != "unsupported")
    outdated = sum(r["status"] == "pass" and bool(r["ledger"]) for r in backend["results"])
    if "fail" in counts:
        return "fail", f"fails {counts['fail']:,} of the {plural(ran, 'case')} that it ran"
    if outdated:
        return "fail", f"passes {plural(outdated, 'case')} that its ledger lists as failing"
    if not ran:
        return "unsupported", "ran no case"
    known = f"; {counts['xfail']:,} known to fail" if "xfail" in counts else ""
    return (
        "pass",
        f"passes {counts.get('pass', 0):,} of the {plural(ran, 'case')} that it ran{known}",
    )


def _bar(counts: Mapping[str, int]) -> str:
    rects, x = "", 0
    for status in reversed(STATUSES):
        count = counts.get(status, 0)
        if count:
            rects += f'<rect class="{status}" x="{x}" width="{count}" height="1"/>'
            x += count
    return (
        f'<svg class="bar" viewBox="0 0 {max(x, 1)} 1" preserveAspectRatio="none" '
        f'aria-hidden="true">{rects}</svg>'
    )
