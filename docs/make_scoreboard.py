"""Run the check on the shipped backends and on other people's operations; fill `scoreboard.md`.

The tables and lists are made, the words around them are written by hand.
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from functional_paged.conformance import BackendNotFound, BackendRun, all_cases, find_adapter
from functional_paged.conformance.report.results import TWINS, TWINS_TITLE, counts_of
from functional_paged.conformance.run.ledger import Ledger, read_ledger
from functional_paged.conformance.run.supervise import run_backend
from functional_paged.internal import CLAUSES, SPEC_VERSION, clause_order

FOLDER = Path(__file__).parent
LEDGERS = FOLDER.parent / "functional_paged" / "conformance" / "peers"

PAGE = FOLDER / "scoreboard.md"

SHIPPED = ("reference", "jax", "jax-donated", "torch")
PEERS = (
    "torch-index-put",
    "torch-index-copy",
    "torch-paged-attention",
    "jax-at-set",
    "vllm-cpu",
)


def run(name: str) -> BackendRun:
    """Run the whole suite against a backend and apply its ledger, if it has one.

    Raises:
      BackendNotFound: it cannot load.
      SystemExit: its ledger does not know a failure, or knows one that there is not.
    """
    file = LEDGERS / f"{name.replace('-', '_')}.toml"
    ledger = read_ledger(file) if file.exists() else Ledger(name)
    adapter = find_adapter(name)
    done = run_backend(name, ledger.to_run(all_cases()), jobs=min(2, os.cpu_count() or 1))
    done, errors = ledger.read_over(done, all_cases())
    errors += [f"{result.case.id} fails" for result in done.results if result.status == "fail"]
    if errors:
        raise SystemExit("\n".join(f"{name}: {error}" for error in errors))
    # What the ledger keeps from running (too long, or it may pass) is a failure like the others.
    expressed = [
        result
        for result in done.results
        if result.status not in ("cannot-express", "no-such-member", "not-run")
        or (result.ledger and adapter.unsupported(result.case) is None)
    ]
    return replace(done, results=tuple(expressed))


def cell(done: BackendRun, row: str) -> str:
    """What became of the cases that count there."""
    counts = counts_of(done.results, row)
    number, passed = sum(counts.values()), counts.get("pass", 0)
    return "" if not number else str(number) if passed == number else f"**{passed}** of {number}"


def failures(done: BackendRun) -> str:
    """A line for each clause and reason of the ledger."""
    failed = [result for result in done.results if result.status != "pass"]
    counts = Counter((r.clause, r.ledger.removeprefix(f"{r.clause}: ")) for r in failed)
    lines = []
    for clause, reason in sorted(counts, key=lambda line: (clause_order(line[0]), line)):
        linked = re.sub(r" (https://\S+)$", r" ([link](\1))", reason)
        count = counts[clause, reason]
        lines.append(f"- {clause}: {linked} ({count} case{'s' * (count > 1)})")
    return "\n".join(lines)


def table(*rows: Iterable[str]) -> str:
    """A table; the first row has the headings."""
    head, *rest = ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join([head, "| --- " * head.count(" | ") + "| --- |", *rest])


def blocks(runs: list[BackendRun], missing: dict[str, str]) -> dict[str, str]:
    """What stands between the marks of the page, by name."""
    machine = f"Python {platform.python_version()}, {platform.machine()}"
    versions = [
        (f"`{r.name}`", ", ".join(f"{key} {value}" for key, value in r.info.items())) for r in runs
    ]
    versions += [(f"`{name}`", f"not run: {reason}") for name, reason in missing.items()]
    titles = {clause.id: clause.title for clause in CLAUSES} | {TWINS: TWINS_TITLE}
    rows = [(row, title, *(cell(done, row) for done in runs)) for row, title in titles.items()]
    names = [f"`{done.name}`" for done in runs]
    return {
        "run": f"Specification {SPEC_VERSION}, {len(all_cases())} cases, {machine}.\n\n"
        + table(("backend", "versions"), *versions),
        "clauses": table(
            ("clause", "what must hold", *names), *(row for row in rows if any(row[2:]))
        ),
        **dict.fromkeys(PEERS, ""),
        **{done.name: failures(done) for done in runs},
    }


def main() -> None:
    """Run every backend that loads, and write the page."""
    runs, missing = [], {}
    for name in (*SHIPPED, *PEERS):
        print(name, flush=True)
        try:
            runs.append(run(name))
        except BackendNotFound as error:
            missing[name] = str(error).partition("cannot load: ")[2]
    found = blocks(runs, missing)
    page = re.sub(
        r"(<!-- begin ([^>]+) -->\n).*?(<!-- end -->)",
        lambda mark: f"{mark[1]}\n{found[mark[2]]}\n\n{mark[3]}",
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
