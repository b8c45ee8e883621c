"""The table of cases: every scenario in every form, over sizes and dtypes, and the special ones."""

from __future__ import annotations

import functools
import itertools
import re
from collections.abc import Iterator

from functional_paged.internal import clause_order

from ..bits import DTYPES
from . import small_scopes
from .case import Case
from .controls import MAIN_DTYPE, MAIN_SHAPE, SHAPES, plain, size_name
from .crossing import cases_of, forms_of, problem
from .guarded_cache import Shape
from .invalid import invalid_cases
from .memory import bit_cases, memory_cases, transfer_cases
from .quantised import codec_cases
from .recorded import recorded_cases
from .scenarios import example_steps
from .steps import table

EVERY_DTYPE = ("c5_decode", "c8_hole", "c13_chunks", "c14_negative_slots")
"""Scenarios that run in each dtype; what a dtype breaks does not depend on the clause."""

_ID_OF_A_SHAPE = re.compile(r"[^/]+/[^/]+/(\w+)/n(\d+)_h(\d+)_s(\d+)_d(\d+)")


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the clauses."""
    parts = (invalid_cases, memory_cases, transfer_cases, bit_cases, recorded_cases, codec_cases)
    cases = itertools.chain(_scenario_cases(), *(part() for part in parts))
    return tuple(sorted(cases, key=lambda case: (clause_order(case.clauses[0]), case.id)))


def shape_cases(sizes: tuple[int, int, int]) -> tuple[Case, ...]:
    """Every scenario for a cache of `(kv_heads, block_size, head_dim)`, in every form."""
    return _cases_at(MAIN_DTYPE, (MAIN_SHAPE[0], *sizes))


@functools.cache
def large_cases() -> tuple[Case, ...]:
    """Caches of more than 2**31 elements: 2 GiB and more, so only on demand."""
    shape: Shape = (2**15 + 1, 16, 32, 128)  # the last block begins past 2**31
    step = table([[shape[0] - 1, 0, shape[0] - 2]], [shape[2] - 1], [shape[2] + 2])
    return tuple(
        Case(
            f"c19_last_block/{one.index_spec.form}/{size_name('i8', shape)}",
            ("C19",),
            "element offsets past 2**31",
            functools.partial(problem, shape, "i8", one),
            kind="large",
            link="https://github.com/vllm-project/vllm/issues/1486",
            controls=(plain(one.index_spec.form, "i8"),),
        )
        for one in forms_of(step, shape)
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
def _by_id(*, small: bool) -> dict[str, Case]:
    # A worker's forks are cheaper without the specs of the small cases.
    cases = small_cases() if small else (*all_cases(), *large_cases())
    return {case.id: case for case in cases}


def find_case(case_id: str) -> Case:
    """The case with an id, of the suite or of any shape.

    Raises:
      KeyError: there is none.
    """
    by_id = _by_id(small=case_id.startswith("small/"))
    sizes = _ID_OF_A_SHAPE.fullmatch(case_id)
    if case_id not in by_id and sizes and sizes[1] in DTYPES:
        blocks, heads, block_size, head_dim = map(int, sizes.groups()[1:])
        shape = (blocks, heads, block_size, head_dim)
        by_id = {case.id: case for case in _cases_at(sizes[1], shape)}
    return by_id[case_id]


@functools.cache
def _cases_at(dtype: str, shape: Shape) -> tuple[Case, ...]:
    steps = example_steps(shape[0], shape[2]).items()
    return tuple(case for name, step in steps for case in cases_of(name, step, dtype, shape))


def _scenario_cases() -> Iterator[Case]:
    yield from _cases_at(MAIN_DTYPE, MAIN_SHAPE)
    for shape, dtype in SHAPES.items():
        for name, step in example_steps(shape[0], shape[2]).items():
            if shape != MAIN_SHAPE:
                yield from cases_of(name, step, dtype, shape, derived=False)
            elif name in EVERY_DTYPE:
                for other in DTYPES.keys() - {dtype}:
                    yield from cases_of(name, step, other, shape, derived=False)
