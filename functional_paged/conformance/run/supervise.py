"""Running a backend in processes of its own, so that a crash or a hang costs one case."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing import Pipe
from typing import Any

from ..adapter import BackendNotFound
from ..cases.case import Case
from .attribution import attributed
from .call import END_SECONDS, crash_in_words
from .run_case import Ending, Result

START_SECONDS = 300.0
"""A worker may import and initialise a framework first."""

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
    beyond_promises: bool = False,
    on_result: Callable[[Result], None] = lambda _: None,
) -> BackendRun:
    """Run cases against a backend that may crash, hang or print.

    Args:
      backend: as `find_adapter` takes it, in a process with the caller's `sys.path` before its own.
      cases: what to run.
      seconds_per_case: after which a case counts as hung and its process is killed.
      jobs: processes at a time.
      beyond_promises: run for information what the adapter does not promise.
      on_result: called with each result as it comes, one call at a time.

    Raises:
      BackendNotFound: the backend cannot load.
    """
    with Workers(backend) as workers:
        return workers.run(
            cases,
            seconds_per_case=seconds_per_case,
            jobs=jobs,
            beyond_promises=beyond_promises,
            on_result=on_result,
        )


class Workers:
    """Processes that load one backend, the first from the start, and run its cases.

    A context, at whose end no process is left. `about` waits until the backend is loaded.

    Args:
      backend: as `find_adapter` takes it.
    """

    def __init__(self, backend: str):
        self._backend = backend
        self._idle, self._busy = [_Worker(backend)], set[_Worker]()
        self._about: BackendRun | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.close()

    def about(self) -> BackendRun:
        """The backend without results.

        Raises:
          BackendNotFound: the backend cannot load.
        """
        try:
            self._about = self._about or self._idle[0].about()
            return self._about
        except _WorkerEnded as end:
            raise BackendNotFound(f"backend {self._backend!r} cannot load: {end}") from None

    def run(
        self,
        cases: Sequence[Case],
        *,
        seconds_per_case: float = 60.0,
        jobs: int = 1,
        beyond_promises: bool = False,
        on_result: Callable[[Result], None] = lambda _: None,
    ) -> BackendRun:
        """As `run_backend`."""
        about, lock = self.about(), threading.Lock()
        left, results = deque(cases), dict[str, Result]()

        def work() -> None:
            with suppress(IndexError):  # none is left
                while True:
                    result = self._result(left.popleft(), seconds_per_case, beyond_promises)
                    with lock:
                        results[result.case.id] = result
                        on_result(result)

        with ThreadPoolExecutor(jobs) as pool:
            threads = [pool.submit(work) for _ in range(jobs)]
            try:
                for thread in threads:
                    thread.result()
            except BaseException:  # an interrupt as well: nothing more is started or waited for
                left.clear()
                for worker in self._busy.copy():
                    worker.kill()
                raise
        charged = attributed(results[case.id] for case in cases)
        return replace(about, results=tuple(charged))

    def _result(self, case: Case, seconds: float, beyond_promises: bool) -> Result:
        """The result of a case from an idle worker, or one that starts."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = _Worker(self._backend)
        self._busy.add(worker)
        can_go_on = False
        try:
            worker.about()
            result = Result(**{**worker.ask(seconds, case.id, beyond_promises), "case": case})
            can_go_on = worker.forks or not result.suspect
            return result
        except _WorkerEnded as end:
            return Result(case, "fail", str(end), ending=end.ending)
        finally:
            self._busy.discard(worker)
            if can_go_on:
                self._idle.append(worker)
            else:
                worker.close()


class _WorkerEnded(Exception):
    def __init__(self, words: str, ending: Ending = "crashed"):
        super().__init__(words)
        self.ending: Ending = ending


class _Worker:
    """One process that has loaded a backend, or is about to."""

    def __init__(self, backend: str):
        # C3 needs a second device; XLA reads this when JAX starts.
        flags = os.environ.get("XLA_FLAGS", "--xla_force_host_platform_device_count=2")
        path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
        self._stack = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        self._channel, theirs = Pipe()
        descriptors = [theirs.fileno(), self._stack.fileno()]
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _WORKER, path, backend, *map(str, descriptors)],
                stdin=subprocess.DEVNULL,
                stdout=2,  # what an adapter prints is no part of the report
                pass_fds=descriptors,
                # The same hashes, and so the same memory, in each run.
                env={"PYTHONHASHSEED": "0", **os.environ, "XLA_FLAGS": flags},
                start_new_session=True,  # so that its forks end with it
            )
        self._about: BackendRun | None = None
        self.forks = False

    def about(self) -> BackendRun:
        """What it tells once it has loaded the backend."""
        if self._about is None:
            name, info, promises, self.forks = self._answer(START_SECONDS)
            self._about = BackendRun(name, info, (), promises)
        return self._about

    def ask(self, seconds: float, *request: Any) -> dict[str, Any]:
        """Its answer to a request."""
        with suppress(OSError):  # that it has ended is what the answer tells
            self._channel.send(request)
        return self._answer(seconds)

    def _answer(self, seconds: float) -> Any:
        if not self._channel.poll(seconds):
            hint = '; a framework that a fork breaks needs isolation = "process"' * self.forks
            raise _WorkerEnded(f"hung: no result in {seconds:g} s (--seconds{hint})", "hung")
        try:
            answer = self._channel.recv()
        except Exception:  # nothing, cut short by death, or damaged
            code = None
            with suppress(subprocess.TimeoutExpired):
                code = self._process.wait(END_SECONDS)
            raise _WorkerEnded(crash_in_words(code, self._stack)) from None
        if isinstance(answer, BackendNotFound):
            raise answer
        return answer

    def close(self) -> None:
        """End the process, and what it has forked."""
        self._channel.close()
        if not self.forks:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(END_SECONDS)  # it may clean up
        self.kill()
        self._process.wait()
        self._stack.close()

    def kill(self) -> None:
        """End the process, and what it has forked, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
