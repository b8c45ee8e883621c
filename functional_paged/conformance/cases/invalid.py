"""Cases of invalid input, each beside a twin that is valid and one change away.

What shapes and dtypes decide, a store must refuse (`refuse`). What values decide, a value check
must refuse (`check`); what a store does with it unchecked is among the scenarios.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping

from ..bits import DTYPES, short_name
from .case import Case, CaseKind
from .controls import MAIN_SHAPE, plain, standing
from .crossing import forms_of, pattern_of, problem
from .problem import Problem
from .steps import Step, mapping, plan_of, table, with_cu_q_lens

N, H, S, D = MAIN_SHAPE
GOOD = table([[0, 1], [N - 1, 2]], [S - 1, 0], [2, 1])
TABLE = GOOD.index_spec
assert isinstance(TABLE, BlockTable)
CONTEXTS = TABLE.context_kv_lens
CHUNKS = np.array([[0, 1, 0, 3]], np.int32)
SLOTS = np.array([1, 2, 3], np.int32)

WRONG_STATES = {
    "states_of_two_axes": (3, H * D),
    "states_with_other_heads": (3, H + 1, D),
    "states_with_axes_swapped": (3, D, H),
    "states_with_a_longer_head": (3, H, D + 1),
}
# By clause and name: what is wrong, and its twin.
WRONG_SPECS: dict[str, tuple[IndexSpec, IndexSpec]] = {
    "C1 table_of_one_axis": (BlockTable(TABLE.block_table[0], CONTEXTS), TABLE),
    "C1 too_few_contexts": (replace(TABLE, context_kv_lens=CONTEXTS[:1]), TABLE),
    "C1 too_few_cu_q_lens": (replace(TABLE, cu_q_lens=np.array([0, 3], np.int32)), TABLE),
    "C1 chunks_of_three_columns": (ChunkPlan(CHUNKS[:, :3]), ChunkPlan(CHUNKS)),
    "C1 slots_of_two_axes": (SlotMapping(SLOTS[:, None]), SlotMapping(SLOTS)),
    "C4 long_block_table": (replace(TABLE, block_table=TABLE.block_table.astype(np.int64)), TABLE),
    "C4 long_contexts": (replace(TABLE, context_kv_lens=CONTEXTS.astype(np.int64)), TABLE),
    "C4 long_chunks": (ChunkPlan(CHUNKS.astype(np.int64)), ChunkPlan(CHUNKS)),
    "C4 float_slots": (SlotMapping(SLOTS.astype(np.float32)), SlotMapping(SLOTS.astype(np.int64))),
}
# Casts that overflow, round or saturate differently from one library to the next.
CASTS = (("f32", "bf16"), ("f16", "bf16"), ("i8", "bf16"), ("f32", "i8"), ("bf16", "f8e4m3fn"))

ROWS, QUERIES = table([[0], [1]], [0, 0]), table([[0, 1]], [0], [4])
chunks = functools.partial(plan_of, num_tokens=2)
WRONG_VALUES: dict[str, tuple[Step, Step]] = {
    "C11 queries_past_the_states": (replace(QUERIES, num_tokens=3), QUERIES),
    "C11 row_past_the_states": (
        replace(ROWS, num_tokens=1),
        table([[0], [1]], [0, -1], num_tokens=1),
    ),
    "C11 slot_past_the_states": (mapping(1, 2, num_tokens=1), mapping(1, PAD, num_tokens=1)),
    "C11 chunk_past_the_states": (chunks((1, 2, 0, 2)), chunks((0, 2, 0, 2))),
    "C12 block_of_a_table": (table([[0, N]], [S - 1], [2]), table([[0, N - 1]], [S - 1], [2])),
    "C12 block_of_a_chunk": (chunks((0, N, 0, 1)), chunks((0, N - 1, 0, 1))),
    "C12 slot": (mapping(N * S), mapping(N * S - 1)),
    "C12 long_slot": (mapping(2**32 + 1, dtype=np.int64), mapping(1, dtype=np.int64)),
    "C13 offset": (chunks((0, 1, -1, 1)), chunks((0, 1, 0, 1))),
    "C13 source": (chunks((-1, 1, 0, 1)), chunks((0, 1, 0, 1))),
    "C13 length": (chunks((0, 1, 0, -1)), chunks((0, 1, 0, 0))),
    "C13 end": (chunks((0, 1, S - 1, 2)), chunks((0, 1, S - 2, 2))),
    "C13 token_named_twice": (
        chunks((0, 1, 0, 2), (1, 2, 0, 1)),
        chunks((0, 1, 0, 1), (1, 2, 0, 1)),
    ),
    "C15 slot_twice": (mapping(5, 9, 5), mapping(5, 9, 6)),
    "C15 rows_that_share_a_block": (
        table([[1, 2], [2, 3]], [S - 1, 0], [2, 1]),
        table([[1, 2], [2, 3]], [S - 1, 1], [2, 1]),
    ),
    "C21 start": (with_cu_q_lens(ROWS, [1, 2, 3]), with_cu_q_lens(ROWS, [0, 2, 3])),
    "C21 decrease": (with_cu_q_lens(ROWS, [0, 3, 2]), with_cu_q_lens(ROWS, [0, 2, 2])),
}


def invalid_cases() -> Iterator[Case]:
    """Every case of invalid input, and its twin."""
    for name, shape in WRONG_STATES.items():
        twin = problem(MAIN_SHAPE, "bf16", GOOD)
        bad = replace(twin, states=pattern_of(shape, twin.dtype))
        yield from _pair("C1", name, bad, twin, ("refuse", "store"))
    for key, specs in WRONG_SPECS.items():
        clause, name = key.split()
        bad, twin = (problem(MAIN_SHAPE, "bf16", Step(spec, 3)) for spec in specs)
        yield from _pair(clause, name, bad, twin, ("refuse", "store"))
    for states, cache in CASTS:
        for step in (GOOD, mapping(5, 0, N * S - 1)):
            twin = problem(MAIN_SHAPE, cache, step)
            bad = replace(twin, states=pattern_of(twin.states.shape, DTYPES[states]))
            name = f"states_of_{states}_for_{cache}"
            yield from _pair("C2", name, bad, twin, ("refuse", "store"))
    for spec in forms_of(GOOD, MAIN_SHAPE):
        twin = problem(MAIN_SHAPE, "bf16", Step(spec, 3))
        yield from _pair("C3", "states_on_another_device", twin, twin, ("apart", "store"))
    for step in (QUERIES, chunks((0, 1, 0, 2)), mapping(1, 2)):
        form, build = step.index_spec.form, functools.partial(problem, MAIN_SHAPE, "bf16", step)
        about = "a valid spec, which a value check must not refuse"
        yield Case(_accepted(form), ("C5",), about, build, "accept", quick=True)
    for key, steps in WRONG_VALUES.items():
        clause, name = key.split()
        bad, twin = (problem(MAIN_SHAPE, "bf16", step) for step in steps)
        yield from _pair(clause, f"checked_{name}", bad, twin, ("check", "accept"))


def _accepted(form: str) -> str:
    return f"c5_checked/{form}"


def _pair(
    clause: str, name: str, bad: Problem, twin: Problem, kinds: tuple[CaseKind, CaseKind]
) -> Iterator[Case]:
    form = bad.index_spec.form
    about, stem = name.replace("_", " "), f"{clause.lower()}_{name}/{form}"
    twin_about, twin_id = f"one change away from: {about}", f"{stem}/twin"
    store = kinds[1] == "store"
    base = plain(form, short_name(twin.dtype)) if store else _accepted(form)
    clauses, controls = standing(clause, twin.index_spec, MAIN_SHAPE, len(twin.states), base)
    yield Case(
        stem,
        (clause,),
        about,
        lambda: bad,
        kinds[0],
        quick=True,
        controls=() if store else (twin_id,),
    )
    yield Case(
        twin_id,
        clauses,
        twin_about,
        lambda: twin,
        kinds[1],
        quick=not store,  # a quick run has enough that are to be stored
        twin=True,
        controls=controls if store else (base,),
    )
