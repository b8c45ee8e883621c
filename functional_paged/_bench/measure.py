"""The measuring: rounds in which each way is timed once, in an order of its own each time."""

from __future__ import annotations

import math
import os
import random
import subprocess
import sys
import timeit
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from .problems import Problem
    from .ways import Way

Timer: TypeAlias = Callable[[], float]
"""Makes one measurement; gives the seconds of one call."""

BLOCK = 500e-6
"""Seconds that calls are repeated for, so that reading the clock costs nothing."""


def in_a_line(error: Exception) -> str:
    """What an error says, cut."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


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
        done = subprocess.run(
            words, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError((done.stderr.splitlines() or [f"status {done.returncode}"])[-1])
        return float(done.stdout.split()[-1])

    return seconds


def measure(
    problems: Sequence[Problem], ways: Sequence[Way], on_round: Callable[[], None] = lambda: None
) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """Time every way to solve these problems, in rounds.

    Args:
      problems: that share their rounds.
      ways: of any group.
      on_round: called after each round.

    Returns:
      A series for each way that never failed: microseconds of one call in each round. And what
      failed, each with the reason.
    """
    first = problems[0]
    told = {"group": first.group, "problem": first.name, "threads": first.threads}
    timers: dict[str, Timer] = {}
    baselines: dict[str, str] = {}
    failed: list[dict[str, str]] = []

    def tried(name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # whatever a library raises
            where = f"{first.group}, {first.name}"
            failed.append({"way": name, "problem": where, "reason": in_a_line(error)})
            timers.pop(name, None)

    for problem in problems:
        for way in ways:
            name = way.name + problem.variant
            if problem.group not in way.groups:
                continue
            timer = tried(way.name, lambda way=way, problem=problem: way.prepare(problem))
            if timer is not None:
                timers[name] = timer
                baselines[name] = way.name + first.variant if first.variant else way.baseline
    us = _in_rounds(timers, first.rounds, tried, on_round)
    return [
        {**told, "way": name, "baseline": baselines[name], "us": us[name]} for name in timers
    ], failed


def _in_rounds(
    timers: Mapping[str, Timer], rounds: int, tried: Callable[..., Any], on_round: Callable
) -> dict[str, list[float]]:
    """Microseconds of each call; `tried` takes a timer that fails out of `timers`."""
    found: dict[str, list[float]] = {name: [] for name in timers}
    shuffle = random.Random(0)
    for _ in range(rounds):
        for name in shuffle.sample(list(timers), len(timers)):
            seconds = tried(name, timers[name])
            if seconds is not None:
                found[name].append(float(f"{seconds * 1e6:.4g}"))
        on_round()
    return found
