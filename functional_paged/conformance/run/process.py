"""One process that has loaded a backend and answers with results of its cases."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from multiprocessing import Pipe
from typing import Any, NamedTuple

from .call import END_SECONDS, Ended, received

START_SECONDS = 300.0
"""A worker may import and initialise a framework first."""

# What the caller can import, the worker can too.
_WORKER = """\
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from functional_paged.conformance.run.worker import main
main(*sys.argv[2:])
"""


class About(NamedTuple):
    """What an adapter says of itself, and whether each of its cases runs in a fork."""

    name: str
    info: dict[str, str]
    promises: Mapping[str, str]
    forks: bool


class Worker:
    """A process that loads a backend, by name as `find_adapter` takes it."""

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
        self._about: About | None = None

    def about(self) -> About:
        """What the adapter says of itself; `BackendNotFound`, `Ended` if it cannot load."""
        self._about = self._about or About(*self._answer(START_SECONDS))
        return self._about

    @property
    def forks(self) -> bool:
        """Whether each case runs in a fork, so that nothing outlasts it."""
        return self._about is not None and self._about.forks

    def ask(self, seconds: float, *request: Any) -> dict[str, Any]:
        """Its answer to a request; `Ended` where none came in time."""
        with suppress(OSError):  # that it has ended is what the answer tells
            self._channel.send(request)
        return self._answer(seconds)

    def _answer(self, seconds: float) -> Any:
        if not self._channel.poll(seconds):
            hint = '; a framework that a fork breaks needs isolation = "process"' * self.forks
            raise Ended(f"hung: no result in {seconds:g} s (--seconds{hint})", "hung")
        return received(self._channel, self._status, self._stack)

    def _status(self, seconds: float) -> int | None:
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode

    def dismiss(self) -> None:
        """Let the process end by itself: nothing more will be asked."""
        self._channel.close()

    def close(self) -> None:
        """End the process, and what it has forked."""
        self.dismiss()
        if not self.forks:
            self._status(END_SECONDS)  # it may clean up
        self.kill()
        self._process.wait()
        self._stack.close()

    def kill(self) -> None:
        """End the process, and what it has forked, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
