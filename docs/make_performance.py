"""Make the tables of `performance.md` from `benchmarks/results.json`; its words are by hand.

python docs/make_performance.py
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from functional_paged.internal import bench

PAGE = Path(__file__).with_name("performance.md")
RESULTS = PAGE.parents[1] / "benchmarks" / "results.json"


def made() -> str:
    """The page, with what stands between its marks made again."""
    results = json.loads(RESULTS.read_text("utf-8"))
    lost = [f"- Not measured: {name}: {why}" for name, why in results["not_measured"].items()]
    found = {"machine": "\n".join([f"{results['machine']}.", *lost])}
    for group in bench.GROUPS:
        tables = bench.tables([s for s in results["series"] if s["group"] == group])
        found[group] = "\n\n".join(
            f"{title}:\n\n{_markdown(*lines)}" for title, lines in tables.items()
        )
    return re.sub(
        r"(<!-- begin (\w+) -->\n).*?(<!-- end -->)",
        lambda mark: f"{mark[1]}\n{found[mark[2]]}\n\n{mark[3]}",
        PAGE.read_text("utf-8"),
        flags=re.DOTALL,
    )


def _markdown(*lines: list[str]) -> str:
    head, *rows = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "| --- " * len(lines[0]) + "|", *rows])


if __name__ == "__main__":
    PAGE.write_text(made(), "utf-8")
