"""Known failures as data, a TOML file a backend; `docs/conformance.md` has the format."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..cases.case import Case
from ..cases.suite import every_case, find_case
from .run_case import Result
from .supervise import BackendRun

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # pyright: ignore[reportMissingImports]


class LedgerError(ValueError):
    """A ledger that is malformed, or that a run contradicts; the text says where."""


@dataclass(frozen=True)
class Known:
    """One entry of a ledger: a case, or a pattern of which every case fails."""

    id: str = ""
    status: str = ""
    reason: str = ""
    link: str = ""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not isinstance(value, str) or not (value.strip() or name == "link"):
                raise LedgerError(f"{name} must be a text, got {value!r}")
        if self.status not in ("xfail", "not-run"):
            raise LedgerError(f"status must be 'xfail' or 'not-run', got {self.status!r}")


@dataclass(frozen=True)
class Ledger:
    """The known failures of the backend whose adapter has a name."""

    backend: str
    known: tuple[Known, ...] = ()

    def find(self, case: Case) -> Known | None:
        """The first entry that speaks of a case."""
        return next((known for known in self.known if fnmatchcase(case.id, known.id)), None)

    def to_run(self, cases: Iterable[Case]) -> list[Case]:
        """The cases but for those that are listed as not to be run."""
        found = ((case, self.find(case)) for case in cases)
        return [case for case, known in found if known is None or known.status != "not-run"]

    def read_over(self, run: BackendRun, cases: Iterable[Case]) -> tuple[BackendRun, list[str]]:
        """A run of `to_run(cases)` with all cases, known failures as `xfail`.

        Beside it stands what contradicts the ledger. An id must match a case of the suite, whether
        or not that case was run.
        """
        done = {result.case.id: result for result in run.results}
        results, errors = [], []
        for case in cases:
            result = done.get(case.id) or Result(case, "not-run", "see the ledger")
            known = self.find(case)
            if known is not None:
                if known.status == "xfail" and result.status == "pass":
                    errors.append(f"{case.id} passes, but the ledger says: {known.reason}")
                status = "xfail" if result.status == "fail" else result.status
                words = f"{known.reason} {known.link}".strip()
                result = replace(result, status=status, ledger=words)
            results.append(result)
        unknown = [known.id for known in self.known if not _is_case(known.id)]
        errors += [f"id {id_!r} matches no case" for id_ in unknown]
        return replace(run, results=tuple(results)), errors


def _is_case(pattern: str) -> bool:
    """Whether there is a case that an entry speaks of, of whatever shape if it names one."""
    try:
        return bool(find_case(pattern))
    except KeyError:
        return any(fnmatchcase(case.id, pattern) for case in every_case())


def read_ledgers(files: Iterable[Path]) -> dict[str, Ledger]:
    """Ledgers by the name of their backend, which has one: `LedgerError` for a second."""
    ledgers: dict[str, Ledger] = {}
    for file in files:
        ledger = read_ledger(file)
        if ledgers.setdefault(ledger.backend, ledger) is not ledger:
            raise LedgerError(f"{file}: backend {ledger.backend!r} must have one ledger, got two")
    return ledgers


def read_ledger(file: Path) -> Ledger:
    """Read a ledger: `LedgerError` for what is not TOML, or a field that is not as it must be."""
    try:
        fields = {"known": [], **tomllib.loads(file.read_text("utf-8"))}
        if fields.keys() != {"backend", "known"} or not isinstance(fields["backend"], str):
            raise LedgerError(f"a ledger must have backend and known, got {', '.join(fields)}")
        return Ledger(fields["backend"], tuple(map(_entry, enumerate(fields["known"]))))
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise LedgerError(f"{file}: {error}") from error


def _entry(numbered: tuple[int, Any]) -> Known:
    number, entry = numbered
    try:
        return Known(**entry)
    except (TypeError, LedgerError) as error:
        raise LedgerError(f"known[{number}]: {error}") from None


def draft_ledger(ledger: Ledger, results: Iterable[Result]) -> str:
    """The text of a ledger with an entry more for each failure of a run that it does not know.

    A person has to replace the reasons of the new entries.
    """
    new = [
        Known(result.case.id, "not-run" if result.ending == "hung" else "xfail", result.reason)
        for result in results
        if result.status == "fail"
    ]
    entries = [
        "\n".join(f"{name} = {_quoted(value)}" for name, value in vars(known).items() if value)
        for known in (*ledger.known, *new)
    ]
    return "\n\n[[known]]\n".join([f"backend = {_quoted(ledger.backend)}", *entries]) + "\n"


def _quoted(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # TOML has no lone surrogates
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
