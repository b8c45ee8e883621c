"""The table of cases: every scenario in every form, over sizes, dtypes and layouts."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping, reference

from ._bits import DTYPES, pattern
from ._case import Case
from ._problem import LAYOUTS, Problem
from ._recorded import recorded_kv
from ._scenarios import SCENARIOS, Scenario, Step, mapping, plan_of, table

Shape = tuple[int, int, int, int]

# Axes pairwise different, in both orders; every block size and head size that has its own trouble.
SHAPES: dict[Shape, str] = {
    (7, 3, 16, 46): "bf16",
    (64, 5, 3, 1): "f32",
    (5, 7, 33, 64): "bf16",
    (6, 1, 128, 46): "f8e4m3fn",
    (9, 2, 1, 128): "i8",
}
MAIN_SHAPE: Shape = (7, 3, 16, 46)
EVERY_DTYPE = ("c5_prefill", "c5_decode", "c8_hole", "c14_negative_slots", "c13_chunks")
"""Scenarios that run in each dtype; what a dtype breaks does not depend on the clause."""

FORMS = {BlockTable: "block_table", ChunkPlan: "chunks", SlotMapping: "slots"}


@functools.cache
def all_cases() -> tuple[Case, ...]:
    """Every case, in the order of the clauses."""
    cases = [*_scenario_cases(), *_refused_cases(), *_special_cases(), *_recorded_cases()]
    return tuple(sorted(cases, key=lambda case: (int(case.clauses[0][1:]), case.id)))


@functools.cache
def large_cases() -> tuple[Case, ...]:
    """Caches of more than 2**31 elements: 2 GiB and more, so only on demand."""
    shape: Shape = (2**15 + 1, 16, 32, 128)  # the last block begins past 2**31
    step = table([[shape[0] - 1, 0, shape[0] - 2]], [shape[2] - 1], [shape[2] + 2])
    return tuple(
        Case(
            f"c19_last_block/{FORMS[type(spec)]}/i8/{_shape_name(shape)}",
            ("C19",),
            "element offsets past 2**31",
            functools.partial(problem, shape, "i8", Step(spec, step.num_tokens)),
            kind="large",
            link="https://github.com/vllm-project/vllm/issues/1486",
        )
        for spec in forms_of(step, shape)
    )


@functools.cache
def _by_id() -> dict[str, Case]:
    return {case.id: case for case in (*all_cases(), *large_cases())}


def find_case(case_id: str) -> Case:
    """The case with an id.

    Raises:
      KeyError: there is none.
    """
    return _by_id()[case_id]


def _scenario_cases() -> Iterator[Case]:
    for scenario in SCENARIOS:
        for shape, dtype in SHAPES.items():
            yield from _in_every_form(scenario, dtype, shape)
        for dtype in DTYPES:
            if scenario.name in EVERY_DTYPE and dtype != SHAPES[MAIN_SHAPE]:
                yield from _in_every_form(scenario, dtype, MAIN_SHAPE)


def _in_every_form(scenario: Scenario, dtype: str, shape: Shape) -> Iterator[Case]:
    step = scenario.build(shape[0], shape[2])
    for spec in forms_of(step, shape):
        yield Case(
            id=f"{scenario.name}/{FORMS[type(spec)]}/{dtype}/{_shape_name(shape)}",
            clauses=scenario.clauses,
            about=scenario.about,
            build=functools.partial(problem, shape, dtype, Step(spec, step.num_tokens)),
            link=scenario.link,
            quick=shape == MAIN_SHAPE and dtype == SHAPES[MAIN_SHAPE],
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
    states_shape = (step.num_tokens, shape[1], shape[3])
    states = pattern(math.prod(states_shape), DTYPES[dtype], salt=2).reshape(states_shape)
    return Problem(shape, DTYPES[dtype], states, step.index_spec, layout)


def _refused_cases() -> Iterator[Case]:
    n, h, s, d = MAIN_SHAPE
    good = table([[0, 1], [n - 1, 2]], [s - 1, 0], [2, 1])
    spec = good.index_spec
    assert isinstance(spec, BlockTable)
    shapes = {
        "states_of_two_axes": (3, h * d),
        "states_with_other_heads": (3, h + 1, d),
        "states_with_axes_swapped": (3, d, h),
        "states_with_a_longer_head": (3, h, d + 1),
    }
    for name, shape in shapes.items():
        yield _refused("C1", name, spec, states=shape)
    specs = {
        "table_of_one_axis": BlockTable(spec.block_table[0], spec.context_kv_lens, spec.cu_q_lens),
        "too_few_contexts": BlockTable(spec.block_table, spec.context_kv_lens[:1], spec.cu_q_lens),
        "too_few_cu_q_lens": BlockTable(
            spec.block_table, spec.context_kv_lens, np.array([0, 3], np.int32)
        ),
        "chunks_of_three_columns": ChunkPlan(np.zeros((2, 3), np.int32)),
        "slots_of_two_axes": SlotMapping(np.zeros((3, 1), np.int32)),
    }
    for name, bad in specs.items():
        yield _refused("C1", name, bad)
    for name in ("f32", "f16", "i8"):
        yield _refused("C2", f"states_of_{name}_for_bf16", spec, dtype=name)
    wide = {
        "long_block_table": BlockTable(
            spec.block_table.astype(np.int64), spec.context_kv_lens, spec.cu_q_lens
        ),
        "long_contexts": BlockTable(
            spec.block_table, spec.context_kv_lens.astype(np.int64), spec.cu_q_lens
        ),
        "long_chunks": ChunkPlan(np.array([[0, 1, 0, 1]], np.int64)),
        "float_slots": SlotMapping(np.array([1.0, 2.0, 3.0], np.float32)),
    }
    for name, bad in wide.items():
        yield _refused("C4", name, bad)
    for form in forms_of(good, MAIN_SHAPE):
        yield Case(
            id=f"c3_states_on_another_device/{FORMS[type(form)]}",
            clauses=("C3",),
            about="states on another device than the cache",
            build=functools.partial(problem, MAIN_SHAPE, "bf16", Step(form, 3)),
            kind="apart",
        )


def _refused(
    clause: str,
    name: str,
    spec: IndexSpec,
    *,
    states: tuple[int, ...] | None = None,
    dtype: str = "bf16",
) -> Case:
    def build() -> Problem:
        shape = (3, MAIN_SHAPE[1], MAIN_SHAPE[3]) if states is None else states
        rows = pattern(math.prod(shape), DTYPES[dtype], salt=2).reshape(shape)
        return Problem(MAIN_SHAPE, DTYPES["bf16"], rows, spec)

    about = name.replace("_", " ")
    return Case(
        f"{clause.lower()}_{name}/{FORMS[type(spec)]}", (clause,), about, build, kind="refuse"
    )


def _special_cases() -> Iterator[Case]:
    n, _, s, _ = MAIN_SHAPE
    step = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 0], [s + 2, 3])
    for spec in forms_of(step, MAIN_SHAPE):
        form, one = FORMS[type(spec)], Step(spec, step.num_tokens)
        for layout in LAYOUTS[1:]:
            yield Case(
                f"c20_cache_{layout}/{form}",
                ("C20", "C16"),
                f"a cache that lies {layout} in memory",
                functools.partial(problem, MAIN_SHAPE, "bf16", one, layout),
                link="https://github.com/flashinfer-ai/flashinfer/issues/527",
            )
        for states_layout in ("fused_qkv", "expanded_heads", "every_other_token"):
            yield Case(
                f"c20_states_{states_layout}/{form}",
                ("C20",),
                f"states that lie {states_layout} in memory",
                functools.partial(_strided_states, one, states_layout),
                link="https://github.com/flashinfer-ai/flashinfer/issues/588",
            )
        for dtype in ("f32", "bf16"):
            build = functools.partial(problem, MAIN_SHAPE, dtype, one)
            yield Case(
                f"c22_vjp/{form}/{dtype}",
                ("C22",),
                "cotangents of the cache and of the states",
                build,
                kind="vjp",
            )
            yield Case(
                f"c16_load/{form}/{dtype}",
                ("C16",),
                "the rows read back, zeros for tokens that are not stored",
                build,
                kind="load",
            )
        yield Case(
            f"c17_inputs/{form}",
            ("C17",),
            "inputs keep their bits; a store in place returns the cache it was given",
            functools.partial(problem, MAIN_SHAPE, "bf16", one),
        )
    for dtype in DTYPES:
        yield Case(
            f"c16_every_bit_pattern/slots/{dtype}",
            ("C16",),
            "every pattern of 8 and 16 bits, stored and left alone",
            functools.partial(_every_bit_pattern, dtype),
        )
    many = mapping(70_000, 65_535, 65_536, PAD, 70_001, 0)
    yield Case(
        "c5_many_slots/slots/i8",
        ("C5",),
        "slots past 65,536",
        functools.partial(problem, (2_334, 1, 30, 1), "i8", many),
    )
    yield Case(
        "c5_many_blocks/chunks/i8",
        ("C5",),
        "blocks past 65,536",
        functools.partial(
            problem, (70_000, 1, 1, 1), "i8", plan_of((0, 65_536, 0, 1), (1, 3, 0, 1), num_tokens=2)
        ),
    )


def _strided_states(step: Step, layout: str) -> Problem:
    base = problem(MAIN_SHAPE, "bf16", step)
    num_tokens, kv_heads, head_dim = base.states.shape
    if layout == "fused_qkv":
        shape = (num_tokens, 3 * kv_heads, head_dim)
        states = _pattern_of(shape, base.dtype)[:, kv_heads : 2 * kv_heads]
    elif layout == "expanded_heads":
        # Like broadcast_to, but writable: torch knows no read-only memory.
        strides = (base.states.strides[0], 0, base.states.strides[2])
        states = np.lib.stride_tricks.as_strided(base.states, base.states.shape, strides)
    else:
        states = _pattern_of((2 * num_tokens, kv_heads, head_dim), base.dtype)[::2]
    return Problem(MAIN_SHAPE, base.dtype, states, step.index_spec)


def _every_bit_pattern(dtype: str) -> Problem:
    shape, num_tokens = (80, 4, 16, 16), 1024
    slots = np.arange(num_tokens, dtype=np.int32) * 5 % 1279
    bits = np.arange(num_tokens * 4 * 16, dtype=np.uint32)
    element = DTYPES[dtype]
    states = (
        bits.astype(f"u{element.itemsize}") if element.itemsize < 4 else bits * np.uint32(65521)
    )
    states = states.view(element).reshape(num_tokens, 4, 16)
    return Problem(shape, element, states, SlotMapping(slots))


def _recorded_cases() -> Iterator[Case]:
    shape: Shape = (11, 3, 16, 64)
    for record in recorded_kv():
        prefill, decode = np.split(record.states.copy(), [record.prefill_tokens])
        steps = {
            "prefill": (table([[7, 2, 10]], [5], [len(prefill)]), prefill),
            "decode": (table([[7, 2], [9, 0], [1, 3], [PAD, 4]], [15, 16, 3, 17]), decode),
        }
        for name, (step, states) in steps.items():
            for spec in forms_of(step, shape):
                yield Case(
                    f"c5_smollm2_{name}/{FORMS[type(spec)]}/{record.name}",
                    ("C5", "C16"),
                    f"keys and values of a real model: {name}",
                    functools.partial(Problem, shape, record.states.dtype, states, spec),
                )


def _pattern_of(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return pattern(math.prod(shape), dtype, salt=2).reshape(shape)


def _shape_name(shape: Shape) -> str:
    return "n{}_h{}_s{}_d{}".format(*shape)
