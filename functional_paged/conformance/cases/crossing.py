"""Cases of a step: in every form, for a shape and a dtype."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, SlotMapping, reference

from ..bits import DTYPES, pattern
from . import controls
from .case import Case
from .controls import MAIN_DTYPE, MAIN_SHAPE, QUICK_SHAPES, SHAPES, size_name, subject_of
from .guarded_cache import Shape
from .needs import needs
from .problem import Problem
from .scenarios import LINKS, about_of
from .steps import Step

BASES = ("c5_prefill", "c10_more_states")
"""Of a block table, and yet controls of every form at every size."""

_A_FEW = ("c5_prefill", "c13_chunks", "c14_pad")  # one a form
_SUBJECTS = ("C18", "C14", "C15", "C10")  # of a plan or slots that are made of a table, else C5


def cases_of(
    name: str, step: Step, dtype: str, shape: Shape, *, derived: bool = True
) -> Iterator[Case]:
    """A scenario, in the form it is written in and those made of that.

    Args:
      name: of the scenario.
      step: of it, for caches of the shape.
      dtype: of the cache.
      shape: of the cache.
      derived: whether to have all forms that store a token, or only those that `BASES` has.
    """
    size = size_name(dtype, shape)
    of_the_shape = SHAPES.get(shape, MAIN_DTYPE) == dtype  # else of the main one, in other dtypes
    for one in forms_of(step, shape):
        spec, written = one.index_spec, one is step
        form, subject = spec.form, subject_of(name)
        if not (derived or written or name in BASES):
            continue
        if not written:
            if step.num_tokens and not list(reference.stored_tokens(spec, shape, step.num_tokens)):
                continue
            needed = needs(spec, shape, step.num_tokens)
            subject = next((clause for clause in _SUBJECTS if clause in needed), "C5")
        case_id = f"{name}/{form}/{size}"
        if not of_the_shape:
            base = controls.plain(form, dtype)
        elif name == "c5_prefill":
            base = controls.before_shape(form, dtype, shape)
        else:
            decode = controls.is_decode(spec) and name != "c5_decode"
            base = f"c5_{'decode' if decode else 'prefill'}/{form}/{size}"
        singles = size if of_the_shape else controls.MAIN
        clauses, before = controls.standing(subject, spec, shape, step.num_tokens, base, singles)
        more = (f"{other}/{form}/{singles}" for other in controls.BESIDES.get(name, ()))
        yield Case(
            id=case_id,
            clauses=clauses,
            about=about_of(name),
            build=functools.partial(problem, shape, dtype, one),
            link=LINKS.get(name),
            quick=of_the_shape and _is_quick(name, shape, written),
            controls=tuple(control for control in (*before, *more) if control != case_id),
        )


def _is_quick(name: str, shape: Shape, written: bool) -> bool:
    if shape in QUICK_SHAPES:
        return written and name in _A_FEW
    return (written or name == "c5_prefill") and (shape == MAIN_SHAPE or shape not in SHAPES)


def forms_of(step: Step, shape: Shape) -> Iterator[Step]:
    """The step; of a table also with the plan and the mapping that store the same tokens."""
    yield step
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
    yield Step(ChunkPlan(np.array(chunks, np.int32).reshape(-1, 4)), step.num_tokens)
    yield Step(SlotMapping(slots), step.num_tokens)


def problem(
    shape: Shape, dtype: str, step: Step, layout: str = "contiguous", *, payloads: bool = False
) -> Problem:
    """A problem whose states have a pattern of their own."""
    states = pattern_of((step.num_tokens, shape[1], shape[3]), DTYPES[dtype], payloads=payloads)
    return Problem(shape, DTYPES[dtype], states, step.index_spec, layout, payloads=payloads)


def pattern_of(shape: tuple[int, ...], dtype: np.dtype, *, payloads: bool = False) -> np.ndarray:
    """States of a shape, each element with bits of its own."""
    return pattern(math.prod(shape), dtype, salt=2, payloads=payloads).reshape(shape)
