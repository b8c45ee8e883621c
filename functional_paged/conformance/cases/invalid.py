"""Cases of invalid input, each beside a twin that is valid and one change away.

What shapes and dtypes decide, a store must refuse (`refuse`). What values decide, a value check
must refuse (`check`); what a store does with it unchecked is among the scenarios.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from functional_paged import PAD, BlockTable, ChunkPlan, IndexSpec, SlotMapping

from ..bits import DTYPES, short_name
from .case import Case, CaseKind
from .controls import MAIN_SHAPE, plain, standing, subject_of
from .crossing import forms_of, pattern_of, problem
from .problem import Problem
from .scenarios import about_of
from .steps import Step, mapping, plan_of, table, with_cu_q_lens

N, H, S, D = MAIN_SHAPE
GOOD = table([[0, 1], [N - 1, 2]], [S - 1, 0], [2, 1])
TABLE = GOOD.index_spec
assert isinstance(TABLE, BlockTable)
CONTEXTS = TABLE.context_kv_lens
CHUNKS = np.array([[0, 1, 0, 3]], np.int32)
SLOTS = np.array([1, 2, 3], np.int32)

WRONG_STATES = {
    "c1_states_of_two_axes": (3, H * D),
    "c1_states_with_other_heads": (3, H + 1, D),
    "c1_states_with_axes_swapped": (3, D, H),
    "c1_states_with_a_longer_head": (3, H, D + 1),
}
# By the names of cases: what is wrong, and its twin.
WRONG_SPECS: dict[str, tuple[IndexSpec, IndexSpec]] = {
    "c1_table_of_one_axis": (BlockTable(TABLE.block_table[0], CONTEXTS), TABLE),
    "c1_too_few_contexts": (replace(TABLE, context_kv_lens=CONTEXTS[:1]), TABLE),
    "c1_too_few_cu_q_lens": (replace(TABLE, cu_q_lens=np.array([0, 3], np.int32)), TABLE),
    "c1_chunks_of_three_columns": (ChunkPlan(CHUNKS[:, :3]), ChunkPlan(CHUNKS)),
    "c1_slots_of_two_axes": (SlotMapping(SLOTS[:, None]), SlotMapping(SLOTS)),
    "c4_long_block_table": (replace(TABLE, block_table=TABLE.block_table.astype(np.int64)), TABLE),
    "c4_long_contexts": (replace(TABLE, context_kv_lens=CONTEXTS.astype(np.int64)), TABLE),
    "c4_long_chunks": (ChunkPlan(CHUNKS.astype(np.int64)), ChunkPlan(CHUNKS)),
    "c4_float_slots": (SlotMapping(SLOTS.astype(np.float32)), SlotMapping(SLOTS.astype(np.int64))),
}
# Casts that overflow, round or saturate differently from one library to the next.
CASTS = (("f32", "bf16"), ("f16", "bf16"), ("i8", "bf16"), ("f32", "i8"), ("bf16", "f8e4m3fn"))

ROWS, QUERIES = table([[0], [1]], [0, 0]), table([[0, 1]], [0], [4])
PADDED = table([[0], [1]], [0, -1], num_tokens=1)
chunks = partial(plan_of, num_tokens=2)
WRONG_VALUES: dict[str, tuple[Step, Step]] = {
    "c11_checked_queries_past_the_states": (replace(QUERIES, num_tokens=3), QUERIES),
    "c11_checked_row_past_the_states": (replace(ROWS, num_tokens=1), PADDED),
    "c11_checked_slot_past_the_states": (
        mapping(1, 2, num_tokens=1),
        mapping(1, PAD, num_tokens=1),
    ),
    "c11_checked_chunk_past_the_states": (chunks((1, 2, 0, 2)), chunks((0, 2, 0, 2))),
    "c12_checked_block_of_a_table": (
        table([[0, N]], [S - 1], [2]),
        table([[0, N - 1]], [S - 1], [2]),
    ),
    "c12_checked_block_of_a_chunk": (chunks((0, N, 0, 1)), chunks((0, N - 1, 0, 1))),
    "c12_checked_slot": (mapping(N * S), mapping(N * S - 1)),
    "c12_checked_long_slot": (mapping(2**32 + 1, dtype=np.int64), mapping(1, dtype=np.int64)),
    "c13_checked_offset": (chunks((0, 1, -1, 1)), chunks((0, 1, 0, 1))),
    "c13_checked_source": (chunks((-1, 1, 0, 1)), chunks((0, 1, 0, 1))),
    "c13_checked_length": (chunks((0, 1, 0, -1)), chunks((0, 1, 0, 0))),
    "c13_checked_end": (chunks((0, 1, S - 1, 2)), chunks((0, 1, S - 2, 2))),
    "c13_checked_token_named_twice": (
        chunks((0, 1, 0, 2), (1, 2, 0, 1)),
        chunks((0, 1, 0, 1), (1, 2, 0, 1)),
    ),
    "c15_checked_slot_twice": (mapping(5, 9, 5), mapping(5, 9, 6)),
    "c15_checked_rows_that_share_a_block": (
        table([[1, 2], [2, 3]], [S - 1, 0], [2, 1]),
        table([[1, 2], [2, 3]], [S - 1, 1], [2, 1]),
    ),
    "c21_checked_start": (with_cu_q_lens(ROWS, [1, 2, 3]), with_cu_q_lens(ROWS, [0, 2, 3])),
    "c21_checked_decrease": (with_cu_q_lens(ROWS, [0, 3, 2]), with_cu_q_lens(ROWS, [0, 2, 2])),
}


def invalid_cases() -> Iterator[Case]:
    """Every case of invalid input, and its twin."""
    good = problem(MAIN_SHAPE, "bf16", GOOD)
    for name, shape in WRONG_STATES.items():
        yield from _pair(name, replace(good, states=pattern_of(shape, good.dtype)), good)
    for name, specs in WRONG_SPECS.items():
        bad, twin = (replace(good, index_spec=spec) for spec in specs)
        yield from _pair(name, bad, twin)
    for states, cache in CASTS:
        for step in (GOOD, mapping(5, 0, N * S - 1)):
            twin = problem(MAIN_SHAPE, cache, step)
            bad = replace(twin, states=pattern_of(twin.states.shape, DTYPES[states]))
            yield from _pair(f"c2_states_of_{states}_for_{cache}", bad, twin)
    for step in forms_of(GOOD, MAIN_SHAPE):
        twin = problem(MAIN_SHAPE, "bf16", step)
        yield from _pair("c3_states_on_another_device", twin, twin, "apart")
    for step in (QUERIES, chunks((0, 1, 0, 2)), mapping(1, 2)):
        case_id = f"c5_checked/{step.index_spec.form}"
        build = partial(problem, MAIN_SHAPE, "bf16", step)
        about = "a valid spec, which a value check must not refuse"
        yield Case(case_id, ("C5",), about, build, "accept", quick=True)
    for name, steps in WRONG_VALUES.items():
        bad, twin = (problem(MAIN_SHAPE, "bf16", step) for step in steps)
        yield from _pair(name, bad, twin, "check")


def _pair(name: str, bad: Problem, twin: Problem, kind: CaseKind = "refuse") -> Iterator[Case]:
    """A case of invalid input, and the twin that is to be stored, or accepted by a value check."""
    spec, subject, wrong = bad.index_spec, subject_of(name), about_of(name)
    case_id, twin_id = f"{name}/{spec.form}", f"{name}/{spec.form}/twin"
    is_check, base = kind == "check", plain(spec.form, short_name(twin.dtype))
    clauses, controls = standing(subject, twin.index_spec, MAIN_SHAPE, len(twin.states), base)
    before = (twin_id,) if is_check else ()
    yield Case(case_id, (subject,), wrong, lambda: bad, kind, quick=True, controls=before)
    yield Case(
        twin_id,
        clauses,
        f"one change away from: {wrong}",
        lambda: twin,
        "accept" if is_check else "store",
        quick=is_check,  # a quick run has enough that are to be stored
        twin=True,
        controls=(f"c5_checked/{spec.form}",) if is_check else controls,
    )
