"""A process that runs cases for a supervisor.

It answers on a channel of its own, so that standard input, output and error are the adapter's: with
the adapter's name and info, or why it cannot load, and then with the result of one case after the
other.
"""

from __future__ import annotations

import os
from multiprocessing.connection import Connection

from ..adapter import Adapter, BackendNotFound, find_adapter
from ..cases.suite import find_case
from .run_case import run_case
from .words import in_words


def main(backend: str, answers: str, *case_ids: str) -> None:
    """Run cases in order.

    Args:
      backend: as `find_adapter` takes it.
      answers: file descriptor to answer on. What the adapter forks or starts has it no more.
      case_ids: what to run.
    """
    cases = [find_case(case_id) for case_id in case_ids]
    os.set_inheritable(int(answers), False)
    channel = Connection(int(answers), readable=False)
    os.register_at_fork(after_in_child=channel.close)
    try:
        adapter = find_adapter(backend)
        # By `str`: the supervisor cannot import a subclass that an adapter has of its own.
        channel.send((str(adapter.name), _info_of(adapter)))
    except BackendNotFound as error:
        return channel.send(error)
    for case in cases:
        result = run_case(adapter, case)
        channel.send((result.status, str(result.reason), result.mismatch))


def _info_of(adapter: Adapter) -> dict[str, str]:
    try:
        info = getattr(adapter, "info", dict)()
        return {str(key): str(value) for key, value in info.items()}
    except Exception as error:
        raise BackendNotFound(
            f"backend {adapter.name!r} cannot load: info() must return a dict: {in_words(error)}"
        ) from error
