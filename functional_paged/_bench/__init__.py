"""The benchmark: what is measured, the ways to do it, and the ratios between them."""

from .measure import measure
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
    rows_of,
    tables,
)
from .ways import Timer, Way, in_processes, timed, ways_found
