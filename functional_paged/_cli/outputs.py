"""Outputs of the commands: files that are checked before the work, and standard output.

What cannot be written costs nothing else. A command refuses (status 2) before its work where that
can be known, and says in one line what failed at its end.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from rich.console import Console


class Refused(Exception):
    """Something that a command cannot do as it was asked; the text says why."""


class Outputs:
    """The files that a command is to write, by option, and its last words.

    Refused where one cannot be written, or is another output or an input.
    """

    def __init__(self, files: Mapping[str, Path | None] | None = None, inputs: Iterable[Path] = ()):
        self._files = {option: path for option, path in (files or {}).items() if path is not None}
        self._failures: list[str] = []
        seen = {path.resolve(): f"{path}, which is read" for path in inputs}
        for option, path in self._files.items():
            name = f"{option} {path}"
            if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
                raise Refused(f"{name}: cannot be written")
            other = seen.setdefault(path.resolve(), name)
            # What is no file, a terminal or /dev/null, keeps nothing that could be lost.
            if other != name and (path.is_file() or not path.exists()):
                raise Refused(f"{name} must be another file than {other}")

    def write(self, option: str, text: Callable[[], str]) -> None:
        """Replace what the file of an option has, if the option was given."""
        path = self._files.get(option)
        try:
            if path is not None:
                path.write_text(text(), "utf-8", "backslashreplace")
        except OSError as error:
            self._failures.append(f"{option} {path}: {error.strerror}")

    def end(self, status: int, show: Callable[[Console], None]) -> int:
        """Print the last words of a command, and a line for each file that could not be written.

        On standard error, if a file is standard output. Returns the status; in place of 0 it is 2
        where something could not be written.
        """
        for failure in self._failures:
            refuse(failure)
            status = status or 2
        try:
            show(console(stderr=any(map(_is_stdout, self._files.values()))))
            print(end="", flush=True)
            return status
        except BrokenPipeError:
            pass  # nobody reads
        except OSError as error:
            refuse(f"standard output: {error.strerror}")
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            # Python flushes once more when it exits.
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return status or 2


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
