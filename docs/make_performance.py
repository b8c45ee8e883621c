"""Make the tables and drawings of `performance.md` from `benchmarks/results.json`.

    python docs/make_performance.py [--check]

`--check` fails where the page or a drawing is stale. The words between them are written by hand.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from functional_paged.internal import bench

FOLDER = Path(__file__).parent
RESULTS = FOLDER.parent / "benchmarks" / "results.json"
PAGE, IMAGES = FOLDER / "performance.md", FOLDER / "img" / "performance"

OTHER = re.compile(r"(?!ours: |copy$|layout change$|JAX: donated jit)")
"""Ways of other people to do what a store does."""

TORCH, JAX = "ours: (?!JAX)", "ours: JAX"
TARGETS: tuple[tuple[str, str, str, dict[str, float]], ...] = (
    ("A store in torch is ahead of every other way", "store", TORCH, {"others": 1}),
    ("A prefill takes at most the layout change", "store/prefill", TORCH, {"layout change": 1}),
    ("A decode takes at most 2 copies and 5 us", "store/decode", TORCH, {"copy": 2, "us": 5}),
    ("A plan is ahead of chunks by a mask", "plan", TORCH, {"baseline": 1}),
    ("A prefill in JAX: 2.5 layout changes", "store/prefill", JAX, {"layout change": 2.5}),
    (
        "A decode in JAX: 4 copies, an empty donated jit and 25 us",
        "store/decode",
        JAX,
        {"copy": 4, "JAX: donated jit of nothing": 1, "us": 25},
    ),
    ("A call in JAX: an empty donated jit and 25 us", "call", JAX, {"baseline": 1, "us": 25}),
    ("1 GiB of cache takes at most 1.3 times 16 MiB", "growth", "ours.* 1024", {"baseline": 1.3}),
    ("The core imports in less than 2 NumPys", "first-use", ".* functional", {"baseline": 2}),
)
"""What holds, in which problems, for which ways (of several backends, for the first, which is the
one that `plan` takes), and the limit: a sum of times and microseconds."""


def worst(
    results: Mapping[str, Any], problems: str, ours: str, limit: Mapping[str, float]
) -> tuple[bench.Row, str] | None:
    """The ratio to a limit where it is highest, and where that is; `None` if not measured."""
    found = []
    for (group, problem, threads), ways in bench.by_problem(results).items():
        held = [way for way in bench.rows_of(ways) if re.match(ours, way)]
        if not f"{group}/{problem}".startswith(problems):
            continue
        us = {way: np.array(series["us"]) for way, series in ways.items()}
        for way in held if group == "growth" else held[:1]:
            base = ways[way]["baseline"]
            for other in filter(OTHER.match, us) if "others" in limit else [base]:
                known = {**us, "us": np.ones(1), "others": us[other], "baseline": us[base]}
                if limit.keys() <= known.keys():
                    most = sum(known[name] * factor for name, factor in limit.items())
                    against = f" against {other}" * ("others" in limit)
                    row = bench.row(way, base, us[way] / most)
                    found.append((row, f"{way}{against}: {problem}, {bench.plural(threads)}"))
    return max(found, key=lambda entry: entry[0].median, default=None)


def targets(results: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a table: whether each target is met, where it comes closest to its limit."""
    lines = [["target", "met", "of the limit", "where"]]
    for text, problems, ours, limit in TARGETS:
        found = worst(results, problems, ours, limit)
        met = "not measured" if found is None else "yes" if found[0].median <= 1 else "**no**"
        lines.append([text, met, *(map(str, found) if found else ("", ""))])
    return lines


def markdown(lines: list[list[str]]) -> str:
    """A table; the first line has the headings."""
    head, *rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "| --- " * len(lines[0]) + "|", *rows])


def blocks(results: Mapping[str, Any]) -> dict[str, str]:
    """What stands between the marks of the page, by name."""
    found = {
        "machine": f"{bench.machine_line(results)}.",
        "targets": markdown(targets(results)),
        "not measured": "\n".join(f"- {line}" for line in bench.not_measured(results)),
    }
    for group in bench.GROUPS:
        tables = [
            f"{title}:\n\n{markdown(lines)}"
            for of, title, lines in bench.tables(results)
            if of == group
        ]
        if tables:
            image = f"![{bench.GROUPS[group]}](img/performance/{group}.svg)"
            found[group] = "\n\n".join([*tables, image])
    return found


def made(results: Mapping[str, Any]) -> dict[Path, str]:
    """The texts of the page and of the drawings, by file.

    Raises:
      KeyError: the page has a mark of a block that there is not.
    """
    found = blocks(results)
    page = re.sub(
        r"(<!-- begin ([^>]+) -->\n).*?(<!-- end -->)",
        lambda mark: f"{mark[1]}\n{found[mark[2]]}\n\n{mark[3]}",
        PAGE.read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    plots = {group: bench.plot(results, group) for group in bench.GROUPS if group in found}
    return {PAGE: page} | {IMAGES / f"{group}.svg": text for group, text in plots.items()}


def main() -> int:
    """Write the page and the drawings, or check them with `--check`."""
    files = made(json.loads(RESULTS.read_text(encoding="utf-8")))
    stale = [p for p, text in files.items() if not p.exists() or p.read_text("utf-8") != text]
    if sys.argv[1:] == ["--check"]:
        for path in stale:
            print(f"{path} is stale: run python docs/make_performance.py", file=sys.stderr)
        return 1 if stale else 0
    IMAGES.mkdir(exist_ok=True, parents=True)
    for path in stale:
        path.write_text(files[path], encoding="utf-8")
    print(f"{PAGE} and {len(files) - 1} drawings")
    return 0


if __name__ == "__main__":
    sys.exit(main())
