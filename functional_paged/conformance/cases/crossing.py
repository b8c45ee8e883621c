"""Cases of a step: in every form, for a shape and a dtype."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, reference

from ..bits import DTYPES, pattern
from .case import Case
from .guarded_cache import Shape
from .problem import Problem
from .scenarios import Scenario
from .steps import Step

MAIN_SHAPE: Shape = (7, 3, 16, 46)
MAIN_DTYPE = "bf16"


def cases_of(scenario: Scenario, dtype: str, shape: Shape) -> Iterator[Case]:
    """A scenario of the shape's size, in every form that can say it."""
    step = scenario.step
    for spec in forms_of(step, shape):
        yield Case(
            id=f"{scenario.name}/{spec.form}/{dtype}/{shape_name(shape)}",
            clauses=scenario.clauses,
            about=scenario.about,
            build=functools.partial(problem, shape, dtype, Step(spec, step.num_tokens)),
            link=scenario.link,
            # A quick run has each scenario in the form that it is written in.
            quick=shape == MAIN_SHAPE and dtype == MAIN_DTYPE and spec is step.index_spec,
        )


def forms_of(step: Step, shape: Shape) -> Iterator[IndexSpec]:
    """The step's spec; for a table also the plan and the mapping that store the same tokens."""
    yield step.index_spec
    if not isinstance(step.index_spec, BlockTable):
        return
    slots = np.full(step.num_tokens, PAD, np.int32)
    chunks: list[list[int]] = []
    places = reference.stored_tokens(step.index_spec, shape, step.num_tokens)
    for token, block, offset in places:
        slots[token] = block * shape[2] + offset
        if chunks and chunks[-1][0] + chunks[-1][3] == token and offset and chunks[-1][1] == block:
            chunks[-1][3] += 1
        else:
            chunks.append([token, block, offset, 1])
    yield ChunkPlan(np.array(chunks, np.int32).reshape(-1, 4))
    yield SlotMapping(slots)


def problem(shape: Shape, dtype: str, step: Step, layout: str = "contiguous") -> Problem:
    """A problem whose states have a pattern of their own."""
    states = pattern_of((step.num_tokens, shape[1], shape[3]), DTYPES[dtype])
    return Problem(shape, DTYPES[dtype], states, step.index_spec, layout)


def pattern_of(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """States of a shape, each element with bits of its own."""
    return pattern(math.prod(shape), dtype, salt=2).reshape(shape)


def shape_name(shape: Shape) -> str:
    """A cache's shape in case ids."""
    return "n{}_h{}_s{}_d{}".format(*shape)
