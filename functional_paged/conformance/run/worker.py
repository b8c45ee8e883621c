"""A process that runs cases for a supervisor.

It has two channels of its own, so that standard input, output and error are the adapter's. On one
it is told the ids of cases, a line each; on the other it answers with a line of JSON for what the
adapter is, and one when a case begins and when it ends.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict

from ..adapter import BackendNotFound, find_adapter, info_of
from ..cases.suite import find_case
from .run_case import run_case


def main(backend: str, case_ids: int, answers: int) -> None:
    """Run cases in order.

    Args:
      backend: as `find_adapter` takes it.
      case_ids: file descriptor of the ids, of which it reads all before the adapter loads.
      answers: file descriptor to answer on. What the adapter forks or starts has it no more.
    """
    with os.fdopen(case_ids) as lines:
        cases = [find_case(line.strip()) for line in lines]
    os.set_inheritable(answers, False)
    channel = os.fdopen(answers, "w", buffering=1)
    os.register_at_fork(after_in_child=channel.close)

    def tell(**message: object) -> None:
        channel.write(json.dumps(message) + "\n")

    try:
        adapter = find_adapter(backend)
        tell(name=adapter.name, info=info_of(adapter))
    except BackendNotFound as error:
        return tell(cannot_load=str(error))
    for case in cases:
        tell(begins=case.id)
        result = run_case(adapter, case)
        mismatch = None if result.mismatch is None else asdict(result.mismatch)
        tell(ends=case.id, status=result.status, reason=result.reason, mismatch=mismatch)
