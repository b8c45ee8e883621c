"""The steps that the cases are made of, each written once for every size.

Those of a block table are also tried as the chunk plan and the slot mapping that store the same
tokens.
"""

from __future__ import annotations

import numpy as np

from functional_paged import PAD, BlockTable

from .steps import Step, mapping, plan_of, table, with_cu_q_lens

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1

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
ABOUT = {
    "c5_prefill": "rows that begin at a page's start, middle and end, and cross it",
    "c5_decode": "one token a row, at the last and first position of a page",
    "c5_many_rows": "more rows than a group of threads takes, most of them padding",
    "c5_many_rows_in_decode": "more rows of a decode batch than a group of threads",
    "c5_huge_context": "a context near 2**31, whose position wraps in 32 bits",
    "c6_padded_rows": "padded rows that have queries and blocks, between others",
    "c7_empty_rows": "rows without a query token, first, between and last",
    "c8_hole": "a hole before and between real blocks: only its tokens are skipped",
    "c8_hole_in_decode": "a hole in decode, and the most negative id",
    "c9_past_the_table": "a table that ends early: its next row is not read on",
    "c10_more_states": "more states than are named, as graph padding leaves them",
    "c11_chunk_past_the_states": "chunks that count past the states, just and by far",
    "c11_padding_past_the_states": "more slots than states, of which padding is valid",
    "c12_slot_past_the_cache": "slots just past the cache, which reach no neighbour",
    "c12_long_slots": "64-bit slots that truncate to a slot of the cache",
    "c13_chunks": "chunks of two blocks, with padding rows before and after",
    "c13_padding_row": "a padding row that holds rubbish",
    "c13_out_of_block": "chunks that leave their block at either end",
    "c13_far_out_of_block": "a chunk as long as 32 bits can say",
    "c13_negative": "negative lengths and negative sources",
    "c14_pad": "slots of -1, which must not count from the end",
    "c14_negative_slots": "other negative slots, which must not count from the end",
    "c14_long_negative_slots": "a 64-bit slot that is negative, but not in 32 bits",
    "c15_one_slot_twice": "two tokens for one slot: either row, whole",
    "c21_start": "a running total that starts past 0: nothing is stored",
    "c21_decrease": "a running total that decreases: nothing is stored",
}
"""What a name does not say."""


def about_of(name: str) -> str:
    """A scenario in a sentence."""
    return ABOUT.get(name, name.partition("_")[2].replace("_", " "))


