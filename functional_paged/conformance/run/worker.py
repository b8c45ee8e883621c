"""A process that runs cases for a supervisor.

It answers on a channel of its own, so that standard input, output and error are the adapter's:
with what the adapter says of itself, or why it cannot load, and then with the result of each case
that it is asked for.
"""

from __future__ import annotations

import faulthandler
import os
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any

from ..adapter import Adapter, BackendNotFound, find_adapter, traits_of
from ..cases.suite import all_cases, find_case
from .call import Raised, Request, here, in_a_fork
from .run_case import Result, run_case
from .words import in_words


def main(backend: str, channel_fd: str, stack_fd: str) -> None:
    """Answer on a channel until the supervisor asks no more; a crash's stack goes to a file."""
    for descriptor in (channel_fd, stack_fd):  # what the adapter forks or starts has neither
        os.set_inheritable(int(descriptor), False)
    faulthandler.enable(int(stack_fd))
    channel = Connection(int(channel_fd))
    os.register_at_fork(after_in_child=channel.close)
    try:
        adapter = find_adapter(backend)
        forks = traits_of(adapter).isolation == "fork" and hasattr(os, "fork")
        ask = in_a_fork if forks else here
        promises = dict(traits_of(adapter).not_promised)
        # By `str`: the supervisor cannot import a subclass that an adapter has of its own.
        channel.send((str(adapter.name), _info_of(adapter, ask), promises, forks))
    except BackendNotFound as error:
        return channel.send(error)
    while True:
        try:
            (case_id,) = channel.recv()
        except EOFError:
            return None
        done = run_case(adapter, find_case(case_id), ask=ask)
        if done.suspect and done.status == "pass" and not forks:
            done = _unless_it_sticks(adapter, done)
        channel.send({**vars(done), "case": None})  # which is known there, and cannot travel


def _unless_it_sticks(adapter: Adapter, refusal: Result) -> Result:
    """A refusal; a failure if the backend then fails at what is valid, as a broken device does."""
    form = refusal.case.build().index_spec.form
    for case in all_cases():
        if case.id.startswith(f"c5_prefill/{form}/"):
            after = run_case(adapter, case)
            if after.status == "fail":
                reason = f"{refusal.reason}; it sticks: after it {case.id} fails: {after.reason}"
                return replace(refusal, status="fail", reason=reason)
            if after.status == "pass":
                break
    return refusal


def _info_of(adapter: Adapter, ask: Any) -> dict[str, str]:
    def words(info: Any) -> dict[str, str]:
        return {str(key): str(value) for key, value in info.items()}

    try:
        return ask(Request(getattr(adapter, "info", dict), read=words), lambda _: None)
    except Exception as error:
        reason = error if isinstance(error, Raised) else in_words(error)
        raise BackendNotFound(
            f"backend {adapter.name!r} cannot load: info() must return a dict: {reason}"
        ) from error
