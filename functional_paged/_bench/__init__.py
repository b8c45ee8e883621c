"""The benchmark: what is measured, the ways to do it, and the ratios between them."""

from .measure import Timer, in_processes, measure, timed
from .plot import plot
from .problems import GROUPS, Problem, problems
from .results import (
    SCHEMA,
    Row,
    by_problem,
    machine,
    machine_line,
    not_measured,
    plural,
    row,
    tables,
)
from .ways import Way, ways_found

__all__ = [
    "GROUPS",
    "SCHEMA",
    "Problem",
    "Row",
    "Timer",
    "Way",
    "by_problem",
    "in_processes",
    "machine",
    "machine_line",
    "measure",
    "not_measured",
    "plot",
    "plural",
    "problems",
    "row",
    "tables",
    "timed",
    "ways_found",
]
