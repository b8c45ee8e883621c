"""The steps that the cases are made of, each written once for every size.

A scenario is a function of `(num_blocks, block_size)` that returns a `Step`. Those of a block
table are also tried as the chunk plan and the slot mapping that store the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from functional_paged import PAD, BlockTable

from .steps import Step, mapping, plan_of, table, with_cu_q_lens

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


Build: TypeAlias = Callable[[int, int], Step]


@dataclass(frozen=True)
class Scenario:
    """A named step.

    Attributes:
      name: starts with the first clause, `c8_hole`.
      clauses: what it puts to the test.
      about: one sentence.
      build: from `(num_blocks, block_size)`.
      link: where this went wrong in public, if it did.
    """

    name: str
    clauses: tuple[str, ...]
    about: str
    build: Build
    link: str | None = None


SCENARIOS: list[Scenario] = []


def example_steps(num_blocks: int, block_size: int) -> dict[str, Step]:
    """A step of every scenario by its name, valid ones and invalid ones.

    Example:
      >>> step = example_steps(num_blocks=7, block_size=4)["c14_negative_slots"]
      >>> step.index_spec.slots[:3], step.num_tokens
      (array([-1,  1, -2], dtype=int32), 7)
    """
    return {scenario.name: scenario.build(num_blocks, block_size) for scenario in SCENARIOS}


def scenario(clauses: str, about: str, link: str | None = None) -> Callable[[Build], Build]:
    """Add a step to the table under the name of its function."""

    def add(build: Build) -> Build:
        SCENARIOS.append(Scenario(build.__name__, tuple(clauses.split()), about, build, link))
        return build

    return add


@scenario("C5", "rows that begin at a page's start, middle and end, and cross into the next")
def c5_prefill(n: int, s: int) -> Step:
    return table([[n - 1, 0, 2], [3, 1, PAD], [4, PAD, PAD]], [s - 1, 0, s // 2], [s + 2, s + 1, 1])


@scenario(
    "C5",
    "one token a row, at the last and first position of a page",
    "https://github.com/sgl-project/sglang/issues/22819",
)
def c5_decode(n: int, s: int) -> Step:
    return table([[2, n - 1, PAD], [0, 3, PAD], [4, 1, PAD]], [s - 1, s, 0])


@scenario("C5", "more rows than a group of threads takes, the real ones far apart")
def c5_many_rows(n: int, s: int) -> Step:
    rows, contexts, q_lens = [[PAD, PAD]] * 70, [-1] * 70, [1, 0, 2] * 23 + [1]
    for block, row in enumerate((0, 31, 32, 64, 69)):
        rows[row], contexts[row], q_lens[row] = [block, PAD], s // 2, 1
    return table(rows, contexts, q_lens)


@scenario("C5", "more rows of a decode batch than a group of threads takes")
def c5_many_rows_in_decode(n: int, s: int) -> Step:
    rows, contexts = [[PAD, PAD]] * 70, [-1] * 70
    for block, row in enumerate((0, 31, 32, 64, 69)):
        rows[row], contexts[row] = [block, PAD], s // 2
    return table(rows, contexts)


@scenario("C5 C9", "a context near 2**31, whose position wraps in 32 bits")
def c5_huge_context(n: int, s: int) -> Step:
    return table([[0, 1], [2, 3]], [INT32_MAX - 1, 1], [4, 2])


@scenario(
    "C6",
    "padded rows between real ones, with queries and stale blocks in their table",
    "https://github.com/huggingface/transformers/issues/46765",
)
def c6_padded_rows(n: int, s: int) -> Step:
    return table([[0, 1], [2, 3], [4, 0], [n - 1, 1]], [-1, s - 1, INT32_MIN, 0], [2, 3, 1, 2])


@scenario(
    "C6",
    "padded rows of a decode batch",
    "https://github.com/sgl-project/sglang/issues/32477",
)
def c6_padded_decode(n: int, s: int) -> Step:
    return table([[PAD, PAD], [2, n - 1], [0, 1], [PAD, PAD]], [-1, s, -1, -1])


@scenario("C7", "rows without a query token, first, between and last")
def c7_empty_rows(n: int, s: int) -> Step:
    return table([[0, 1], [2, 3], [1, 4], [n - 1, 0]], [0, s - 1, 5, 0], [0, 3, 0, 0])


@scenario(
    "C8",
    "a hole before and between real blocks: only its own tokens are skipped",
    "https://github.com/vllm-project/vllm/issues/43869",
)
def c8_hole(n: int, s: int) -> Step:
    return table([[PAD, 2, PAD, n - 1], [0, -7, 3, PAD]], [s - 1, 0], [2 * s + 2, 2 * s + 1])


@scenario("C8", "a hole in decode, and the most negative id")
def c8_hole_in_decode(n: int, s: int) -> Step:
    return table([[PAD, 1], [0, INT32_MIN], [2, 3]], [0, s, s])


@scenario(
    "C9",
    "a table narrower than its sequence, whose next row must not be read on",
    "https://github.com/vllm-project/vllm/issues/53982",
)
def c9_past_the_table(n: int, s: int) -> Step:
    return table([[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, s], [3, 2, s + 1])


@scenario("C9", "a decode position just past the table")
def c9_past_the_table_in_decode(n: int, s: int) -> Step:
    return table([[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, 5 * s])


@scenario(
    "C10",
    "more states than the spec names, as graph padding leaves them",
    "https://github.com/vllm-project/vllm/issues/13922",
)
def c10_more_states(n: int, s: int) -> Step:
    return table([[0, 1], [n - 1, 2]], [s - 1, 0], [2, 1], num_tokens=7)


@scenario("C10", "more states than rows of a decode batch")
def c10_more_states_in_decode(n: int, s: int) -> Step:
    return table([[0, 1], [n - 1, 2]], [s, 0], num_tokens=5)


@scenario("C11", "queries that count past the states")
def c11_fewer_states(n: int, s: int) -> Step:
    return table([[0, 1], [n - 1, 2]], [s - 1, 0], [2, 9], num_tokens=4)


@scenario("C11", "more rows of a decode batch than states")
def c11_fewer_states_in_decode(n: int, s: int) -> Step:
    return table([[0, 1], [n - 1, 2], [3, 4]], [s, 0, 1], num_tokens=2)


@scenario(
    "C12",
    "block ids past the cache, just and by far",
    "https://github.com/sgl-project/sglang/issues/27459",
)
def c12_block_past_the_cache(n: int, s: int) -> Step:
    return table([[n, 1], [2, INT32_MAX], [n - 1, 0]], [s - 1, s - 1, 0], [2, 2, 1])


@scenario(
    "C12",
    "slots just past the cache, whose rows must reach no neighbour",
    "https://github.com/sgl-project/sglang/issues/27459",
)
def c12_slot_past_the_cache(n: int, s: int) -> Step:
    return mapping(0, n * s, n * s + 1, n * s - 1, INT32_MAX)


@scenario("C12", "64-bit slots that truncate to a slot of the cache")
def c12_long_slots(n: int, s: int) -> Step:
    return mapping(1, 2**32, 2**32 + 2, n * s - 1, 2**40, -(2**32) + 3, dtype=np.int64)


@scenario("C13", "chunks of two blocks, with padding rows before and after")
def c13_chunks(n: int, s: int) -> Step:
    half = max(1, s // 2)
    chunks = ((5, 6, 7, 0), (half, n - 1, s - half, half), (0, 2, 0, half), (0, 0, 0, 0))
    return plan_of(*chunks, num_tokens=2 * half)


@scenario("C13", "a padding row that holds rubbish")
def c13_padding_row(n: int, s: int) -> Step:
    return plan_of((-9, n + 9, -9, 0), (0, 1, s - 1, 1), num_tokens=2)


@scenario("C13", "a chunk without a block")
def c13_no_block(n: int, s: int) -> Step:
    return plan_of((0, PAD, 0, 1), (1, n - 1, s - 1, 1), (2, INT32_MIN, 0, 1), num_tokens=3)


@scenario("C13", "chunks that leave their block at either end")
def c13_out_of_block(n: int, s: int) -> Step:
    chunks = ((0, 1, s - 1, 2), (2, 1, -1, 1), (3, 2, 0, s + 1), (4, 3, 0, INT32_MAX), (1, 2, 0, 1))
    return plan_of(*chunks, num_tokens=6)


@scenario("C13", "negative lengths and negative sources")
def c13_negative(n: int, s: int) -> Step:
    return plan_of((0, 1, 0, -1), (-1, 2, 0, 1), (INT32_MIN, 3, 0, 1), (1, 0, 0, 1), num_tokens=2)


@scenario("C13", "two chunks that name one token")
def c13_named_twice(n: int, s: int) -> Step:
    return plan_of((0, 1, 0, 1), (1, 2, 0, 1), (1, n - 1, 0, 1), (2, 3, 0, 1), num_tokens=3)


@scenario("C11 C13", "a chunk that counts past the states")
def c11_chunk_past_the_states(n: int, s: int) -> Step:
    return plan_of((0, n - 1, 0, 1), (1, 1, 0, s), (INT32_MAX, 2, 0, 1), num_tokens=2)


@scenario("C12 C13", "a chunk for a block past the cache")
def c12_chunk_past_the_cache(n: int, s: int) -> Step:
    return plan_of((0, n, 0, 1), (1, n - 1, s - 1, 1), (2, INT32_MAX, 0, 1), num_tokens=3)


@scenario(
    "C14",
    "negative slots, which must not count from the end",
    "https://github.com/NVIDIA/TensorRT-LLM/issues/18673",
)
def c14_negative_slots(n: int, s: int) -> Step:
    return mapping(PAD, 1, -2, -n * s, -s, INT32_MIN, n * s - 1)


@scenario("C10 C11", "fewer and more slots than states")
def c11_more_slots_than_states(n: int, s: int) -> Step:
    return mapping(1, 0, PAD, 2, PAD, num_tokens=2)


@scenario("C10", "fewer slots than states")
def c10_fewer_slots(n: int, s: int) -> Step:
    return mapping(1, n * s - 1, num_tokens=5)


@scenario("C15", "two tokens for one slot: either row, whole")
def c15_one_slot_twice(n: int, s: int) -> Step:
    return mapping(1, n * s - 1, 1, 0, n * s - 1, 1)


@scenario("C15", "two rows of a table that share a block")
def c15_shared_block(n: int, s: int) -> Step:
    return table([[1, 0], [1, 2]], [0, 0], [s, 1])


@scenario("C18", "no tokens")
def c18_no_tokens(n: int, s: int) -> Step:
    return table([[0, 1]], [0], [0])


@scenario("C18", "no rows")
def c18_no_rows(n: int, s: int) -> Step:
    spec = BlockTable(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(1, np.int32))
    return Step(spec, 3)


@scenario("C18", "a table without columns")
def c18_no_columns(n: int, s: int) -> Step:
    return table([[], []], [0, 3])


@scenario("C18", "no chunks")
def c18_no_chunks(n: int, s: int) -> Step:
    return plan_of(num_tokens=2)


@scenario("C18", "no slots")
def c18_no_slots(n: int, s: int) -> Step:
    return mapping(num_tokens=2)


@scenario("C21", "a running total that does not start at 0: nothing is stored")
def c21_start(n: int, s: int) -> Step:
    return with_cu_q_lens(table([[0, 1], [2, 3]], [0, s - 1]), [1, 2, 3])


@scenario("C21", "a running total that decreases: nothing is stored")
def c21_decrease(n: int, s: int) -> Step:
    return with_cu_q_lens(table([[0, 1], [2, 3], [4, n - 1]], [0, s - 1, 1]), [0, 3, 1, 4])
