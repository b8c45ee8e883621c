"""Every planted bug. The modules imported here list their own."""

from __future__ import annotations

from tests import (  # noqa: F401
    planted_contract_bugs,
    planted_slot_bugs,
    planted_table_bugs,
    planted_write_bugs,
)
from tests.planted_loop import BUGS, Bug, Loop

__all__ = ["BUGS", "Bug", "Loop"]
