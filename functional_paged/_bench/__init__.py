"""The benchmark: what is measured, the rounds, and the ratios between the ways to do it."""

from .measure import Timer, measure, tables, timed
from .problems import GROUPS, Problem, problems
