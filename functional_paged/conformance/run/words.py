"""Exceptions and long texts in the few words that a result has room for."""

from __future__ import annotations

MOST = 200
"""Characters that are kept of a text's beginning, and of its end."""


def in_words(error: BaseException) -> str:
    """The type and the text of an exception, whatever its `__str__` does, shortened."""
    try:
        text = str(error)
    except Exception as second:
        text = f"its text raises {type(second).__name__}"
    return shortened(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def shortened(text: str) -> str:
    """The first and the last line of a text in one line, each with at most `MOST` characters."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    text = " ... ".join(lines if len(lines) < 2 else (lines[0], lines[-1]))
    cut = f"{text[:MOST]} ... {text[-MOST:]}"
    return text if len(text) <= len(cut) else cut
