"""Ways to solve a problem, and the search for those of every package that is installed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points

from .measure import Timer, in_a_line
from .problems import Problem

ENTRY_POINTS = "functional_paged.ways"
"""The group of entry points that names lists of ways: ours, and those of any package."""


@dataclass(frozen=True)
class Way:
    """One way to solve the problems of some groups.

    Attributes:
      name: in tables; ours begin with `ours: `, that of the backend that `plan` takes is the first.
      groups: whose problems it solves.
      prepare: makes ready for a problem; gives what times one call, or `None` where the problem is
        not for this way. What it raises is reported.
      baseline: name of the way that it is measured against, its own for one that others are.
    """

    name: str
    groups: tuple[str, ...]
    prepare: Callable[[Problem], Timer | None]
    baseline: str


def ways_found() -> tuple[list[Way], list[dict[str, str]]]:
    """The ways of all packages, and what cannot be imported, each with the reason."""
    ways: list[Way] = []
    missing: list[dict[str, str]] = []
    for point in entry_points(group=ENTRY_POINTS):
        try:
            ways += point.load()
        except Exception as error:  # whatever a module raises
            missing.append({"way": point.name, "problem": "", "reason": in_a_line(error)})
    # Baselines first, then ours.
    ways.sort(key=lambda way: (way.name != way.baseline, not way.name.startswith("ours: ")))
    return ways, missing
