"""A process that runs cases for a supervisor: one JSON line when a case begins, one when it ends.

python -m functional_paged.conformance.run.worker BACKEND < CASE_IDS
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict

from ..adapter import BackendNotFound, find_adapter, info_of
from ..cases.suite import find_case
from .run_case import run_case


def main(backend: str) -> int:
    """Run the cases named on standard input, in order."""
    # A backend may print; what it prints must not look like a result.
    lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", buffering=1)
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())

    def tell(**message: object) -> None:
        lines.write(json.dumps(message) + "\n")

    try:
        adapter = find_adapter(backend)
    except BackendNotFound as error:
        tell(cannot_load=str(error))
        return 2
    tell(name=adapter.name, info=info_of(adapter))
    for line in sys.stdin:
        case = find_case(line.strip())
        tell(begins=case.id)
        result = run_case(adapter, case)
        mismatch = None if result.mismatch is None else asdict(result.mismatch)
        tell(ends=case.id, status=result.status, reason=result.reason, mismatch=mismatch)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
