"""Running backends in processes of their own, so that a crash or a hang costs one case."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field

from ..adapter import BackendNotFound
from ..cases.case import Case
from .attribution import attributed
from .call import Ended
from .process import About, Worker
from .run_case import Result

FEW = 16
"""Cases that are done sooner than one more worker starts."""


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
    with Workers(backend) as workers:
        return workers.run(cases, seconds_per_case=seconds_per_case, jobs=jobs, on_result=on_result)


class Workers:
    """Processes that have loaded one backend, the first at once; a context that leaves none."""

    def __init__(self, backend: str):
        self._backend = backend
        self._idle, self._busy = [Worker(backend)], set[Worker]()
        self._about: About | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._idle:
            worker.dismiss()
        for worker in self._idle:
            worker.close()

    def about(self) -> About:
        """What the adapter says of itself; `BackendNotFound` where it cannot load."""
        try:
            self._about = self._about or self._idle[0].about()
            return self._about
        except Ended as end:
            raise BackendNotFound(f"backend {self._backend!r} cannot load: {end}") from None

    def run(
        self,
        cases: Sequence[Case],
        *,
        seconds_per_case: float = 60.0,
        jobs: int = 1,
        on_result: Callable[[Result], None] = lambda _: None,
    ) -> BackendRun:
        """Run cases, as many at a time as there are jobs; see `run_backend`."""
        about, left = self.about(), deque(cases)
        results: dict[str, Result] = {}
        lock = threading.Lock()

        def work() -> None:
            if not self._idle and len(left) < FEW:
                return
            with suppress(IndexError):  # none is left
                while True:
                    case = left.popleft()
                    result = self._result_of(case, seconds_per_case)
                    with lock:
                        results[case.id] = result
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
        judged = tuple(attributed(results[case.id] for case in cases))
        return BackendRun(about.name, about.info, judged, about.promises)

    def _result_of(self, case: Case, seconds: float) -> Result:
        """The result of a case from a worker that is idle, or else from one that starts."""
        try:
            worker = self._idle.pop()
        except IndexError:
            worker = Worker(self._backend)
        self._busy.add(worker)
        can_go_on = False
        try:
            worker.about()
            result = Result(**{**worker.ask(seconds, case.id), "case": case})
            can_go_on = worker.forks or not result.suspect
            return result
        except Ended as end:
            return Result(case, "fail", str(end), ending=end.ending)
        finally:
            self._busy.discard(worker)
            if can_go_on:
                self._idle.append(worker)
            else:
                worker.close()
