"""Running a backend in processes of its own, so that a crash or a hang costs one case."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from ..adapter import BackendNotFound
from ..cases.case import Case
from .compare import Cell, Mismatch
from .run_case import Result

START_SECONDS = 300.0
"""A worker may import and initialise a framework first."""

END_SECONDS = 10.0
"""A worker that has closed its channel may clean up."""

# What the caller can import, the worker can too.
_WORKER = """\
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from functional_paged.conformance.run.worker import main
main(sys.argv[2], *map(int, sys.argv[3:]))
"""


@dataclass(frozen=True)
class BackendRun:
    """A backend and the results of its cases.

    Attributes:
      name: the adapter's.
      info: the adapter's versions and device.
      results: one a case, in the order of the cases.
    """

    name: str
    info: dict[str, str]
    results: tuple[Result, ...]


def run_backend(
    backend: str,
    cases: Sequence[Case],
    *,
    seconds_per_case: float = 60.0,
    jobs: int = 1,
    on_result: Callable[[Result], None] = lambda _: None,
) -> BackendRun:
    """Run cases against a backend that may crash, hang or print.

    Args:
      backend: as `find_adapter` takes it, in a process with the caller's `sys.path` before its own.
      cases: what to run.
      seconds_per_case: after which a case counts as hung and its process is killed.
      jobs: processes at a time.
      on_result: called with each result as it comes, one call at a time.

    Raises:
      BackendNotFound: the backend cannot load.
    """
    lock = threading.Lock()

    def tell(result: Result) -> None:
        with lock:
            on_result(result)

    # Neighbours take about the same time, so each process gets every jobs-th case.
    slices = [cases[start::jobs] for start in range(jobs)]
    crews = [_Crew(backend, part, seconds_per_case, tell) for part in slices if part]
    if not crews:  # loads, or says why not
        crews = [_Crew(backend, (), seconds_per_case, tell)]
    with ThreadPoolExecutor(len(crews)) as pool:
        list(pool.map(_Crew.run, crews))
    by_id = {result.case.id: result for crew in crews for result in crew.results.values()}
    return BackendRun(crews[0].name, crews[0].info, tuple(by_id[case.id] for case in cases))


class _Crew:
    """One worker after another, until each case of a list has a result."""

    def __init__(
        self,
        backend: str,
        cases: Sequence[Case],
        seconds_per_case: float,
        on_result: Callable[[Result], None],
    ):
        self.name, self.info, self.loaded = backend, {}, False
        self.results: dict[str, Result] = {}
        self._backend, self._cases = backend, cases
        self._seconds, self._on_result = seconds_per_case, on_result

    def run(self) -> None:
        while True:
            left = [case for case in self._cases if case.id not in self.results]
            worker, answers = _start(self._backend, left)
            try:
                self._follow(worker, answers, left)
            finally:
                worker.kill()
                worker.wait()
            if len(self.results) == len(self._cases):
                return

    def _follow(self, worker: subprocess.Popen[bytes], answers: int, left: Sequence[Case]) -> None:
        messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(answers, messages), daemon=True).start()
        by_id = {case.id: case for case in left}
        running: Case | None = None
        while True:
            seconds = START_SECONDS if running is None else self._seconds
            try:
                message = messages.get(timeout=seconds)
            except queue.Empty:
                return self._blame(running, left, f"hung: no result in {seconds:g} s")
            if message is None:
                return self._blame(running, left, _end_of(worker))
            if "cannot_load" in message:
                raise BackendNotFound(message["cannot_load"])
            if "name" in message:
                self.name, self.info, self.loaded = message["name"], message["info"], True
            elif "begins" in message:
                running = by_id[message["begins"]]
            else:
                assert running is not None
                self._add(Result(running, message["status"], message["reason"], _mismatch(message)))
                running = None

    def _blame(self, running: Case | None, left: Sequence[Case], how: str) -> None:
        """Charge the end of a worker to the case that it ran, or would have run next."""
        if not self.loaded:
            raise BackendNotFound(f"backend {self.name!r} cannot load: {how}")
        todo = [case for case in left if case.id not in self.results]
        if todo:
            self._add(Result(running or todo[0], "fail", how))

    def _add(self, result: Result) -> None:
        self.results[result.case.id] = result
        self._on_result(result)


def _start(backend: str, cases: Sequence[Case]) -> tuple[subprocess.Popen[bytes], int]:
    """A worker, and the file descriptor of its answers."""
    # C3 needs a second device; XLA reads this when JAX starts.
    flags = os.environ.get("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    answers, tell = os.pipe()
    # A file takes any number of ids at once; a pipe would wait for a reader that may hang.
    with tempfile.TemporaryFile("w+") as ids:
        ids.writelines(f"{case.id}\n" for case in cases)
        ids.seek(0)
        fds = (ids.fileno(), tell)
        worker = subprocess.Popen(
            [sys.executable, "-c", _WORKER, path, backend, *map(str, fds)],
            stdin=subprocess.DEVNULL,
            stdout=2,  # what an adapter prints is no part of the report
            pass_fds=fds,
            env={**os.environ, "XLA_FLAGS": flags},
        )
    os.close(tell)
    return worker, answers


def _read(answers: int, messages: queue.Queue[dict[str, Any] | None]) -> None:
    with os.fdopen(answers) as lines:
        try:
            for line in lines:
                messages.put(json.loads(line))
        except ValueError:
            pass  # a line cut short by death
    messages.put(None)


def _end_of(worker: subprocess.Popen[bytes]) -> str:
    try:
        code = worker.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        return "crashed: the process closed the channel of its results"
    if code < 0:
        return f"crashed: the process died of {signal.Signals(-code).name}"
    if code == 0:
        return "crashed: the process ended before the case did, with status 0"
    return f"crashed: the process exited with status {code}"


def _mismatch(message: dict[str, Any]) -> Mismatch | None:
    fields = message["mismatch"]
    if fields is None:
        return None
    cells = tuple(Cell(**cell) for cell in fields.pop("cells"))
    return Mismatch(**{**fields, "index": tuple(fields["index"]), "cells": cells})