def example_steps(num_blocks: int, block_size: int) -> dict[str, Step]:
    """A step of every scenario by its name, `c8_hole`, valid ones and invalid ones.

    Args:
      num_blocks: at least 5, or 6 of one position.
      block_size: any.

    Example:
      >>> step = example_steps(num_blocks=7, block_size=4)["c14_pad"]
      >>> step.index_spec.slots, step.num_tokens
      (array([-1,  1, -1, 26], dtype=int32), 4)
    """
    n, s = num_blocks, block_size
    real = {0: 0, 31: 1, 32: 2, 64: 3, 69: 4}  # the block of each of a few rows among many
    many_rows = [[real.get(row, PAD), PAD] for row in range(70)]
    many_contexts = [s // 2 if row in real else -1 for row in range(70)]
    many_q_lens = [1 if row in real else (1, 0, 2)[row % 3] for row in range(70)]
    no_rows = BlockTable(np.zeros((0, 2), np.int32), np.zeros(0, np.int32), np.zeros(1, np.int32))
    half = max(1, s // 2)
    return {
        "c4_long_slots": mapping(1, n * s - 1, 0, 2, dtype=np.int64),
        "c5_prefill": table(
            [[n - 1, 0, 2], [3, 1, PAD], [4, n - 2, PAD]], [s - 1, 0, half], [s + 2, s + 1, 1]
        ),
        "c5_decode": table([[2, n - 1, PAD], [0, 3, PAD], [4, 1, PAD]], [s - 1, s, 0]),
        "c5_many_rows": table(many_rows, many_contexts, many_q_lens),
        "c5_many_rows_in_decode": table(many_rows, many_contexts),
        "c5_huge_context": table([[0, 1], [2, 3]], [INT32_MAX - 1, 1], [4, 1]),
        "c6_padded_rows": table(
            [[0, 1], [2, 3], [4, 0], [n - 1, 1]], [-1, s - 1, INT32_MIN, 0], [2, 2, 1, 2]
        ),
        "c6_padded_decode": table([[PAD, PAD], [2, n - 1], [0, 1], [PAD, PAD]], [-1, s, -1, -1]),
        "c7_empty_rows": table(
            [[0, 1], [2, 3], [1, 4], [n - 1, 0]], [0, s - 1, s, 0], [0, 2, 0, 0]
        ),
        "c8_hole": table(
            [[PAD, 2, PAD, n - 1], [0, -7, 3, PAD]], [s - 1, 0], [2 * s + 2, 2 * s + 1]
        ),
        "c8_hole_in_decode": table([[PAD, 1], [0, INT32_MIN], [PAD, 3]], [0, s, s]),
        "c9_past_the_table": table(
            [[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, s], [3, 2, s + 1]
        ),
        "c9_past_the_table_in_decode": table(
            [[0, 1], [2, 3], [4, n - 1]], [2 * s - 1, 2 * s, 5 * s]
        ),
        "c10_more_states": table([[0, 1], [n - 1, 2]], [s - 1, 0], [2, 1], num_tokens=7),
        "c10_more_states_in_decode": table([[0, 1], [n - 1, 2]], [s, 0], num_tokens=5),
        "c10_fewer_slots": mapping(1, n * s - 1, num_tokens=5),
        "c11_fewer_states": table([[0, 1], [n - 1, 2]], [s - 1, 0], [2, s + 1], num_tokens=3),
        "c11_fewer_states_in_decode": table([[0, 1], [n - 1, 2], [3, 4]], [s, 0, 1], num_tokens=2),
        "c11_chunk_past_the_states": plan_of(
            (0, n - 1, 0, 1), (1, 1, 0, s), (INT32_MAX, 2, 0, 1), num_tokens=2
        ),
        "c11_more_slots_than_states": mapping(1, 0, 2, num_tokens=2),
        "c11_padding_past_the_states": mapping(1, 0, PAD, PAD, num_tokens=2),
        "c12_block_past_the_cache": table(
            [[n, 1], [2, n], [n - 1, 0]], [s - 1, s - 1, 0], [2, 2, 1]
        ),
        "c12_block_far_past_the_cache": table(
            [[INT32_MAX, 1], [2, INT32_MAX], [n - 1, 0]], [s - 1, s - 1, 0], [2, 2, 1]
        ),
        "c12_chunk_past_the_cache": plan_of((0, n, 0, 1), (1, n - 1, s - 1, 1), num_tokens=2),
        "c12_chunk_far_past_the_cache": plan_of(
            (0, INT32_MAX, 0, 1), (1, n - 1, s - 1, 1), num_tokens=2
        ),
        "c12_slot_past_the_cache": mapping(0, n * s, n * s + 1, n * s - 1),
        "c12_slot_far_past_the_cache": mapping(0, INT32_MAX, INT32_MAX - 1, n * s - 1),
        "c12_long_slots": mapping(1, 2**32, 2**32 + 2, n * s - 1, 2**40, dtype=np.int64),
        "c13_chunks": plan_of(
            (5, 6, 7, 0),
            (half, n - 1, s - half, half),
            (0, 2, 0, half),
            (0, 0, 0, 0),
            num_tokens=2 * half,
        ),
        "c13_padding_row": plan_of((-9, n + 9, -9, 0), (0, 1, s - 1, 1), num_tokens=1),
        "c13_no_block": plan_of(
            (0, PAD, 0, 1), (1, n - 1, s - 1, 1), (2, INT32_MIN, 0, 1), num_tokens=3
        ),
        "c13_out_of_block": plan_of(
            (0, 1, s - 1, 2), (2, 1, -1, 1), (3, 2, 0, s + 1), (s + 4, 3, 0, 1), num_tokens=s + 5
        ),
        "c13_far_out_of_block": plan_of((0, 2, 0, 1), (1, 3, 0, INT32_MAX), num_tokens=2),
        "c13_negative": plan_of(
            (0, 1, 0, -1),
            (-1, 2, 0, 1),
            (INT32_MIN, 3, 0, 1),
            (1, 0, 0, 1),
            (0, 4, 0, 1),
            num_tokens=2,
        ),
        "c13_named_twice": plan_of(
            (0, 1, 0, 1), (1, 2, 0, 1), (1, n - 1, 0, 1), (2, 3, 0, 1), num_tokens=3
        ),
        "c14_pad": mapping(PAD, 1, PAD, n * s - 2),
        "c14_all_pad": mapping(PAD, PAD, PAD),
        "c14_negative_slots": mapping(-2, 1, -n * s, -s - 1, INT32_MIN, n * s - 1),
        "c14_long_negative_slots": mapping(-(2**32) + 3, 1, dtype=np.int64),
        "c15_one_slot_twice": mapping(1, n * s - 1, 1, 0, n * s - 1, 1),
        "c15_shared_block": table([[1, 0], [1, 2]], [0, 0], [s, 1]),
        "c18_no_tokens": table([[0, 1]], [0], [0]),
        "c18_no_rows": Step(no_rows, 3),
        "c18_no_columns": table([[], []], [0, 3]),
        "c18_no_chunks": plan_of(num_tokens=2),
        "c18_no_slots": mapping(num_tokens=2),
        "c21_start": with_cu_q_lens(table([[0, 1], [2, 3]], [0, s - 1]), [1, 2, 3]),
        "c21_decrease": with_cu_q_lens(
            table([[0, 1], [2, 3], [4, n - 1]], [0, s - 1, 0]), [0, 2, 1, 3]
        ),
    }
