"""The sizes of the cases, and which cases stand before a case: each one change away.

A failure tells of a case's subject where its controls pass. At the main shape and in the main dtype
stands `c5_prefill`, in each form. Behind it come another dtype, another head size, another shape;
there, each clause by itself, and then the cases that need several.
"""

from __future__ import annotations

from functional_paged import BlockTable, IndexSpec

from .guarded_cache import Shape
from .needs import needs

MAIN_SHAPE: Shape = (7, 2, 16, 128)
MAIN_DTYPE = "bf16"

# Another ordinary one, and odd ones: axes pairwise different, in both orders, and every block size
# and head size that has its own trouble.
SHAPES: dict[Shape, str] = {
    MAIN_SHAPE: MAIN_DTYPE,
    (5, 8, 64, 64): "f16",
    (7, 3, 16, 46): "bf16",
    (64, 5, 3, 1): "f32",
    (5, 7, 33, 64): "bf16",
    (6, 1, 128, 46): "f8e4m3fn",
    (9, 2, 1, 128): "i8",
}
QUICK_SHAPES = tuple(SHAPES)[1:3]
"""Of which a quick run has a few cases too."""

HEAD_DIMS = (1, 3, 46, 63, 64, 80, 96, 192, 576)
"""Most are no multiple of a vector register; 192 and 576 are those of MLA models."""

# The case that needs one clause and no other: of prefill, and of decode where that is another.
_OF_ONE_CLAUSE: dict[tuple[str, str], tuple[str, ...]] = {
    ("block_table", "C6"): ("c6_padded_rows", "c6_padded_decode"),
    ("block_table", "C7"): ("c7_empty_rows",),
    ("block_table", "C8"): ("c8_hole", "c8_hole_in_decode"),
    ("block_table", "C9"): ("c9_past_the_table", "c9_past_the_table_in_decode"),
    ("block_table", "C10"): ("c10_more_states", "c10_more_states_in_decode"),
    ("chunks", "C10"): ("c10_more_states",),
    ("chunks", "C11"): ("c11_chunk_past_the_states",),
    ("slots", "C4"): ("c4_long_slots",),
    ("slots", "C10"): ("c10_fewer_slots",),
    ("slots", "C14"): ("c14_pad",),
}
BESIDES = {
    "c5_huge_context": ("c9_past_the_table_in_decode",),
    "c14_negative_slots": ("c14_pad",),
    "c14_long_negative_slots": ("c14_negative_slots", "c12_long_slots"),
}
"""More controls of a scenario: those of the same clause, and those that only a person sees."""


def size_name(dtype: str, shape: Shape) -> str:
    """The end of the ids of a dtype and a shape."""
    return "{}/n{}_h{}_s{}_d{}".format(dtype, *shape)


MAIN = size_name(MAIN_DTYPE, MAIN_SHAPE)


def plain(form: str, dtype: str) -> str:
    """The first case of a form in a dtype: nothing in it is special but the dtype."""
    return f"c5_prefill/{form}/{MAIN}" if dtype == MAIN_DTYPE else f"c16_dtype/{form}/{dtype}"


def before_shape(form: str, dtype: str, shape: Shape) -> str:
    """The case before the first one of a shape: with its head size, where there is one."""
    head_dim = shape[3]
    if head_dim in HEAD_DIMS and (dtype == MAIN_DTYPE or SHAPES.get(shape) == dtype):
        return f"c16_head_dim_{head_dim}/{form}/{dtype}"
    return plain(form, dtype)


def subject_of(name: str) -> str:
    """The clause that a scenario or a case puts to the test, as its name begins."""
    return name.partition("_")[0].upper()


def standing(
    subject: str, spec: IndexSpec, shape: Shape, num_tokens: int, base: str, size: str = MAIN
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The clauses of a case that stores, and its controls.

    Args:
      subject: what the case puts to the test.
      spec: of the case.
      shape: of its cache.
      num_tokens: of its states.
      base: the case before it that needs no clause but C5.
      size: as `size_name`, of the cases that each need one of the other clauses.
    """
    others = [clause for clause in needs(spec, shape, num_tokens) if clause != subject]
    controls = [base]
    for clause in others:
        names = _OF_ONE_CLAUSE.get((spec.form, clause), ())
        if names:
            controls.append(f"{names[-1 if is_decode(spec) else 0]}/{spec.form}/{size}")
    return (subject, *others), tuple(controls)


def is_decode(spec: IndexSpec) -> bool:
    """Whether a spec is a block table with one new token a row."""
    return isinstance(spec, BlockTable) and spec.cu_q_lens is None
