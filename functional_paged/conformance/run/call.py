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
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any, Literal, NoReturn, TypeAlias

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


@dataclass(eq=False)
class Ended(Exception):
    """The end of a process before it answered, in words too."""

    words: str
    ending: Literal["crashed", "hung"] = "crashed"

    def __str__(self) -> str:
        return self.words


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
raises `Raised`, `Ended`, or what the adapter says: `CaseUnsupported`, `NoSuchMember`.
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
        fork: Any = get_context("fork").Process(target=_answer, args=(request, theirs, stack))
        fork.start()
        theirs.close()

        def status(seconds: float) -> int | None:
            fork.join(seconds)
            return fork.exitcode

        try:
            between(received(ours, status, stack))
            ours.send(None)
            return received(ours, status, stack)
        finally:
            fork.kill()
            fork.join()


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


def received(channel: Connection, status: Callable[[float], int | None], stack: IO[bytes]) -> Any:
    """What a process answers. What it raised is raised here, and `Ended` where it has ended.

    `status(seconds)` waits for its end; `stack` is what faulthandler wrote.
    """
    try:
        answer = channel.recv()
    except Exception:  # nothing, cut short by death, or damaged
        raise Ended(_crash_in_words(status(END_SECONDS), stack)) from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _crash_in_words(code: int | None, stack: IO[bytes]) -> str:
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
