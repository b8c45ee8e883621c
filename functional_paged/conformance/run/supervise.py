"""Running a backend in processes of its own, so that a crash or a hang costs one case."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import IO, Any

from ..adapter import BackendNotFound
from ..cases.case import Case
from .compare import Cell, Mismatch
from .run_case import Result

START_SECONDS = 300.0
"""A worker may import and initialise a framework first."""


@dataclass(frozen=True)
class BackendRun:
    """What a backend is and what came of its cases.

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
      backend: a name or `package.module:attribute`.
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
    by_id = {result.case.id: result for crew in crews for result in crew.results}
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
        self.results: list[Result] = []
        self._backend, self._cases = backend, cases
        self._seconds, self._on_result = seconds_per_case, on_result

    def run(self) -> None:
        while True:
            left = self._cases[len(self.results) :]
            worker = _start(self._backend, left)
            try:
                self._follow(worker, left)
            finally:
                _stop(worker)
            if len(self.results) == len(self._cases):
                return

    def _follow(self, worker: subprocess.Popen[str], left: Sequence[Case]) -> None:
        messages: queue.Queue[dict[str, Any] | None] = queue.Queue()
        threading.Thread(target=_read, args=(worker.stdout, messages), daemon=True).start()
        by_id = {case.id: case for case in left}
        running: Case | None = None
        while True:
            seconds = START_SECONDS if running is None else self._seconds
            try:
                message = messages.get(timeout=seconds)
            except queue.Empty:
                return self._blame(running, f"hung: no result in {seconds:g} s")
            if message is None:
                return self._blame(running, _death(worker))
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

    def _blame(self, running: Case | None, how: str) -> None:
        """Charge the end of a worker to the case that it ran, or would have run next."""
        if not self.loaded:
            raise BackendNotFound(f"backend {self.name!r} cannot load: {how}")
        if len(self.results) < len(self._cases):
            self._add(Result(running or self._cases[len(self.results)], "fail", how))

    def _add(self, result: Result) -> None:
        self.results.append(result)
        self._on_result(result)


def _start(backend: str, cases: Sequence[Case]) -> subprocess.Popen[str]:
    # C3 needs a second device; XLA reads this when JAX starts.
    flags = os.environ.get("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    worker = subprocess.Popen(
        [sys.executable, "-m", "functional_paged.conformance.run.worker", backend],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "XLA_FLAGS": flags},
    )
    assert worker.stdin is not None
    try:
        worker.stdin.write("".join(f"{case.id}\n" for case in cases))
        worker.stdin.close()
    except BrokenPipeError:
        pass  # it died; what it said and how it ended is read next
    return worker


def _stop(worker: subprocess.Popen[str]) -> None:
    if worker.poll() is None:
        worker.kill()
    worker.wait()
    assert worker.stdout is not None
    worker.stdout.close()


def _read(lines: IO[str], messages: queue.Queue[dict[str, Any] | None]) -> None:
    try:
        for line in lines:
            messages.put(json.loads(line))
    except ValueError:
        pass  # a line cut short by death, or a pipe closed by _stop
    messages.put(None)


def _death(worker: subprocess.Popen[str]) -> str:
    code = worker.wait()
    if code < 0:
        return f"crashed: the process died of {signal.Signals(-code).name}"
    return f"crashed: the process exited with status {code}"


def _mismatch(message: dict[str, Any]) -> Mismatch | None:
    fields = message["mismatch"]
    if fields is None:
        return None
    cells = tuple(Cell(**cell) for cell in fields.pop("cells"))
    return Mismatch(**{**fields, "index": tuple(fields["index"]), "cells": cells})
