"""Every planted bug: stores that are wrong in one way each, which the kit must catch."""

from __future__ import annotations

from . import contract_bugs, slot_bugs, table_bugs, write_bugs  # noqa: F401  (each lists its own)
from .loop import BUGS, Bug, Loop

__all__ = ["BUGS", "Bug", "Loop"]
