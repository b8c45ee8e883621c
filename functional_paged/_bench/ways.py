"""Ways to solve a problem: how each is timed, and the search for those of every package."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import timeit
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TypeAlias

from .problems import Problem

ENTRY_POINTS = "functional_paged.ways"
"""The group of entry points that names lists of ways: ours, and those of any package."""

BLOCK = 500e-6
"""Seconds that calls are repeated for, so that reading the clock costs nothing."""

Timer: TypeAlias = Callable[[], float]
"""Makes one measurement; gives the seconds of one call."""


@dataclass(frozen=True)
class Way:
    """One way to solve the problems of some groups.

    Attributes:
      name: in tables; ours begin with `ours: `, the backend that `plan` takes before others.
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


def in_a_line(error: Exception) -> str:
    """What an error says, cut."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def timed(call: Callable[[], object], per: int = 1) -> Timer:
    """A timer of a call: the best of three blocks of calls, as all that disturbs only adds.

    Args:
      call: done a few times at once, so that what it compiles and allocates is not measured.
      per: how many stores one call is.
    """
    timer = timeit.Timer(call)
    timer.timeit(2)
    number = math.ceil(BLOCK / min(timer.repeat(3, 1)))
    return lambda: min(timer.repeat(3, number)) / number / per


def in_processes(code: str, **environment: str) -> Timer:
    """A timer of Python code in a fresh process, which looks for modules where this one does.

    Starting Python is not counted.
    """
    program = (
        f"import sys\nsys.path[:] = {sys.path!r}\nfrom time import perf_counter\n"
        f"start = perf_counter()\n{code}\nprint(perf_counter() - start)"
    )

    def seconds() -> float:
        words = [sys.executable, "-c", program]
        env = {**os.environ, **environment}
        done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.splitlines() or [f"status {done.returncode}"])[-1])
        return float(done.stdout.split()[-1])

    return seconds
