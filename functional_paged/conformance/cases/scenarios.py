"""The steps that the cases are made of, each written once for every size.

Those of a block table are also tried as the chunk plan and the slot mapping that store the same
tokens.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from functional_paged import PAD, BlockTable

from .steps import Step, mapping, plan_of, table, with_cu_q_lens

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Scenario:
    """A named step.

    Attributes:
      name: starts with its subject, `c8_hole`.
      about: one sentence.
      step: of a certain size.
      link: where this went wrong in public, if it did.
    """

    name: str
    about: str
    step: Step
    link: str | None

    @property
    def subject(self) -> str:
        """The clause that it puts to the test."""
        return self.name.partition("_")[0].upper()


LINKS = {
    "c5_decode": "https://github.com/sgl-project/sglang/issues/22819",
    "c6_padded_decode": "https://github.com/sgl-project/sglang/issues/32477",
    "c6_padded_rows": "https://github.com/huggingface/transformers/issues/46765",
    "c8_hole": "https://github.com/vllm-project/vllm/issues/43869",
    "c9_past_the_table": "https://github.com/vllm-project/vllm/issues/53982",
    "c10_more_states": "https://github.com/vllm-project/vllm/issues/13922",
    "c12_block_past_the_cache": "https://github.com/sgl-project/sglang/issues/27459",
    "c12_slot_past_the_cache": "https://github.com/sgl-project/sglang/issues/27459",
    "c14_pad": "https://github.com/NVIDIA/TensorRT-LLM/issues/18673",
}


def scenarios(num_blocks: int, block_size: int) -> Iterator[Scenario]:
    """Every scenario at a size of the cache, valid ones and invalid ones.

    Args:
      num_blocks: at least 5, or 6 of one position.
      block_size: any.
    """
    for (name, about), step in _steps(num_blocks, block_size).items():
        yield Scenario(name, about, step, LINKS.get(name))


def example_steps(num_blocks: int, block_size: int) -> dict[str, Step]:
    """A step of every scenario by its name, valid ones and invalid ones.

    Example:
      >>> step = example_steps(num_blocks=7, block_size=4)["c14_pad"]
      >>> step.index_spec.slots, step.num_tokens
      (array([-1,  1, -1, 26], dtype=int32), 4)
    """
    return {scenario.name: scenario.step for scenario in scenarios(num_blocks, block_size)}


def _steps(n: int, s: int) -> dict[tuple[str, str], Step]:
    """The steps for `n` blocks of `s` positions, by their names and what each is about."""
    real = {0: 0, 31: 1, 32: 2, 64: 3, 69: 4}  # the block of each of a few rows among many
    many_rows = [[real.get(row, PAD), PAD] for row in range(70)]
    many_contexts = [s // 2 if row in real else -1 for row in range(70)]
    many_q_lens = [1 if row in real else (1, 0, 2)[row % 3] for row in range(70)]
    no_rows = BlockTable(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(1, np.int32))
    half = max(1, s // 2)
    return {
        ("c4_long_slots", "slots of 64 bits, all of them small"): mapping(
            1, n * s - 1, 0, 2, dtype=np.int64
        ),
        ("c5_prefill", "rows that begin at a page's start, middle and end, and cross it"): table(
            [[n - 1, 0, 2], [3, 1, PAD], [4, n - 2, PAD]], [s - 1, 0, half], [s + 2, s + 1, 1]
        ),
        ("c5_decode", "one token a row, at the last and first position of a page"): table(
            [[2, n - 1, PAD], [0, 3, PAD], [4, 1, PAD]], [s - 1, s, 0]
        ),
        ("c5_many_rows", "more rows than a group of threads takes, most of them padding"): table(
            many_rows, many_contexts, many_q_lens
        ),
        ("c5_many_rows_in_decode", "more rows of a decode batch than a group of threads"): table(
            many_rows, many_contexts
        ),
        ("c5_huge_context", "a context near 2**31, whose position wraps in 32 bits"): table(
            [[0, 1], [2, 3]], [INT32_MAX - 1, 1], [4, 1]
        ),
        ("c6_padded_rows", "padded rows that have queries and blocks, between others"): table(
            [[0, 1], [2, 3], [4, 0], [n - 1, 1]], [-1, s - 1, INT32_MIN, 0], [2, 2, 1, 2]
        ),
        ("c6_padded_decode", "padded rows of a decode batch"): table(
            [[PAD, PAD], [2, n - 1], [0, 1], [PAD, PAD]], [-1, s, -1, -1]
        ),
        ("c7_empty_rows", "rows without a query token, first, between and last"): table(
            [[0, 1], [2, 3], [1, 4], [n - 1, 0]], [0, s - 1, s, 0], [0, 2, 0, 0]
        ),
        ("c8_hole", "a hole before and between real blocks: only its tokens are skipped"): table(
            [[PAD, 2, PAD, n - 1], [0, -7, 3, PAD]], [s - 1, 0], [2 * s + 2, 2 * s + 1]
        ),
        ("c8_hole_in_decode", "a hole in decode, and the most negative id"): table(
            [[PAD, 1], [0, INT32_MIN], [PAD, 3]], [0, s, s]
        ),
        ("c9_past_the_table", "a table that ends early: its next row is not read on"): table(
            [[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, s], [3, 2, s + 1]
        ),
        ("c9_past_the_table_in_decode", "a decode position just past the table"): table(
            [[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, 5 * s]
        ),
        ("c10_more_states", "more states than are named, as graph padding leaves them"): table(
            [[0, 1], [n - 1, 2]], [s - 1, 0], [2, 1], num_tokens=7
        ),
        ("c10_more_states_in_decode", "more states than rows of a decode batch"): table(
            [[0, 1], [n - 1, 2]], [s, 0], num_tokens=5
        ),
        ("c10_fewer_slots", "fewer slots than states"): mapping(1, n * s - 1, num_tokens=5),
        ("c11_fewer_states", "queries that count past the states"): table(
            [[0, 1], [n - 1, 2]], [s - 1, 0], [2, s + 1], num_tokens=3
        ),
        ("c11_fewer_states_in_decode", "more rows of a decode batch than states"): table(
            [[0, 1], [n - 1, 2], [3, 4]], [s, 0, 1], num_tokens=2
        ),
        ("c11_chunk_past_the_states", "chunks that count past the states, just and by far"): (
            plan_of((0, n - 1, 0, 1), (1, 1, 0, s), (INT32_MAX, 2, 0, 1), num_tokens=2)
        ),
        ("c11_more_slots_than_states", "more slots than states"): mapping(1, 0, 2, num_tokens=2),
        ("c11_padding_past_the_states", "more slots than states, of which padding is valid"): (
            mapping(1, 0, PAD, PAD, num_tokens=2)
        ),
        ("c12_block_past_the_cache", "block ids just past the cache"): table(
            [[n, 1], [2, n], [n - 1, 0]], [s - 1, s - 1, 0], [2, 2, 1]
        ),
        ("c12_block_far_past_the_cache", "block ids far past the cache"): table(
            [[INT32_MAX, 1], [2, INT32_MAX], [n - 1, 0]], [s - 1, s - 1, 0], [2, 2, 1]
        ),
        ("c12_chunk_past_the_cache", "a chunk for the block just past the cache"): plan_of(
            (0, n, 0, 1), (1, n - 1, s - 1, 1), num_tokens=2
        ),
        ("c12_chunk_far_past_the_cache", "a chunk for a block far past the cache"): plan_of(
            (0, INT32_MAX, 0, 1), (1, n - 1, s - 1, 1), num_tokens=2
        ),
        ("c12_slot_past_the_cache", "slots just past the cache, which reach no neighbour"): mapping(
            0, n * s, n * s + 1, n * s - 1
        ),
        ("c12_slot_far_past_the_cache", "slots far past the cache"): mapping(
            0, INT32_MAX, INT32_MAX - 1, n * s - 1
        ),
        ("c12_long_slots", "64-bit slots that truncate to a slot of the cache"): mapping(
            1, 2**32, 2**32 + 2, n * s - 1, 2**40, dtype=np.int64
        ),
        ("c13_chunks", "chunks of two blocks, with padding rows before and after"): plan_of(
            (5, 6, 7, 0),
            (half, n - 1, s - half, half),
            (0, 2, 0, half),
            (0, 0, 0, 0),
            num_tokens=2 * half,
        ),
        ("c13_padding_row", "a padding row that holds rubbish"): plan_of(
            (-9, n + 9, -9, 0), (0, 1, s - 1, 1), num_tokens=1
        ),
        ("c13_no_block", "a chunk without a block"): plan_of(
            (0, PAD, 0, 1), (1, n - 1, s - 1, 1), (2, INT32_MIN, 0, 1), num_tokens=3
        ),
        ("c13_out_of_block", "chunks that leave their block at either end"): plan_of(
            (0, 1, s - 1, 2),
            (2, 1, -1, 1),
            (3, 2, 0, s + 1),
            (s + 4, 3, 0, 1),
            num_tokens=s + 5,
        ),
        ("c13_far_out_of_block", "a chunk as long as 32 bits can say"): plan_of(
            (0, 2, 0, 1), (1, 3, 0, INT32_MAX), num_tokens=2
        ),
        ("c13_negative", "negative lengths and negative sources"): plan_of(
            (0, 1, 0, -1),
            (-1, 2, 0, 1),
            (INT32_MIN, 3, 0, 1),
            (1, 0, 0, 1),
            (0, 4, 0, 1),
            num_tokens=2,
        ),
        ("c13_named_twice", "two chunks that name one token"): plan_of(
            (0, 1, 0, 1), (1, 2, 0, 1), (1, n - 1, 0, 1), (2, 3, 0, 1), num_tokens=3
        ),
        ("c14_pad", "slots of -1, which must not count from the end"): mapping(
            PAD, 1, PAD, n * s - 2
        ),
        ("c14_all_pad", "nothing but slots of -1"): mapping(PAD, PAD, PAD),
        ("c14_negative_slots", "other negative slots, which must not count from the end"): mapping(
            -2, 1, -n * s, -s - 1, INT32_MIN, n * s - 1
        ),
        ("c14_long_negative_slots", "a 64-bit slot that is negative, but not in 32 bits"): mapping(
            -(2**32) + 3, 1, dtype=np.int64
        ),
        ("c15_one_slot_twice", "two tokens for one slot: either row, whole"): mapping(
            1, n * s - 1, 1, 0, n * s - 1, 1
        ),
        ("c15_shared_block", "two rows of a table that share a block"): table(
            [[1, 0], [1, 2]], [0, 0], [s, 1]
        ),
        ("c18_no_tokens", "no tokens"): table([[0, 1]], [0], [0]),
        ("c18_no_rows", "no rows"): Step(no_rows, 3),
        ("c18_no_columns", "a table without columns"): table([[], []], [0, 3]),
        ("c18_no_chunks", "no chunks"): plan_of(num_tokens=2),
        ("c18_no_slots", "no slots"): mapping(num_tokens=2),
        ("c21_start", "a running total that starts past 0: nothing is stored"): with_cu_q_lens(
            table([[0, 1], [2, 3]], [0, s - 1]), [1, 2, 3]
        ),
        ("c21_decrease", "a running total that decreases: nothing is stored"): with_cu_q_lens(
            table([[0, 1], [2, 3], [4, n - 1]], [0, s - 1, 0]), [0, 2, 1, 3]
        ),
    }
