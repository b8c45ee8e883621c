"""Outputs of the commands: files that are opened before the work, and standard output.

What cannot be written costs nothing else. A command refuses (status 2) before its work where that
can be known, and says in one line what failed at its end.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rich.console import Console

READER_HAS_GONE = 141
"""The status of a program that SIGPIPE ended."""


class Refused(Exception):
    """Something that a command cannot do as it was asked; the text says why."""


class Output:
    """A file that a command is to write, open from the start and emptied only when it is written.

    Args:
      option: of the command line.
      path: where it is to be written.

    Attributes:
      is_stdout: whether it is standard output, so that nothing else may be printed there.
      failure: why it could not be written; empty where nothing failed.

    Raises:
      Refused: the file cannot be opened.
    """

    def __init__(self, option: str, path: Path):
        self.option, self.name, self.failure = option, f"{option} {path}", ""
        self.is_stdout = _is_stdout(path)
        self._made = None if path.exists() else os.path.realpath(path)
        try:
            # Opened again, standard output would have a second position in the same file.
            self._file = os.fdopen(os.dup(1), "ab") if self.is_stdout else path.open("ab")
        except OSError as error:
            raise Refused(f"{self.name}: {error.strerror}") from None
        self.stat = os.fstat(self._file.fileno())

    def write(self, text: Callable[[], str]) -> None:
        """Replace what the file has."""
        try:
            data = text().encode("utf-8", "backslashreplace")
            if stat.S_ISREG(self.stat.st_mode) and not self.is_stdout:
                self._file.truncate(0)
            self._file.write(data)
            self._file.flush()
            self._made = None
        except OSError as error:
            self.failure = f"{self.name}: {error.strerror}"

    def close(self) -> None:
        """Close the file, and remove it where it is new and was not written."""
        with suppress(OSError):
            self._file.close()
        with suppress(OSError):
            if self._made is not None:
                os.unlink(self._made)


@contextmanager
def opened(files: Mapping[str, Path | None], inputs: Iterable[Path] = ()) -> Iterator[list[Output]]:
    """The files that a command is to write, closed at the end.

    Args:
      files: path by option, or `None` where the option was not given.
      inputs: files that the command reads.

    Raises:
      Refused: a file cannot be opened, or is another output or an input, by whatever path.
    """
    outputs: list[Output] = []
    seen = {_identity(path.stat()): f"{path}, which is read" for path in inputs if path.exists()}
    with ExitStack() as stack:
        for option, path in files.items():
            if path is None:
                continue
            output = Output(option, path)
            stack.callback(output.close)
            other = seen.setdefault(_identity(output.stat), output.name)
            # What is no file, a terminal or /dev/null, keeps nothing that could be lost.
            if other is not output.name and stat.S_ISREG(output.stat.st_mode):
                raise Refused(f"{output.name} must be another file than {other}")
            outputs.append(output)
        yield outputs


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def shown(status: int, show: Callable[[Console], None], outputs: Sequence[Output] = ()) -> int:
    """Print the last words of a command, and a line for each file that could not be written.

    Args:
      status: how the command ended.
      show: prints on the console that it is given; standard error, if a file is standard output.
      outputs: what the command wrote.

    Returns:
      `status`; in place of 0, 2 where something could not be written, and `READER_HAS_GONE`.
    """
    for output in outputs:
        if output.failure:
            refuse(output.failure)
            status = status or 2
    try:
        show(console(stderr=any(output.is_stdout for output in outputs)))
        print(end="", flush=True)
        return status
    except BrokenPipeError:
        status = status or READER_HAS_GONE
    except OSError as error:
        refuse(f"standard output: {error.strerror}")
        status = status or 2
    with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
        # Python flushes once more when it exits.
        os.dup2(nowhere.fileno(), sys.stdout.fileno())  # pyright: ignore[reportOptionalMemberAccess]
    return status


def console(*, stderr: bool = False) -> Console:
    """A console of any encoding: what has no character there is printed as an escape."""
    stream = sys.stderr if stderr else sys.stdout
    getattr(stream, "reconfigure", dict)(errors="backslashreplace")
    return _Console(stderr=stderr)


def refuse(message: str) -> int:
    """Say why a command ends, and return the status for that."""
    print(message, file=sys.stderr)
    return 2


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # rich would end the process with status 1


def _is_stdout(path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(1), path.stat())
    except OSError:
        return False  # standard output is closed
