"""What a kernel promises: every clause, but for those that its caller must see to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from .cases.case import Case


@dataclass(frozen=True)
class Promises:
    """The clauses that a kernel holds to.

    Attributes:
      caller: what a caller must see to, in a line each, by clause, or by a glob of case ids where a
        kernel promises a part of a clause. All else is promised.
    """

    caller: Mapping[str, str] = field(default_factory=dict)

    def left_to_the_caller(self, case: Case) -> str | None:
        """What a caller must see to for a case to go well; `None` where the kernel promises it."""
        for key, line in self.caller.items():
            if key in case.clauses or fnmatchcase(case.id, key):
                return line
        return None


def all_but(caller: Mapping[str, str]) -> Promises:
    """Every clause but some.

    Args:
      caller: as in `Promises`.

    Raises:
      ValueError: a key that is neither a clause nor a glob of case ids, or an empty line.

    Example:
      >>> promises = all_but({"C12": "slots are in the cache"})
      >>> promises.caller["C12"]
      'slots are in the cache'
    """
    from .cases.suite import every_case

    for key, line in caller.items():
        if not any(key in case.clauses or fnmatchcase(case.id, key) for case in every_case()):
            raise ValueError(f"promises: {key!r} is neither a clause nor a glob of case ids")
        if not line.strip():
            raise ValueError(f"promises: {key!r} must say what a caller must see to")
    return Promises(dict(caller))


TRUSTED_SLOTS = Promises(
    {
        "C10": "as many slots as states",
        "C11": "as many slots as states",
        "C12": "slots are in the cache",
        "C15": "no two tokens share a slot",
        "c14_*negative_slots*": "no negative slot but -1",
        "c18_no_slots*": "as many slots as states",
    }
)
"""Of a kernel that writes a row for each slot but -1, and looks no further."""
