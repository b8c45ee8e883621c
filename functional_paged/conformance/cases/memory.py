"""Cases about memory: layouts, sizes, bits, what a store may change, and what it is linear in."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from functional_paged import PAD, SlotMapping

from ..bits import DTYPES, short_name
from .case import Case, CaseKind
from .controls import HEAD_DIMS, MAIN, MAIN_DTYPE, MAIN_SHAPE, SHAPES, plain, standing, subject_of
from .crossing import forms_of, pattern_of, problem
from .guarded_cache import LAYOUTS, Shape
from .problem import Problem
from .scenarios import example_steps
from .steps import Step, mapping, plan_of, table

FLOATS = ("f32", "f16", "bf16", "f8e4m3fn", "f8e5m2")


def memory_cases() -> Iterator[Case]:
    """Layouts, sizes and bits: what depends on memory rather than on the index spec."""
    n, h, s, d = MAIN_SHAPE
    step = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 0], [s + 2, 3])
    for spec in forms_of(step, MAIN_SHAPE):
        form, one = spec.form, Step(spec, step.num_tokens)
        for layout in LAYOUTS[1:]:
            kv_heads = 1 if layout == "lone_head" else h
            yield _case(
                f"c20_cache_{layout}/{form}",
                f"a cache that lies {layout} in memory",
                partial(problem, (n, kv_heads, s, d), "bf16", one, layout),
                quick=True,
                link="https://github.com/flashinfer-ai/flashinfer/issues/527",
            )
        for layout in ("fused_qkv", "expanded_heads", "every_other_token"):
            yield _case(
                f"c20_states_{layout}/{form}",
                f"states that lie {layout} in memory",
                partial(_strided_states, one, layout),
                link="https://github.com/flashinfer-ai/flashinfer/issues/588",
            )
        about = "inputs keep their bits; a store in place returns the cache it was given"
        build = partial(problem, MAIN_SHAPE, "bf16", one)
        yield _case(f"c17_inputs/{form}", about, build, quick=True)
    holes = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 2 * s - 1], [s + 2, 3])
    for spec, dtype in itertools.product(forms_of(holes, MAIN_SHAPE), ("f32", "bf16")):
        build = partial(problem, MAIN_SHAPE, dtype, Step(spec, holes.num_tokens))
        name, about = f"{spec.form}/{dtype}", "cotangents of the cache and of the states"
        quick = dtype == "f32" and spec is holes.index_spec
        yield _case(f"c22_vjp/{name}", about, build, kind="vjp", quick=quick)
        about = "the rows read back, zeros for tokens that are not stored"
        yield _case(f"c16_load/{name}", about, build, kind="load")
    yield from _transfer_cases()
    plan = plan_of((0, 1, 0, 2 * s), (2 * s, 2, 0, s), num_tokens=3 * s)
    yield _case(
        "c13_plan_for_another_block_size/chunks/bf16",
        "a plan made for blocks of twice the size",
        partial(problem, MAIN_SHAPE, "bf16", plan),
        link="https://github.com/vllm-project/vllm/issues/51031",
    )
    many = mapping(70_000, 65_535, 65_536, 70_001, 0)
    build = partial(problem, (2_334, 1, 30, 1), "f32", many)
    before = "c16_head_dim_1/{}/f32"
    yield _case("c5_many_slots/slots/f32", "slots past 65,536", build, before=before)
    far = plan_of((0, 65_536, 0, 1), (1, 3, 0, 1), num_tokens=2)
    build = partial(problem, (70_000, 1, 1, 1), "f32", far)
    yield _case("c5_many_blocks/chunks/f32", "blocks past 65,536", build, before=before)


def _transfer_cases() -> Iterator[Case]:
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
        one = problem(MAIN_SHAPE, MAIN_DTYPE, to)
        build = partial(replace, one, source=(source.index_spec, shape))
        case_id = f"{name}/{to.index_spec.form}/{MAIN_DTYPE}"
        yield _case(case_id, about, build, kind="transfer", quick=True)


def bit_cases() -> Iterator[Case]:
    """Dtypes, head sizes and bits: a row arrives whole, whatever its bits mean (C16)."""
    n, h, s, _ = MAIN_SHAPE
    main = f"c5_prefill/{{}}/{MAIN}"
    prefill = example_steps(n, s)["c5_prefill"]
    sizes = {(size, MAIN_DTYPE) for size in HEAD_DIMS}
    sizes |= {(shape[3], dtype) for shape, dtype in SHAPES.items() if shape[3] in HEAD_DIMS}
    for spec in forms_of(prefill, MAIN_SHAPE):
        form, step = spec.form, Step(spec, prefill.num_tokens)
        for dtype in DTYPES:
            build = partial(problem, MAIN_SHAPE, dtype, step)
            if dtype != MAIN_DTYPE:
                about = "a dtype is only a size: bits move, whatever they mean"
                yield _case(f"c16_dtype/{form}/{dtype}", about, build, before=main)
        for head_dim, dtype in sorted(sizes):
            yield _case(
                f"c16_head_dim_{head_dim}/{form}/{dtype}",
                "a row of any length, whole, and not a column more",
                partial(problem, (n, h, s, head_dim), dtype, step),
                link="https://github.com/vllm-project/vllm/issues/45466",
            )
    yield from payload_cases(MAIN_SHAPE)
    for dtype in DTYPES:
        yield _case(
            f"c16_every_bit_pattern/slots/{dtype}",
            "every pattern of 8 and 16 bits, stored and left alone",
            partial(_every_bit_pattern, dtype),
            quick=dtype in ("bf16", "i8"),
        )


def payload_cases(shape: Shape) -> Iterator[Case]:
    """Rows with NaN payloads in a cache with others, in each float dtype and form."""
    step = example_steps(shape[0], shape[2])["c5_prefill"]
    for spec, dtype in itertools.product(forms_of(step, shape), FLOATS):
        one = Step(spec, step.num_tokens)
        yield _case(
            f"c16_nan_payloads/{spec.form}/{dtype}",
            "NaN payloads, stored and left alone",
            partial(problem, shape, dtype, one, payloads=True),
            quick=dtype == MAIN_DTYPE,
        )


def _case(
    case_id: str,
    about: str,
    build: Callable[[], Problem],
    *,
    before: str = "",
    kind: CaseKind = "store",
    quick: bool = False,
    link: str | None = None,
) -> Case:
    """A case whose subject its name tells, and before which stands a plain one of its dtype."""
    made = build()
    spec, base = made.index_spec, before.format(made.index_spec.form)
    clauses, controls = standing(
        subject_of(case_id),
        spec,
        made.cache_shape,
        len(made.states),
        base or plain(spec.form, short_name(made.dtype)),
    )
    return Case(case_id, clauses, about, build, kind, link, quick, controls=controls)


def _strided_states(step: Step, layout: str) -> Problem:
    base = problem(MAIN_SHAPE, "bf16", step)
    num_tokens, kv_heads, head_dim = base.states.shape
    if layout == "fused_qkv":
        shape = (num_tokens, 3 * kv_heads, head_dim)
        states = pattern_of(shape, base.dtype)[:, kv_heads : 2 * kv_heads]
    elif layout == "expanded_heads":
        # Like broadcast_to, but writable: torch knows no read-only memory.
        strides = (base.states.strides[0], 0, base.states.strides[2])
        states = np.ndarray(base.states.shape, base.dtype, base.states, strides=strides)
    else:
        states = pattern_of((2 * num_tokens, kv_heads, head_dim), base.dtype)[::2]
    return Problem(MAIN_SHAPE, base.dtype, states, step.index_spec)


def _every_bit_pattern(dtype: str) -> Problem:
    shape, num_tokens = (80, 4, 16, 16), 1024
    slots = np.arange(num_tokens, dtype=np.int32) * 5 % 1279
    element = DTYPES[dtype]
    bits = np.arange(num_tokens * 4 * 16, dtype=np.uint32)
    bits = bits.astype(f"u{element.itemsize}") if element.itemsize < 4 else bits * np.uint32(65521)
    states = bits.view(element).reshape(num_tokens, 4, 16)
    return Problem(shape, element, states, SlotMapping(slots), payloads=True)
