"""Running a backend in processes of its own, so that a crash or a hang costs one case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pickle import UnpicklingError
from typing import Any

from ..adapter import BackendNotFound
from ..cases.case import Case
from .run_case import Result

START_SECONDS = 300.0
"""A worker may import and initialise a framework first."""

END_SECONDS = 10.0
"""A worker that has no more to answer may clean up."""

# What the caller can import, the worker can too.
_WORKER = """\
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from functional_paged.conformance.run.worker import main
main(*sys.argv[2:])
"""


@dataclass(frozen=True)
class BackendRun:
    """A backend and the results of its cases.

    Attributes:
      name: the adapter's.
      info: the adapter's versions and device.
      results: one a case, in the order of the cases.
      promises: what a caller must see to, by clause or glob of case ids.
    """

    name: str
    info: dict[str, str]
    results: tuple[Result, ...]
    promises: Mapping[str, str] = field(default_factory=dict)


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
    parts = [cases[start::jobs] for start in range(max(1, min(jobs, len(cases))))]
    with ThreadPoolExecutor(len(parts)) as pool:
        runs = list(pool.map(lambda part: _run(backend, part, seconds_per_case, tell), parts))
    by_id = {result.case.id: result for run in runs for result in run.results}
    return BackendRun(runs[0].name, runs[0].info, tuple(by_id[case.id] for case in cases))


def _run(
    backend: str, cases: Sequence[Case], seconds: float, on_result: Callable[[Result], None]
) -> BackendRun:
    """Start one worker after another, until each case has a result."""
    about: tuple[str, dict[str, str]] | None = None
    results: list[Result] = []

    def add(case: Case, *answer: Any) -> None:
        results.append(Result(case, *answer))
        on_result(results[-1])

    while about is None or len(results) < len(cases):
        left = cases[len(results) :]
        try:
            with _worker(backend, left) as answer:
                about = answer(START_SECONDS)
                for case in left:
                    add(case, *answer(seconds))
        except _WorkerEnded as end:
            if about is None:
                raise BackendNotFound(f"backend {backend!r} cannot load: {end}") from None
            add(cases[len(results)], "fail", str(end))
    return BackendRun(*about, tuple(results))


class _WorkerEnded(Exception):
    pass


@contextmanager
def _worker(backend: str, cases: Sequence[Case]) -> Iterator[Callable[[float], Any]]:
    """A worker for some cases; what it gives returns its next answer, within some seconds."""
    # C3 needs a second device; XLA reads this when JAX starts.
    flags = os.environ.get("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    ids = [case.id for case in cases]
    answers, tell = os.pipe()
    with Connection(answers, writable=False) as channel:
        try:
            worker = subprocess.Popen(
                [sys.executable, "-c", _WORKER, path, backend, str(tell), *ids],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an adapter prints is no part of the report
                pass_fds=[tell],
                env={**os.environ, "XLA_FLAGS": flags},
            )
        finally:
            os.close(tell)
        try:
            yield lambda seconds: _answer(worker, channel, seconds)
            with suppress(subprocess.TimeoutExpired):
                worker.wait(END_SECONDS)
        finally:
            worker.kill()
            worker.wait()


def _answer(worker: subprocess.Popen[bytes], channel: Connection, seconds: float) -> Any:
    if not channel.poll(seconds):
        raise _WorkerEnded(f"hung: no result in {seconds:g} s")
    try:
        answer = channel.recv()
    except (EOFError, OSError, UnpicklingError):  # nothing, or cut short by death
        raise _WorkerEnded(_end_of(worker)) from None
    if isinstance(answer, BackendNotFound):
        raise answer
    return answer


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
