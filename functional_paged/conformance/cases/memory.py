"""Cases about memory: layouts, sizes, bits, what a store may change, and what it is linear in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from functional_paged import PAD, SlotMapping

from ..bits import DTYPES, short_name
from .case import Case, CaseKind
from .controls import HEAD_DIMS, MAIN, MAIN_DTYPE, MAIN_SHAPE, SHAPES, plain, standing, subject_of
from .crossing import forms_of, pattern_of, problem
from .guarded_cache import LAYOUTS, Shape
from .problem import Problem
from .scenarios import example_steps
from .steps import mapping, plan_of, table

FLOATS = ("f32", "f16", "bf16", "f8e4m3fn", "f8e5m2")
VLLM = "https://github.com/vllm-project/vllm/issues/"
FLASHINFER = "https://github.com/flashinfer-ai/flashinfer/issues/"


def memory_cases() -> Iterator[Case]:
    """Layouts and sizes: what depends on memory rather than on the index spec."""
    n, h, s, d = MAIN_SHAPE
    step = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 0], [s + 2, 3])
    for one in forms_of(step, MAIN_SHAPE):
        made = problem(MAIN_SHAPE, MAIN_DTYPE, one)
        about = "inputs keep their bits; a store in place returns the cache it was given"
        yield case_of("c17_inputs", about, made, quick=True, ending="")
        for layout in LAYOUTS[1:]:
            about = f"a cache that lies {layout} in memory"
            shape, link = (n, 1 if layout == "lone_head" else h, s, d), FLASHINFER + "527"
            laid = problem(shape, MAIN_DTYPE, one, layout)
            name = f"c20_cache_{layout}"
            yield case_of(name, about, laid, quick=True, link=link, ending="")
        for layout in ("fused_qkv", "expanded_heads", "every_other_token"):
            about = f"states that lie {layout} in memory"
            laid, link = replace(made, states=_laid(made.states, layout)), FLASHINFER + "588"
            yield case_of(f"c20_states_{layout}", about, laid, link=link, ending="")
    holes = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 2 * s - 1], [s + 2, 3])
    for one, dtype in itertools.product(forms_of(holes, MAIN_SHAPE), ("f32", "bf16")):
        made, quick = problem(MAIN_SHAPE, dtype, one), dtype == "f32" and one is holes
        about = "cotangents of the cache and of the states"
        yield case_of("c22_vjp", about, made, kind="vjp", quick=quick)
        about = "the rows read back, zeros for tokens that are not stored"
        yield case_of("c16_load", about, made, kind="load")
    plan = plan_of((0, 1, 0, 2 * s), (2 * s, 2, 0, s), num_tokens=3 * s)
    made, about = problem(MAIN_SHAPE, MAIN_DTYPE, plan), "a plan made for blocks of twice the size"
    yield case_of("c13_plan_for_another_block_size", about, made, link=VLLM + "51031")
    before = "c16_head_dim_1/{}/f32"
    many = problem((2_334, 1, 30, 1), "f32", mapping(70_000, 65_535, 65_536, 70_001, 0))
    yield case_of("c5_many_slots", "slots past 65,536", many, before=before)
    far = plan_of((0, 65_536, 0, 1), (1, 3, 0, 1), num_tokens=2)
    many = problem((70_000, 1, 1, 1), "f32", far)
    yield case_of("c5_many_blocks", "blocks past 65,536", many, before=before)


def transfer_cases() -> Iterator[Case]:
    """Rows that come from another cache, or from another place in the one that is written."""
    n, h, s, d = MAIN_SHAPE
    halves = 2 * n, h, s // 2, d
    rows = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 0], [s + 2, 3])
    in_halves = table([[5, 13, 0, 2], [9, 1, PAD, 4]], [3, s // 2 - 1], [s + 2, 3])
    blocks = plan_of((0, 1, 0, s), (s, 4, 0, s), num_tokens=2 * s)
    swapped = plan_of((0, 4, 0, s), (s, 1, 0, s), num_tokens=2 * s)
    low, high = (mapping(*range(first, first + 2 * s)) for first in (s - 1, s))
    slots, with_holes = mapping(2, n * s - 1, 0, s), mapping(n * s - 1, PAD, 3, PAD)
    for name, about, to, source, shape in (
        ("c16_transfer_block_size", "from blocks of half the size", rows, in_halves, halves),
        ("c16_transfer_zeros", "zeros of tokens without a slot", slots, with_holes, halves),
        ("c17_transfer_swap", "two blocks change places", blocks, swapped, None),
        ("c17_transfer_up", "each token to the next slot", high, low, None),
        ("c17_transfer_down", "each token to the slot before", low, high, None),
    ):
        made = replace(problem(MAIN_SHAPE, MAIN_DTYPE, to), source=(source.index_spec, shape))
        yield case_of(name, about, made, kind="transfer", quick=True)


def bit_cases() -> Iterator[Case]:
    """Dtypes, head sizes and bits: a row arrives whole, whatever its bits mean (C16)."""
    n, h, s, _ = MAIN_SHAPE
    sizes = {(size, MAIN_DTYPE) for size in HEAD_DIMS}
    sizes |= {(shape[3], dtype) for shape, dtype in SHAPES.items() if shape[3] in HEAD_DIMS}
    for step in forms_of(example_steps(n, s)["c5_prefill"], MAIN_SHAPE):
        about = "a dtype is only a size: bits move, whatever they mean"
        for dtype in DTYPES.keys() - {MAIN_DTYPE}:
            made = problem(MAIN_SHAPE, dtype, step)
            yield case_of("c16_dtype", about, made, before=f"c5_prefill/{{}}/{MAIN}")
        about = "a row of any length, whole, and not a column more"
        for head_dim, dtype in sizes:
            made = problem((n, h, s, head_dim), dtype, step)
            yield case_of(f"c16_head_dim_{head_dim}", about, made, link=VLLM + "45466")
    yield from payload_cases(MAIN_SHAPE)
    about = "every pattern of 8 and 16 bits, stored and left alone"
    for dtype in DTYPES:
        made, quick = _every_bit_pattern(dtype), dtype in ("bf16", "i8")
        yield case_of("c16_every_bit_pattern", about, made, quick=quick)


def payload_cases(shape: Shape) -> Iterator[Case]:
    """Rows with NaN payloads in a cache with others, in each float dtype and form."""
    prefill = example_steps(shape[0], shape[2])["c5_prefill"]
    about = "NaN payloads, stored and left alone"
    for step, dtype in itertools.product(forms_of(prefill, shape), FLOATS):
        made = problem(shape, dtype, step, payloads=True)
        yield case_of("c16_nan_payloads", about, made, quick=dtype == MAIN_DTYPE)


def case_of(
    name: str,
    about: str,
    made: Problem,
    *,
    before: str = "",
    kind: CaseKind = "store",
    quick: bool = False,
    link: str | None = None,
    ending: str = "/{}",
) -> Case:
    """A case whose subject its name tells, and before which stands a plain one of its dtype.

    Form and dtype are filled in where `before` and the id's `ending` leave room for them.
    """
    spec, dtype = made.index_spec, short_name(made.dtype)
    base = before.format(spec.form) or plain(spec.form, dtype)
    subject, num_tokens = subject_of(name), len(made.states)
    clauses, controls = standing(subject, spec, made.cache_shape, num_tokens, base)
    case_id = f"{name}/{spec.form}{ending.format(dtype)}"
    return Case(case_id, clauses, about, lambda: made, kind, link, quick, controls=controls)


def _laid(states: np.ndarray, layout: str) -> np.ndarray:
    """States of a shape that lie in a larger tensor, or in a smaller one."""
    num_tokens, kv_heads, head_dim = states.shape
    if layout == "fused_qkv":
        shape = (num_tokens, 3 * kv_heads, head_dim)
        return pattern_of(shape, states.dtype)[:, kv_heads : 2 * kv_heads]
    if layout == "every_other_token":
        return pattern_of((2 * num_tokens, kv_heads, head_dim), states.dtype)[::2]
    # Like broadcast_to, but writable: torch knows no read-only memory.
    strides = (states.strides[0], 0, states.strides[2])
    return np.ndarray(states.shape, states.dtype, states, strides=strides)


def _every_bit_pattern(dtype: str) -> Problem:
    shape, num_tokens = (80, 4, 16, 16), 1024
    slots = np.arange(num_tokens, dtype=np.int32) * 5 % 1279
    element = DTYPES[dtype]
    bits = np.arange(num_tokens * 4 * 16, dtype=np.uint32)
    bits = bits.astype(f"u{element.itemsize}") if element.itemsize < 4 else bits * np.uint32(65521)
    states = bits.view(element).reshape(num_tokens, 4, 16)
    return Problem(shape, element, states, SlotMapping(slots), payloads=True)
