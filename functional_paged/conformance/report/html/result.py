"""What came of one case on one backend, in the report's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from .drawing import drawing
from .parts import badge, linked, pairs, plural

MOST_DRAWINGS = 300
"""A page with more different ones would be heavy."""

NOT_DRAWN = '<p class="aside">not drawn</p>'
_AXES = ("block", "head", "offset", "element")


class Figures:
    """The drawings of a page. Forms and dtypes often fail alike, so each is in the page once."""

    def __init__(self):
        self._ids: dict[str, str] = {}

    def html(self, mismatch: Mapping[str, Any], cache_shape: Sequence[int]) -> str:
        """The drawing, or a link to it that the page's script replaces with a copy."""
        figure = drawing(mismatch, cache_shape)
        if figure in self._ids:
            return f'<p class="again"><a href="#{self._ids[figure]}">drawing</a></p>'
        if len(self._ids) == MOST_DRAWINGS:
            return NOT_DRAWN
        self._ids[figure] = f"drawing-{len(self._ids)}"
        return f'<div class="drawing" id="{self._ids[figure]}">{figure}</div>'


def result_html(
    name: str, result: Mapping[str, Any], cache_shape: Sequence[int], figures: Figures
) -> str:
    """A result as HTML.

    Args:
      name: of the backend.
      result: as the report has it.
      cache_shape: of the case.
      figures: those of the page so far; takes this one's.
    """
    status, mismatch = result["status"], result["mismatch"]
    body = ""
    if mismatch is not None:
        figure = figures.html(mismatch, cache_shape) if mismatch["cells"] else ""
        body = _mismatch(mismatch) + figure
    elif result["reason"]:
        body = f'<p class="reason">{escape(result["reason"])}</p>'
    if result["ledger"]:
        doubt = "passes, but its ledger says: " if status == "pass" else "ledger: "
        body += f'<p class="ledger">{doubt}{linked(result["ledger"])}</p>'
    return (
        f'<section class="result {status}" data-backend="{escape(name)}">'
        f"<h4>{escape(name)} {badge(status)}</h4>{body}</section>"
    )


def _mismatch(mismatch: Mapping[str, Any]) -> str:
    index: Sequence[Any] = mismatch["index"]
    if mismatch["what"] == "cache" and len(index) == len(_AXES):
        index = [f"{axis} {i}" for axis, i in zip(_AXES, index, strict=True)]
    where = mismatch["what"] + (f"[{', '.join(map(str, index))}]" if index else "")
    return pairs(
        [
            ("first wrong", escape(where)),
            ("was to be", "written" if mismatch["written"] else "left alone"),
            ("expected", escape(mismatch["expected"])),
            ("got", escape(mismatch["actual"])),
            ("wrong in all", plural(mismatch["count"], "element")),
        ]
    )
