"""Cases about memory: layouts, sizes, bits, what a store may change, and what it is linear in."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial

import numpy as np

from functional_paged import PAD, SlotMapping

from ..bits import DTYPES
from .case import Case
from .crossing import MAIN_SHAPE, forms_of, pattern_of, problem
from .guarded_cache import LAYOUTS
from .problem import Problem
from .steps import Step, mapping, plan_of, table

HEAD_DIMS = (1, 3, 46, 63, 80, 96, 192, 576)
"""Most are no multiple of a vector register; 192 and 576 are those of MLA models."""


def memory_cases() -> Iterator[Case]:
    """Layouts, sizes and bits: what depends on memory rather than on the index spec."""
    n, _, s, _ = MAIN_SHAPE
    step = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 0], [s + 2, 3])
    for spec in forms_of(step, MAIN_SHAPE):
        form, one = spec.form, Step(spec, step.num_tokens)
        for layout in LAYOUTS[1:]:
            yield Case(
                f"c20_cache_{layout}/{form}",
                ("C20", "C16"),
                f"a cache that lies {layout} in memory",
                partial(problem, MAIN_SHAPE, "bf16", one, layout),
                quick=True,
                link="https://github.com/flashinfer-ai/flashinfer/issues/527",
            )
        for layout in ("fused_qkv", "expanded_heads", "every_other_token"):
            yield Case(
                f"c20_states_{layout}/{form}",
                ("C20",),
                f"states that lie {layout} in memory",
                partial(_strided_states, one, layout),
                link="https://github.com/flashinfer-ai/flashinfer/issues/588",
            )
        about = "inputs keep their bits; a store in place returns the cache it was given"
        build = partial(problem, MAIN_SHAPE, "bf16", one)
        yield Case(f"c17_inputs/{form}", ("C17",), about, build, quick=True)
    holes = table([[n - 1, 0, 2], [3, 1, PAD]], [s - 1, 2 * s - 1], [s + 2, 3])
    for spec, dtype in itertools.product(forms_of(holes, MAIN_SHAPE), ("f32", "bf16")):
        build = partial(problem, MAIN_SHAPE, dtype, Step(spec, holes.num_tokens))
        name, about = f"{spec.form}/{dtype}", "cotangents of the cache and of the states"
        yield Case(f"c22_vjp/{name}", ("C22",), about, build, "vjp", quick=dtype == "f32")
        about = "the rows read back, zeros for tokens that are not stored"
        yield Case(f"c16_load/{name}", ("C16",), about, build, "load")
    for dtype in DTYPES:
        yield Case(
            f"c16_every_bit_pattern/slots/{dtype}",
            ("C16",),
            "every pattern of 8 and 16 bits, stored and left alone",
            partial(_every_bit_pattern, dtype),
            quick=dtype in ("bf16", "i8"),
        )
    for head_dim in HEAD_DIMS:
        yield Case(
            f"c16_head_dim_{head_dim}/slots/bf16",
            ("C16",),
            "a row of any length, whole, and not a column more",
            partial(problem, (6, 2, 4, head_dim), "bf16", mapping(23, PAD, 0, 6)),
            link="https://github.com/vllm-project/vllm/issues/45466",
        )
    long = plan_of((0, 1, 0, 8), (8, 2, 0, 4), num_tokens=12)
    yield Case(
        "c13_plan_for_another_block_size/chunks/bf16",
        ("C13",),
        "a plan made for blocks of twice the size",
        partial(problem, (6, 2, 4, 3), "bf16", long),
        link="https://github.com/vllm-project/vllm/issues/51031",
    )
    many = mapping(70_000, 65_535, 65_536, PAD, 70_001, 0)
    build = partial(problem, (2_334, 1, 30, 1), "i8", many)
    yield Case("c5_many_slots/slots/i8", ("C5",), "slots past 65,536", build)
    far = plan_of((0, 65_536, 0, 1), (1, 3, 0, 1), num_tokens=2)
    build = partial(problem, (70_000, 1, 1, 1), "i8", far)
    yield Case("c5_many_blocks/chunks/i8", ("C5",), "blocks past 65,536", build)


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
    return Problem(shape, element, states, SlotMapping(slots))
