"""The table of cases: every scenario in every form, over sizes and dtypes, and the special ones."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

from ..bits import DTYPES
from . import small_scopes
from .case import Case
from .crossing import MAIN_DTYPE, MAIN_SHAPE, cases_of, forms_of, problem, shape_name
from .guarded_cache import Shape
from .invalid import invalid_cases
from .memory import memory_cases
from .recorded import recorded_cases
from .scenarios import scenarios
from .steps import Step, table

# Axes pairwise different, in both orders; every block size and head size that has its own trouble.
SHAPES: dict[Shape, str] = {
    MAIN_SHAPE: MAIN_DTYPE,
    (64, 5, 3, 1): "f32",
    (5, 7, 33, 64): "bf16",
    (6, 1, 128, 46): "f8e4m3fn",
    (9, 2, 1, 128): "i8",
}
EVERY_DTYPE = ("c5_prefill", "c5_decode", "c8_hole", "c14_negative_slots", "c13_chunks")
"""Scenarios that run in each dtype; what a dtype breaks does not depend on the clause."""


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the clauses."""
    cases = [*_scenario_cases(), *invalid_cases(), *memory_cases(), *recorded_cases()]
    return tuple(sorted(cases, key=lambda case: (int(case.clauses[0][1:]), case.id)))


@functools.cache
def large_cases() -> tuple[Case, ...]:
    """Caches of more than 2**31 elements: 2 GiB and more, so only on demand."""
    shape: Shape = (2**15 + 1, 16, 32, 128)  # the last block begins past 2**31
    step = table([[shape[0] - 1, 0, shape[0] - 2]], [shape[2] - 1], [shape[2] + 2])
    return tuple(
        Case(
            f"c19_last_block/{spec.form}/i8/{shape_name(shape)}",
            ("C19",),
            "element offsets past 2**31",
            functools.partial(problem, shape, "i8", Step(spec, step.num_tokens)),
            kind="large",
            link="https://github.com/vllm-project/vllm/issues/1486",
        )
        for spec in forms_of(step, shape)
    )


@functools.cache
def small_cases() -> tuple[Case, ...]:
    """Every index spec up to a small size: so many that they run only on demand."""
    stacks = itertools.chain.from_iterable(scope() for scope in small_scopes.SCOPES.values())
    return tuple(itertools.chain.from_iterable(map(small_scopes.cases_of, stacks)))


@functools.cache
def every_case() -> tuple[Case, ...]:
    """The whole suite, with the large and the small cases."""
    return (*all_cases(), *large_cases(), *small_cases())


@functools.cache
def _by_id() -> dict[str, Case]:
    return {case.id: case for case in every_case()}


def find_case(case_id: str) -> Case:
    """The case with an id.

    Raises:
      KeyError: there is none.
    """
    return _by_id()[case_id]


def _scenario_cases() -> Iterator[Case]:
    for shape, dtype in SHAPES.items():
        for scenario in scenarios(shape[0], shape[2]):
            yield from cases_of(scenario, dtype, shape)
            if shape == MAIN_SHAPE and scenario.name in EVERY_DTYPE:
                for other in DTYPES.keys() - {dtype}:
                    yield from cases_of(scenario, other, shape)
