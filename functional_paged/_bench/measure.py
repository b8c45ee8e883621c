"""The measuring: rounds in which each way is timed once, and ratios within a round."""

from __future__ import annotations

import math
import random
import timeit
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import entry_points
from itertools import product
from typing import Any, TypeAlias

import numpy as np

from .problems import GROUPS, Problem

Timer: TypeAlias = Callable[[], float]
"""Makes one measurement; gives the seconds of one call."""


def timed(call: Callable[[], object]) -> Timer:
    """A timer of a call: the best of three blocks of calls, as all that disturbs only adds."""
    timer = timeit.Timer(call)

    @cache
    def number() -> int:
        """Of calls in a block, half a millisecond: reading the clock costs nothing then."""
        timer.timeit(2)  # what the first ones compile and allocate is not measured
        return math.ceil(500e-6 / min(timer.repeat(3, 1)))

    return lambda: min(timer.repeat(3, number())) / number()


@contextmanager
def _noted(lost: dict[str, str], name: str) -> Iterator[None]:
    """A block whose error, whatever a library raises, is a line in `lost`."""
    try:
        yield
    except Exception as error:
        lost[name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]


def measure(problems: Sequence[Problem], lost: dict[str, str]) -> list[dict[str, Any]]:
    """Time every way to solve problems that share their rounds, in a new order in each round.

    The entry points `functional_paged.ways` of all packages give the ways: functions of a problem
    that return timers by name; ours begin with `ours: `. `lost` gets the reasons of what fails.

    Returns:
      A series for each way that never failed, the baseline first, then ours; `us` are microseconds
      of one call in each round.
    """
    first, us, timers = problems[0], {}, {}
    for problem, point in product(problems, entry_points(group="functional_paged.ways")):
        with _noted(lost, point.name):
            for way, timer in point.load()(problem).items():
                row = (f"{first.name}, {way}", problem.size) if first.size else (first.name, way)
                us[row], timers[row] = [], (way, timer)
    shuffle = random.Random(0)
    for _ in range(first.rounds):
        for row in shuffle.sample(list(timers), len(timers)):
            way, timer = timers.pop(row)
            with _noted(lost, way):
                us[row].append(float(f"{timer() * 1e6:.4g}"))
                timers[row] = way, timer
    baseline = first.size or GROUPS[first.group][1]
    rows = [(problem, way) for problem, way in us if (problem, way) in timers]
    rows.sort(key=lambda row: (row[1] != baseline, not row[1].startswith("ours: ")))
    told = {"group": first.group, "threads": first.threads, "baseline": baseline}
    return [{**told, "problem": row[0], "way": row[1], "us": us[row]} for row in rows]


def tables(series: Sequence[Mapping[str, Any]]) -> dict[str, list[list[str]]]:
    """Lines of each table by its title, the first with the baseline and the problems.

    A cell is the ratio of a way's time to the baseline's in the same round: the median of the
    rounds, with the 10 % and 90 % quantiles, such as `1.25 (1.2-1.31)`.
    """
    us = {(s["group"], s["threads"], s["problem"], s["way"]): s["us"] for s in series}
    found: dict[str, dict[str, dict[str, str]]] = {}
    for (group, threads, problem, way), s in zip(us, series, strict=True):
        base = us.get((group, threads, problem, s["baseline"]))
        if base is not None:
            quantiles = np.quantile(np.divide(s["us"], base), (0.1, 0.5, 0.9))
            low, median, high = (float(f"{ratio:.3g}") for ratio in quantiles)
            cell = "1" if way == s["baseline"] else f"{median:g} ({low:g}-{high:g})"
            title = f"{GROUPS[group][0]}, {threads} thread" + "s" * (threads != 1)
            rows = found.setdefault(title, {})
            rows.setdefault(f"{s['baseline']} = 1", {})[problem] = problem
            rows.setdefault(way, {})[problem] = cell
    made: dict[str, list[list[str]]] = {}
    for title, rows in found.items():
        columns = next(iter(rows.values()))
        for way, cells in rows.items():
            made.setdefault(title, []).append([way, *(cells.get(name, "") for name in columns)])
    return made
