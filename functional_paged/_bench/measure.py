"""The measuring: rounds in which each way is timed once, in an order of its own each time."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

from .problems import Problem
from .ways import Timer, Way, in_a_line


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
    first, series = problems[0], {}
    told = {"group": first.group, "problem": first.name, "threads": first.threads}
    timers: dict[str, Timer] = {}
    failed: list[dict[str, str]] = []

    def tried(name: str, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:  # whatever a library raises
            where = f"{first.group}, {first.name}"
            failed.append({"way": name, "problem": where, "reason": in_a_line(error)})

    for problem, way in product(problems, ways):
        if problem.group in way.groups:
            timer = tried(way.name, partial(way.prepare, problem))
            if timer is not None:
                name = way.name + problem.variant
                base = way.name + first.variant if first.variant else way.baseline
                series[name] = {**told, "way": name, "baseline": base, "us": []}
                timers[name] = timer
    shuffle = random.Random(0)
    for _ in range(first.rounds):
        for name in shuffle.sample(list(timers), len(timers)):
            seconds = tried(name, timers[name])
            if seconds is None:
                del timers[name]
            else:
                series[name]["us"].append(float(f"{seconds * 1e6:.4g}"))
        on_round()
    return [series[name] for name in timers], failed
