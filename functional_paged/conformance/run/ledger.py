"""Known failures as data: a TOML file a backend, each entry with a reason.

backend = "torch-index-put"

[[known]]
id = "c14_negative_slots/*"    # a case, or a pattern of which every case fails
status = "xfail"               # or "not-run": it takes too long, or may pass
reason = "-1 counts from the end"
link = "..."                   # optional
"""

from __future__ import annotations

import sys
from collections import Counter
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
    """One entry of a ledger; see the module."""

    id: str
    status: str
    reason: str
    link: str = ""

    def matches(self, case: Case) -> bool:
        """Whether the entry speaks of a case."""
        return fnmatchcase(case.id, self.id)


@dataclass(frozen=True)
class Ledger:
    """The known failures of one backend.

    Attributes:
      backend: the adapter's name.
      known: the entries.
      text: of the file, if there is one.
    """

    backend: str
    known: tuple[Known, ...] = ()
    text: str = ""

    def find(self, case: Case) -> Known | None:
        """The first entry that speaks of a case."""
        return next((known for known in self.known if known.matches(case)), None)

    def not_to_run(self, case: Case) -> bool:
        """Whether the case is listed as not to be run."""
        known = self.find(case)
        return known is not None and known.status == "not-run"

    def to_run(self, cases: Iterable[Case]) -> list[Case]:
        """The cases but for those that are listed as not to be run."""
        return [case for case in cases if not self.not_to_run(case)]

    def read_over(self, run: BackendRun, cases: Iterable[Case]) -> tuple[BackendRun, list[str]]:
        """A run of `to_run(cases)` with all cases, known failures as `xfail`.

        Returns:
          The run, and what contradicts the ledger.
        """
        done = {result.case.id: result for result in run.results}
        every = [done.get(case.id) or Result(case, "not-run", "see the ledger") for case in cases]
        known, errors = self.apply(every)
        return replace(run, results=tuple(known)), errors

    def apply(self, results: Iterable[Result]) -> tuple[list[Result], list[str]]:
        """Turn this backend's known failures into `xfail`, and list what contradicts the ledger.

        An id must match a case of the suite, whether or not that case was run.
        """
        applied, errors = [], []
        for result in results:
            known = self.find(result.case)
            if known is not None:
                if known.status == "xfail" and result.status == "pass":
                    errors.append(f"{result.case.id} passes, but the ledger says: {known.reason}")
                status = "xfail" if result.status == "fail" else result.status
                words = f"{known.reason} {known.link}".strip()
                result = replace(result, status=status, ledger=words)
            applied.append(result)
        for known in self.known:
            if not _is_case(known):
                errors.append(f"id {known.id!r} matches no case")
        return applied, errors


def _is_case(known: Known) -> bool:
    """Whether there is a case that an entry speaks of, of whatever shape if it names one."""
    try:
        return bool(find_case(known.id))
    except KeyError:
        return any(map(known.matches, every_case()))


def read_ledgers(files: Iterable[Path]) -> dict[str, Ledger]:
    """Ledgers by the name of their backend.

    Raises:
      LedgerError: as `read_ledger`, and for a second ledger of a backend.
    """
    ledgers: dict[str, Ledger] = {}
    for file in files:
        ledger = read_ledger(file)
        if ledgers.setdefault(ledger.backend, ledger) is not ledger:
            raise LedgerError(f"{file}: backend {ledger.backend!r} must have one ledger, got two")
    return ledgers


def read_ledger(file: Path) -> Ledger:
    """Read a ledger.

    Raises:
      LedgerError: not TOML, a field that is missing, empty, unknown or of the wrong kind, or an id
        that stands there twice.
    """
    try:
        return _parsed(file.read_text("utf-8"))
    except OSError as error:
        raise LedgerError(f"{file}: {error.strerror}") from error
    except ValueError as error:
        raise LedgerError(f"{file}: {error}") from error


def _parsed(text: str) -> Ledger:
    fields = tomllib.loads(text)
    _expect("the ledger", fields, {"backend": str, "known": list}, optional="known")
    known = []
    for number, entry in enumerate(fields.get("known", [])):
        where, kinds = f"known[{number}]", {"id": str, "status": str, "reason": str, "link": str}
        _expect(where, entry, kinds, optional="link")
        if entry["status"] not in ("xfail", "not-run"):
            raise LedgerError(
                f"{where}.status must be 'xfail' or 'not-run', got {entry['status']!r}"
            )
        known.append(Known(**entry))
    for id_, count in Counter(entry.id for entry in known).items():
        if count > 1:
            raise LedgerError(f"id {id_!r} must stand there once, got {count}")
    return Ledger(fields["backend"], tuple(known), text)


def _expect(where: str, entry: Any, kinds: dict[str, type], *, optional: str) -> None:
    if not isinstance(entry, dict):
        raise LedgerError(f"{where} must be a table, got {entry!r}")
    for name in entry:
        if name not in kinds:
            raise LedgerError(f"{where} must have no field {name!r}")
    for name, kind in kinds.items():
        value: Any = entry.get(name)
        if name == optional and name not in entry:
            continue
        if not isinstance(value, kind) or not (kind is list or value.strip()):
            raise LedgerError(f"{where}.{name} must be a {kind.__name__}, got {value!r}")


def draft_ledger(ledger: Ledger, results: Iterable[Result]) -> str:
    """The text of a ledger with an entry more for each failure of a run that it does not know.

    What it has stays as it is; a person has to replace the reasons of the new entries.
    """
    head = f"backend = {_quoted(ledger.backend)}\n"
    new = [
        Known(
            result.case.id,
            "not-run" if result.ending == "hung" else "xfail",
            result.reason,
        )
        for result in results
        if result.status == "fail"
    ]
    draft = "\n".join([ledger.text or head, *map(_entry, new)])
    try:
        tomllib.loads(draft)
    except tomllib.TOMLDecodeError:  # entries that stand in one array, to which none can be added
        return "\n".join([head, *map(_entry, (*ledger.known, *new))])
    return draft


def _entry(known: Known) -> str:
    fields = [f"{name} = {_quoted(value)}" for name, value in vars(known).items() if value]
    return "\n".join(["[[known]]", *fields, ""])


def _quoted(text: str) -> str:
    text = text.encode("utf-8", "backslashreplace").decode()  # TOML has no lone surrogates
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
