"""Outputs of the commands: files that are opened before the work, and standard output.

What cannot be written costs nothing else. A command refuses (status 2) before its work where that
can be known, and says in one line what failed at its end.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, suppress
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

    Raises:
      Refused: the file cannot be opened.
    """

    def __init__(self, option: str, path: Path):
        self.option, self.name = option, f"{option} {path}"
        self.is_stdout = _is_stdout(path)
        self._made = None if path.exists() else os.path.realpath(path)
        try:
            # Opened again, standard output would have a second position in the same file.
            self.file = os.fdopen(os.dup(1), "ab") if self.is_stdout else path.open("ab")
        except OSError as error:
            raise Refused(f"{self.name}: {error.strerror}") from None
        self.stat = os.fstat(self.file.fileno())

    def write(self, text: str) -> None:
        """Replace what the file has."""
        if stat.S_ISREG(self.stat.st_mode) and not self.is_stdout:
            self.file.truncate(0)
        self.file.write(text.encode("utf-8", "backslashreplace"))
        self.file.flush()
        self._made = None

    def close(self) -> None:
        """Close the file, and remove it where it is new and was not written."""
        with suppress(OSError):
            self.file.close()
        with suppress(OSError):
            if self._made is not None:
                os.unlink(self._made)


class Outputs:
    """All files that a command is to write.

    Args:
      files: path by option, or `None` where the option was not given.
      inputs: files that the command reads.

    Attributes:
      has_stdout: whether a file is standard output, so that nothing else may be printed there.
      failures: a line for each file that could not be written.

    Raises:
      Refused: on entry, for a file that cannot be opened, or is another output or an input, by
        whatever path.
    """

    def __init__(self, files: Mapping[str, Path | None], inputs: Iterable[Path] = ()):
        self._files, self._inputs = files, inputs
        self._outputs: list[Output] = []
        self.failures: list[str] = []

    def __enter__(self) -> Outputs:
        with ExitStack() as stack:
            for option, path in self._files.items():
                if path is not None:
                    self._outputs.append(Output(option, path))
                    stack.callback(self._outputs[-1].close)
            self._refuse_one_file_twice()
            self._close = stack.pop_all().close
        self.has_stdout = any(output.is_stdout for output in self._outputs)
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def write(self, option: str, text: Callable[[], str]) -> None:
        """Write the file of an option, if it was given; a failure is listed, not raised."""
        for output in self._outputs:
            if output.option == option:
                try:
                    output.write(text())
                except OSError as error:
                    self.failures.append(f"{output.name}: {error.strerror}")

    def _refuse_one_file_twice(self) -> None:
        read = [(f"{path}, which is read", path.stat()) for path in self._inputs if path.exists()]
        seen: dict[tuple[int, int], str] = {}
        for name, found in (*read, *((output.name, output.stat) for output in self._outputs)):
            # What is no file, a terminal or /dev/null, keeps nothing that could be lost.
            file = (found.st_dev, found.st_ino)
            if stat.S_ISREG(found.st_mode) and seen.setdefault(file, name) is not name:
                raise Refused(f"{name} must be another file than {seen[file]}")


def shown(status: int, show: Callable[[Console], None], outputs: Outputs | None = None) -> int:
    """Print the last words of a command, and a line for each file that could not be written.

    Args:
      status: how the command ended.
      show: prints on the console that it is given; standard error, if a file is standard output.
      outputs: what the command wrote.

    Returns:
      `status`; in place of 0, 2 where something could not be written, and `READER_HAS_GONE`.
    """
    for failure in outputs.failures if outputs else ():
        refuse(failure)
        status = status or 2
    try:
        show(console(stderr=outputs is not None and outputs.has_stdout))
        print(end="", flush=True)
    except BrokenPipeError:
        status = status or READER_HAS_GONE
    except OSError as error:
        refuse(f"standard output: {error.strerror}")
        status = status or 2
    else:
        return status
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
