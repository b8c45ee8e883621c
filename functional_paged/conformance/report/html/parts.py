"""What the parts of the report's page share: words, marks and safe text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any
from urllib.parse import quote

STATUSES = ("fail", "xfail", "unsupported", "pass")
"""Worst first."""

OUTCOMES = {
    "written": "as it should be",
    "wrong": "was to be written, and holds other bits",
    "missing": "was to be written, and nothing was",
    "stray": "was to be left alone, and was changed",
}


def badge(status: str, count: int | None = None, *, href: str = "") -> str:
    """A status as a word, with the mark and colour that the style sheet gives it.

    Args:
      status: one of `STATUSES`, or `untested`.
      count: how many have it, if that is to be told.
      href: where it leads.
    """
    text = status if count is None else f"{count:,} {status}"
    if not href:
        return f'<span class="n {status}">{text}</span>'
    return f'<a class="n {status}" href="{escape(href)}">{text}</a>'


def badges(counts: Mapping[str, int], **wanted: str) -> str:
    """A badge for each status that is there, worst first.

    Args:
      counts: how many have each status.
      wanted: what the page is to show when one is followed, besides its status.
    """
    if not counts:
        return badge("untested")
    return " ".join(
        badge(status, counts[status], href=filter_link(**wanted, status=status))
        for status in STATUSES
        if status in counts
    )


def filter_link(**wanted: str) -> str:
    """The address of this page with a filter set; the page's script reads it."""
    return "#" + "&".join(f"{name}={quote(value, safe='')}" for name, value in wanted.items())


def link(url: str | None) -> str:
    """A link to a web address; anything else stays text."""
    if not url:
        return ""
    text = escape(url)
    if not re.match("https?://", url):
        return text
    return f'<a href="{text}">{text.partition("://")[2]}</a>'


def linked(text: str) -> str:
    """Text in which web addresses are links."""
    return " ".join(link(word) for word in text.split(" "))


def plural(count: int, noun: str) -> str:
    """`1 case`, `2 cases`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def pairs(items: Iterable[tuple[str, Any]]) -> str:
    """A list of names and values, which are HTML."""
    # HTML closes these elements by itself; a page has thousands.
    return f"<dl>{''.join(f'<dt>{escape(name)}<dd>{value}' for name, value in items)}</dl>"
