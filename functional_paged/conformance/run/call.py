"""A call of an adapter's method, in this process or in a fork of it.

In a fork, whatever the method does to its process ends with it. The memory of a case is shared
(`walls`), so what a kernel left there is judged by this process, which no kernel has run in.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, NoReturn, TypeAlias

from functional_paged import SpecError

from ..adapter import CaseUnsupported, NoSuchMember
from .words import in_words

END_SECONDS = 10.0
"""A process that has closed its channel may take so long to end."""


@dataclass(eq=False)
class Raised(Exception):
    """An error that an adapter raised: what, where, which clause it names, if any.

    A `SpecError` is told apart, since checks raise it before anything runs.
    """

    words: str
    clause: str
    is_spec_error: bool

    def __str__(self) -> str:
        return self.words


class Crashed(Exception):
    """The end of a process before its call ended; the text says how."""


@dataclass(frozen=True)
class Request:
    """What is asked of an adapter: a call, and what is told of its answer before that is read.

    It is read as NumPy arrays, which a framework may compute only then.
    """

    call: Callable[[], Any]
    outline: Callable[[Any], Any] = lambda _: None
    read: Callable[[Any], Any] = lambda _: None


Ask: TypeAlias = Callable[[Request, Callable[[Any], None]], Any]
"""A way to ask an adapter: `here` or `in_a_fork`.

It calls, passes the answer's outline to a function, which may spoil the inputs, and then reads. It
raises `Raised`, `Crashed`, or what the adapter says: `CaseUnsupported`, `NoSuchMember`.
"""


def here(request: Request, between: Callable[[Any], None]) -> Any:
    """Ask in this process."""
    answer = _tried(request.call)
    between(_tried(request.outline, answer))
    return _tried(request.read, answer)


def in_a_fork(request: Request, between: Callable[[Any], None]) -> Any:
    """Ask in a fork of this process."""
    ours, theirs = Pipe()
    with ours, theirs, tempfile.TemporaryFile() as stack:
        pid = os.fork()
        if pid == 0:
            _answer(request, theirs, stack)
        theirs.close()
        try:
            between(_received(ours, pid, stack))
            ours.send(None)
            return _received(ours, pid, stack)
        finally:
            # It exists until it is waited for, so that its number is no other's.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _answer(request: Request, channel: Connection, stack: IO[bytes]) -> NoReturn:
    """Answer from the fork; what the adapter forks in turn has the channel no more."""
    try:
        os.register_at_fork(after_in_child=channel.close)
        faulthandler.enable(stack)
        try:
            answer = _tried(request.call)
            channel.send(_tried(request.outline, answer))
            channel.recv()
            channel.send(_tried(request.read, answer))
        except Exception as error:
            channel.send(error)
    finally:
        os._exit(0)  # nothing of what the kernel left behind is cleaned up, nor can fail


def _received(channel: Connection, pid: int, stack: IO[bytes]) -> Any:
    try:
        answer = channel.recv()
    except Exception:  # nothing, cut short by death, or damaged
        raise Crashed(crash_in_words(_exit_code(pid), stack)) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _exit_code(pid: int) -> int | None:
    """The status of a child that is not waited for, as `subprocess` has it; `None` if it lives."""
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
        time.sleep(0.01)
    return None


def crash_in_words(code: int | None, stack: IO[bytes]) -> str:
    """How a process ended that should have answered: `None` is not yet, negative a signal."""
    if code is None:
        return "crashed: the process closed the channel of its results"
    if code == 0:
        return "crashed: the process ended before the case did, with status 0"
    if code > 0:
        return f"crashed: the process exited with status {code}"
    stack.seek(0)
    frame = re.search(r'File "(.*)", line (\d+) in (.*)', stack.read().decode(errors="replace"))
    place = f" in {_place(*frame.groups())}" if frame else ""
    return f"crashed: the process died of {signal.Signals(-code).name}{place}"


def _tried(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except (KeyboardInterrupt, NoSuchMember):
        raise
    except CaseUnsupported as error:
        raise CaseUnsupported(str(error)) from error
    except BaseException as error:  # whatever an adapter raises is its result
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = _place(last.filename, last.lineno, last.name)
        clause = getattr(error, "clause", None) or str(error).partition(":")[0]
        raise Raised(
            f"{in_words(error)} ({place})", str(clause), isinstance(error, SpecError)
        ) from error


def _place(file: str, line: object, function: str) -> str:
    return f"{function}, {Path(file).name}:{line}"
