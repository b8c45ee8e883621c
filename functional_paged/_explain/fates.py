"""Fates of tokens that an index spec names, or fails to name."""

from __future__ import annotations

from enum import Enum


class Fate(Enum):
    """What becomes of a token, and how a drawing shows it.

    Each fate has a symbol and a label of its own, so that no drawing depends on colour.

    Attributes:
      symbol: one ASCII character.
      label: a few words, for legends.
      clause: the clause that decides; `None` for a token that is simply stored.
      breaks: whether the spec breaks that clause, so that `check_spec` refuses it.

    Example:
      >>> Fate.HOLE.symbol, Fate.HOLE.label, Fate.HOLE.clause, Fate.HOLE.breaks
      ('o', 'hole in the table', 'C8', False)
    """

    STORED = ("+", "stored", None, False)
    PADDED = ("p", "padded row", "C6", False)
    HOLE = ("o", "hole in the table", "C8", False)
    PAST_TABLE = (">", "past the table", "C9", False)
    NOT_NAMED = ("~", "not named", "C10", False)
    MISSING = ("?", "not in states", "C11", True)
    PAST_CACHE = ("]", "past the cache", "C12", True)
    NO_BLOCK = ("x", "negative block", "C13", False)
    BROKEN_CHUNK = ("/", "broken chunk", "C13", True)
    NAMED_TWICE = ("&", "in several chunks", "C13", True)
    NEGATIVE_SLOT = ("-", "negative slot", "C14", False)
    CONTESTED = ("!", "contested slot", "C15", True)
    BROKEN_TOTAL = ("%", "broken cu_q_lens", "C21", True)

    def __init__(self, symbol: str, label: str, clause: str | None, breaks: bool):
        self.symbol = symbol
        self.label = label
        self.clause = clause
        self.breaks = breaks
